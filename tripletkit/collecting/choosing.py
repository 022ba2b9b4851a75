"""Which question to ask next: pure functions from embeddings to questions.

A question is a row `anchor, first, second` of image numbers, counted from 0. The order of the
last two is by chance and has nothing to do with what a model expects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.special import entr, expit

from tripletkit.evaluation.distances import triplet_distances, triplet_margins

# Seconds of a judge that an answer costs, and one that says "can't tell": medians of a trial with
# 597 answers, and of the same order as those of other people in docs/collect.md.
ANSWER_S, CANT_TELL_S = 2.3, 4.0
# Answers of either kind below which nothing is learned about who can tell.
_FEWEST_OF_A_KIND = 5
# A candidate is drawn in proportion to this power of the inverse of its rank. By 0.75 twice as many
# can be answered as by 0; by 1 so near ones that a model learns less from each.
_NEARNESS = 0.75
# Anchors whose distances to all images are held at once.
_CHUNK = 128


@dataclass(frozen=True)
class Drawn:
    """A question or grid drawn by chance: numbers of the anchor and of the others, left to right.

    A question has its `probability` to be drawn, whichever way round; a grid those that were drawn
    among the nearest, and the number of images that it was drawn from.
    """

    images: list[int]
    probability: float = 1.0
    near: list[int] = field(default_factory=list)
    n_images: int = 0


@dataclass(frozen=True)
class Committee:
    """Several heads trained on the same answers, each with `(n_images, n_dims)` embeddings.

    At a margin of `temperature`, in units of the `distance`, the odds of an answer are e to 1.
    """

    embeddings: Sequence[np.ndarray]
    distance: str
    temperature: float


class _Choice(NamedTuple):
    """Questions, the most wanted first; their worth in nats a second, and the chance of `first`."""

    rows: np.ndarray
    scores: np.ndarray
    expected: np.ndarray


def draw_questions(
    features: np.ndarray, anchors: np.ndarray, n_each: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw questions that people can probably answer, each with a known probability.

    One candidate is drawn the more often the nearer it ranks, and the other with equal chances.
    Every question can come, so that answers weighted by the inverse of the probability stand for
    all (Horvitz, Thompson. A generalization of sampling without replacement. JASA 47, 1952).
    """
    n_others = len(features) - 1
    by_rank = np.arange(1, n_others + 1) ** -_NEARNESS
    by_rank /= by_rank.sum()
    rows, probability = [], []
    for anchor, others in _rank_others(features, anchors):
        near = rng.choice(n_others, n_each, p=by_rank)
        far = rng.integers(n_others - 1, size=n_each)
        far += far >= near
        shown = rng.permuted(np.stack([others[near], others[far]], axis=1), axis=1)
        rows.append(np.insert(shown, 0, anchor, axis=1))
        probability.append((by_rank[near] + by_rank[far]) / (n_others - 1) / len(features))
    return np.concatenate(rows).astype(np.int32), np.concatenate(probability)


def draw_grids(
    features: np.ndarray, anchors: np.ndarray, n_shown: int, rng: np.random.Generator
) -> list[tuple[list[int], list[int]]]:
    """Draw a grid for each anchor: most of its images among the nearest, the others by chance."""
    n_near, n_nearest = grid_layers(len(features), n_shown)
    grids = []
    for anchor, others in _rank_others(features, anchors):
        near = others[rng.choice(n_nearest, n_near, replace=False)]
        far = others[rng.choice(np.arange(n_nearest, len(others)), n_shown - n_near, False)]
        shown = rng.permutation(np.concatenate([near, far])).tolist()
        grids.append(([anchor, *shown], near.tolist()))
    return grids


def grid_layers(n_images: int, n_shown: int) -> tuple[int, int]:
    """Return how many images of a grid are drawn among the nearest, and among how many."""
    n_near = -(-5 * n_shown // 8)
    return n_near, min(3 * n_shown, n_images - 1 - (n_shown - n_near))


def _rank_others(features: np.ndarray, anchors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each anchor with the rows of all other images, the nearest first."""
    directions = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    for start in range(0, len(anchors), _CHUNK):
        chunk = anchors[start : start + _CHUNK]
        for anchor, similarity in zip(chunk, directions[chunk] @ directions.T, strict=True):
            order = np.argsort(-similarity, kind="stable")
            yield int(anchor), order[order != anchor]


def expect_answers(
    measures: np.ndarray, was_answered: np.ndarray, candidates: np.ndarray
) -> np.ndarray | float:
    """Return the chance that a judge can answer each candidate, 0 to 1.

    It is learned from the questions that judges could answer, or could not, by how near the nearer
    image is and how much farther the other one; see `measure_nearness`. Nobody can tell where both
    are far, or alike. With too few of a kind all candidates are alike.
    """
    n_answered = int(was_answered.sum())
    if min(n_answered, len(was_answered) - n_answered) < _FEWEST_OF_A_KIND:
        return n_answered / max(len(was_answered), 1) or 1.0
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression())
    chances: np.ndarray = model.fit(measures, was_answered).predict_proba(candidates)[:, 1]
    return chances


def measure_nearness(features: np.ndarray, committee: Committee, rows: np.ndarray) -> np.ndarray:
    """Return `(n_questions, 4)`: distance of the nearer candidate and how much farther the other
    is, by the cosine of the features and by the committee's mean."""
    spaces = [(features, "cosine"), *((each, committee.distance) for each in committee.embeddings)]
    distances = [
        np.sort(triplet_distances(vectors, rows, distance), axis=1) for vectors, distance in spaces
    ]
    measures = [np.stack([near, far - near], axis=1) for near, far in (d.T for d in distances)]
    return np.concatenate([measures[0], np.mean(measures[1:], axis=0)], axis=1)


def draw_candidates(
    usable: np.ndarray, n_candidates: int, rng: np.random.Generator, known: np.ndarray
) -> np.ndarray:
    """Draw questions at random, none twice and none that is known already."""
    a, b, c = rng.integers(0, len(usable), (2 * n_candidates, 3)).T
    drawn = np.stack([a, b, c], axis=1)[(a != b) & (a != c) & (b != c)]
    return keep_new(usable[drawn], known)[:n_candidates]


def keep_new(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the rows whose question comes neither earlier nor among those that are known."""
    rows = rows.astype(np.int32)
    keys = question_keys(np.concatenate([known.astype(np.int32).reshape(-1, 3), rows]))
    is_new = np.zeros(len(keys), dtype=bool)
    is_new[np.unique(keys, return_index=True)[1]] = True
    return rows[is_new[len(keys) - len(rows) :]]


def question_keys(rows: np.ndarray) -> np.ndarray:
    """Return `(n, )` int64 that are equal for rows that ask the same, whichever way round."""
    anchor, first, second = rows.astype(np.int64).T
    # 21 bits each: two million images.
    return (anchor << 42) | (np.minimum(first, second) << 21) | np.maximum(first, second)


def choose_questions(
    committee: Committee,
    candidates: np.ndarray,
    n_questions: int,
    way: str,
    *,
    max_per_image: int = 2,
    answerable: np.ndarray | float = 1.0,
) -> _Choice:
    """Choose the questions that a committee learns most from in the time that they take.

    That is where the heads together are least sure (`margin`), or contradict each other, each
    being sure (`disagreement`: equation 2 of Houlsby and others, arXiv:1112.5745, 2011); times the
    chance that a judge can answer, by the second (Settles, Craven, Friedland. Active learning with
    real annotation costs. 2008).
    """
    margins = [triplet_margins(e, candidates, committee.distance) for e in committee.embeddings]
    expected = expit(np.stack(margins).astype(np.float64) / committee.temperature)
    learned = _disagreement(expected) if way == "disagreement" else _entropy(expected.mean(axis=0))
    seconds = ANSWER_S * answerable + CANT_TELL_S * (1 - answerable)
    scores = learned * answerable / seconds
    order = np.argsort(-scores, kind="stable")
    picked = order[_pick_spread(candidates[order], n_questions, max_per_image)]
    return _Choice(candidates[picked], scores[picked], expected[:, picked].mean(axis=0))


def _disagreement(expected: np.ndarray) -> np.ndarray:
    """Return what asking would tell of which head is right, in nats."""
    return np.maximum(0.0, _entropy(expected.mean(axis=0)) - _entropy(expected).mean(axis=0))


def _pick_spread(rows: np.ndarray, n_rows: int, max_per_image: int) -> np.ndarray:
    """Return indices of the first rows, passing over those whose images were taken too often."""
    times = np.zeros(int(rows.max(initial=-1)) + 1, dtype=np.int64)
    picked: list[int] = []
    for index, images in enumerate(rows):
        if len(picked) == n_rows:
            break
        if (times[images] < max_per_image).all():
            times[images] += 1
            picked.append(index)
    return np.array(picked, dtype=np.int64)


def fit_temperature(margins: np.ndarray, is_right: np.ndarray) -> float:
    """Return the temperature that makes margins of answered questions most likely."""
    from scipy.optimize import minimize_scalar

    scale = float(np.std(margins)) or 1.0
    if len(margins) < 10:
        return scale

    def loss(log_temperature: float) -> float:
        odds = margins / np.exp(log_temperature)
        return float(
            np.mean(is_right * np.logaddexp(0, -odds) + (1 - is_right) * np.logaddexp(0, odds))
        )

    middle = np.log(scale)
    found = minimize_scalar(loss, bounds=(middle - 3, middle + 3), method="bounded")
    return float(np.exp(found.x))


def _entropy(chance: np.ndarray) -> np.ndarray:
    return entr(chance) + entr(1 - chance)
