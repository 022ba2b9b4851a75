"""Which question to ask next, and the training beside the server that finds it.

A process computes the features of all images and draws questions by chance; told of new answers it
trains a committee, chooses questions by it, and only then measures how good it is. It has the
lowest claim on the processor, and if it dies the server goes on with questions of chance and says
so. If the server dies, however that comes, the process ends too.

Accuracy is measured on the random share alone: questions that a model chose are those it finds
hard, so a score on them is too low, and a score on those that it was sure of is too high. Those
drawn by chance are weighted by the inverse of their probability.

A question is a row `anchor, first, second` of images, counted from 0. The order of the last two is
by chance and has nothing to do with what a model expects.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import entr, expit

from tripletkit import defaults
from tripletkit.collecting.asking import Asker, Drawn
from tripletkit.data.judgement_files import (
    CANT_TELL,
    GRID,
    read_answers_given,
    read_shown_questions,
)
from tripletkit.data.judgements import Judgements, read_judgements
from tripletkit.data.triplets import Votes, make_loss_weights
from tripletkit.errors import JudgementsError, TripletkitError
from tripletkit.evaluation.distances import triplet_distances, triplet_margins
from tripletkit.evaluation.intervals import effective_count, wilson_interval
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.progress import Progress, no_progress
from tripletkit.training.part_training import MapSettings, PartFeatures, train_map

logger = logging.getLogger("tripletkit")

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
# Candidates for each anchor that questions are chosen for.
_EACH_ANCHOR = 40

_COMMITTEE_MEMBERS = 5
# Decided questions below which there is nothing to learn from.
_FEWEST_ANSWERS = 10
# Held nearer to the features than maps of many triplets are: judges err. And what maps compare by.
_SETTINGS = MapSettings(("hinge",), hold=0.05)
_DISTANCE = "cosine"
_N_FOLDS = 3
_SHARES = (0.25, 0.5, 1.0)
_MIN_RANDOM = 30
_N_HARDEST = 12

# Answers after which the questions are chosen anew.
_RETRAIN_EVERY = 100
_LOOK_EVERY_S = 1.0
_NICENESS = 10
# Questions by chance that are held ready, and drawn anew where half of them are gone.
_N_READY = 2000
_FAILED, _PROGRESS = "failed", "progress"
_FEATURES = "Features of the images are being computed."
# Of the process, where nothing else is said. One thread: several that wait for each other behind a
# busy server are many times slower than one.
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}

# Of each point `n_questions` that were learned from, on average over the folds; the weighted
# `accuracy` on questions of the random share that were not; `low` and `high` of its 95% interval.
_Curve = list[dict[str, float]]


@dataclass(frozen=True)
class _Committee:
    """Several heads trained on the same answers, each with `(n_images, n_dims)` embeddings; at a
    `distance` margin of `temperature` the odds of an answer are e to 1."""

    embeddings: Sequence[np.ndarray]
    distance: str
    temperature: float


def suggest_questions(
    members: Sequence[np.ndarray],
    distance: str,
    n_questions: int,
    way: str,
    known: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the questions to ask next of embedded images, none of them among those `known`."""
    n_images = len(members[0])
    if way == "random":
        return _draw_evenly(n_images, n_questions, known, rng)
    candidates = _draw_candidates(np.arange(n_images), defaults.CHOICE_CANDIDATES, rng, known)
    committee = _Committee(members, distance, defaults.MARGIN / 2)
    return _choose_questions(committee, candidates, n_questions, way)[0]


def _draw_evenly(
    n_images: int, n_questions: int, known: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw questions that show every image about as often as the others."""
    n_each = n_images // 3
    # Of each round, in which nearly every image comes once, some questions may be known.
    n_rounds = 2 * n_questions // n_each + 20
    rounds = [rng.permutation(n_images)[: 3 * n_each].reshape(-1, 3) for _ in range(n_rounds)]
    return _keep_new(np.concatenate(rounds), known)[:n_questions]


def _draw_questions(
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


def _draw_grids(
    features: np.ndarray, anchors: np.ndarray, n_shown: int, rng: np.random.Generator
) -> Iterator[tuple[list[int], list[int], int]]:
    """Draw a grid for each anchor, with those of its images among so many nearest, and that."""
    n_near = -(-5 * n_shown // 8)
    n_nearest = min(3 * n_shown, len(features) - 1 - (n_shown - n_near))
    for anchor, others in _rank_others(features, anchors):
        near = others[rng.choice(n_nearest, n_near, replace=False)]
        far = others[rng.choice(np.arange(n_nearest, len(others)), n_shown - n_near, False)]
        shown = rng.permutation(np.concatenate([near, far])).tolist()
        yield [anchor, *shown], near.tolist(), n_nearest


def _rank_others(features: np.ndarray, anchors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each anchor with the rows of all other images, the nearest first."""
    directions = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    for start in range(0, len(anchors), _CHUNK):
        chunk = anchors[start : start + _CHUNK]
        for anchor, similarity in zip(chunk, directions[chunk] @ directions.T, strict=True):
            order = np.argsort(-similarity, kind="stable")
            yield int(anchor), order[order != anchor]


def _draw_candidates(
    usable: np.ndarray, n_candidates: int, rng: np.random.Generator, known: np.ndarray
) -> np.ndarray:
    """Draw questions at random, none twice and none that is known already."""
    a, b, c = rng.integers(0, len(usable), (2 * n_candidates, 3)).T
    drawn = np.stack([a, b, c], axis=1)[(a != b) & (a != c) & (b != c)]
    return _keep_new(usable[drawn], known)[:n_candidates]


def _keep_new(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the rows whose question comes neither earlier nor among those that are known."""
    rows = rows.astype(np.int32)
    keys = _question_keys(np.concatenate([known.astype(np.int32).reshape(-1, 3), rows]))
    is_new = np.zeros(len(keys), dtype=bool)
    is_new[np.unique(keys, return_index=True)[1]] = True
    return rows[is_new[len(keys) - len(rows) :]]


def _question_keys(rows: np.ndarray) -> np.ndarray:
    """Return `(n, )` int64 that are equal for rows that ask the same, whichever way round."""
    anchor, first, second = rows.astype(np.int64).T
    # 21 bits each: two million images.
    return (anchor << 42) | (np.minimum(first, second) << 21) | np.maximum(first, second)


def _expect_answers(
    measures: np.ndarray, was_answered: np.ndarray, candidates: np.ndarray
) -> np.ndarray | float:
    """Return the chance that a judge can answer each candidate, learned by `_measure_nearness`:
    nobody can where both images are far, or alike. With too few of a kind all candidates are alike.
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


def _measure_nearness(features: np.ndarray, committee: _Committee, rows: np.ndarray) -> np.ndarray:
    """Return how near the nearer candidate is and how much farther the other, by two spaces."""
    spaces = [(features, "cosine"), *((each, committee.distance) for each in committee.embeddings)]
    distances = [
        np.sort(triplet_distances(vectors, rows, distance), axis=1) for vectors, distance in spaces
    ]
    measures = [np.stack([near, far - near], axis=1) for near, far in (d.T for d in distances)]
    return np.concatenate([measures[0], np.mean(measures[1:], axis=0)], axis=1)


def _choose_questions(
    committee: _Committee,
    candidates: np.ndarray,
    n_questions: int,
    way: str,
    answerable: np.ndarray | float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose the questions that a committee learns most from in the time that they take: the most
    wanted first, their worth in nats a second, and the chance of `first`.

    That is where the heads together are least sure (`margin`), or contradict each other, each
    being sure (`disagreement`: equation 2 of Houlsby and others, arXiv:1112.5745, 2011); times the
    chance that a judge can answer, by the second (Settles, Craven, Friedland. Active learning with
    real annotation costs. 2008).
    """
    margins = [triplet_margins(e, candidates, committee.distance) for e in committee.embeddings]
    expected = expit(np.stack(margins).astype(np.float64) / committee.temperature)
    learned = _entropy(expected.mean(axis=0))
    if way == "disagreement":
        learned = np.maximum(0.0, learned - _entropy(expected).mean(axis=0))
    seconds = ANSWER_S * answerable + CANT_TELL_S * (1 - answerable)
    scores = learned * answerable / seconds
    order = np.argsort(-scores, kind="stable")
    picked = order[_pick_spread(candidates[order], n_questions)]
    return candidates[picked], scores[picked], expected[:, picked].mean(axis=0)


def _entropy(chance: np.ndarray) -> np.ndarray:
    return entr(chance) + entr(1 - chance)


def _pick_spread(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Return indices of the first rows, passing over those whose images were taken too often."""
    times = np.zeros(int(rows.max(initial=-1)) + 1, dtype=np.int64)
    picked: list[int] = []
    for index, images in enumerate(rows):
        if len(picked) == n_rows:
            break
        if (times[images] < defaults.MAX_PER_IMAGE).all():
            times[images] += 1
            picked.append(index)
    return np.array(picked, dtype=np.int64)


def _fit_temperature(margins: np.ndarray, is_right: np.ndarray) -> float:
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


def _train_committee(
    features: np.ndarray,
    rows: np.ndarray,
    votes: Votes,
    seed: int,
    n_members: int = _COMMITTEE_MEMBERS,
) -> _Committee:
    """Train linear maps that differ in the answers that each sees most of."""
    rows, votes = rows[~votes.is_tie], votes.take(~votes.is_tie)
    rng = np.random.default_rng(seed)
    is_usable = np.isfinite(features).all(axis=1)
    features = np.where(is_usable[:, None], features, 0)
    seen = PartFeatures.of(features, np.flatnonzero(is_usable), is_standardised=False)
    every = np.arange(len(rows))
    embeddings, margins = [], np.full((n_members, len(rows)), np.nan)
    for member in range(n_members):
        # A bootstrap sample for each, so that they differ where answers are few.
        drawn = rng.integers(0, len(rows), len(rows)) if n_members > 1 else every
        weights = make_loss_weights(votes.take(drawn), "weight")
        ((directions, step),) = train_map(seen, rows[drawn], _SETTINGS, weights)
        embedding = scale_to_unit_length(seen.scaled + (seen.scaled @ directions) @ step)
        embedding[~is_usable] = np.nan
        embeddings.append(embedding)
        known = np.setdiff1d(every, drawn) if n_members > 1 else every
        margins[member, known] = triplet_margins(embedding, rows[known], _DISTANCE)
    is_known = ~np.isnan(margins).all(axis=0)
    of_known = np.nanmean(margins[:, is_known], axis=0)
    temperature = _fit_temperature(of_known, votes.take(is_known).share)
    return _Committee(embeddings, _DISTANCE, temperature)


@dataclass(frozen=True)
class _Task:
    """What the training process needs to know; it must be picklable.

    `make_features` returns float32 in the order of `numbers` (image name -> its number), NaN where
    an image has none. The way `random` measures alone; `grid_of` is 0 where questions are shown.
    """

    database: Path
    numbers: Mapping[str, int]
    make_features: Callable[[Progress], np.ndarray]
    way: str
    grid_of: int
    n_more: int

    @property
    def image_numbers(self) -> np.ndarray:
        """Of each row of the features."""
        return np.array(list(self.numbers.values()))


def _draw_by_chance(
    task: _Task, features: np.ndarray, n: int, rng: np.random.Generator
) -> list[Drawn]:
    """Draw questions, or grids, by chance; see `_draw_questions` and `_draw_grids`."""
    usable = np.flatnonzero(np.isfinite(features[:, 0]))
    numbers = task.image_numbers[usable]
    if len(usable) <= max(2, task.grid_of):
        return []
    rounds = [rng.permutation(len(usable)) for _ in range(-(-n // len(usable)))]
    anchors = np.concatenate(rounds)[:n]
    if task.grid_of:
        grids = []
        for images, near, n_nearest in _draw_grids(features[usable], anchors, task.grid_of, rng):
            layers = {"near": numbers[near].tolist(), "n_nearest": n_nearest}
            layers["n_others"] = len(usable) - 1 - n_nearest
            grids.append(Drawn(numbers[images].tolist(), layers=layers))
        return grids
    rows, probability = _draw_questions(features[usable], anchors, 1, rng)
    order = rng.permutation(n)
    return [Drawn(numbers[rows[k]].tolist(), float(probability[k])) for k in order]


def _choose_next(task: _Task, features: np.ndarray, n_answers: int) -> dict[str, Any] | None:
    """Train on what the database holds and choose the next questions."""
    judgements, rows, votes = _read_usable(task, features)
    if len(judgements) < _FEWEST_ANSWERS:
        return None
    about: dict[str, Any] = {"n_questions": len(judgements), "way": task.way}
    if task.way == "random":
        return {"about": about, "questions": []}
    seed = defaults.SEED + n_answers
    committee = _train_committee(features, rows, votes, seed)
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.isfinite(features[:, 0]))
    anchors = rng.permutation(len(usable))[: defaults.CHOICE_CANDIDATES // _EACH_ANCHOR]
    n_each = defaults.CHOICE_CANDIDATES // len(anchors)
    drawn, _ = _draw_questions(features[usable], anchors, n_each, rng)
    # Questions that judges were shown are not asked again, those that nobody could tell, too.
    shown, _ = _find_rows(task.numbers.values(), read_shown_questions(task.database), features)
    candidates = _keep_new(usable[drawn], np.concatenate([rows, shown]))
    answers = [a for a in read_answers_given(task.database) if a.side != GRID]
    told, places = _find_rows(task.numbers, [answer.triplet for answer in answers], features)
    was_answered = np.array([answer.choice != CANT_TELL for answer in answers], dtype=bool)[places]
    measures = [_measure_nearness(features, committee, each) for each in (told, candidates)]
    answerable = _expect_answers(measures[0], was_answered, measures[1])
    n_batch = defaults.CHOSEN_BATCH
    asked, scores, expected = _choose_questions(
        committee, candidates, n_batch, task.way, answerable
    )
    images = task.image_numbers[asked].tolist()
    chosen = zip(images, scores.tolist(), expected.tolist(), strict=True)
    questions = [
        {"images": images, "how": task.way, "score": score, "expected": expected}
        for images, score, expected in chosen
    ]
    return {"about": about, "questions": questions}


def _measure_model(
    task: _Task, features: np.ndarray, n_answers: int, progress: Progress = no_progress
) -> dict[str, Any]:
    """Return the learning curve and the hardest questions, as plain JSON values."""
    judgements, rows, votes = _read_usable(task, features)
    assert judgements.is_random is not None, "a database has it"
    n_random = int(judgements.is_random.sum())
    if n_random < _MIN_RANDOM:
        return {"n_random": n_random}
    seed = defaults.SEED + n_answers
    curve, margins = _measure_curve(judgements, rows, votes, features, seed, progress)
    # Those of the random share that heads get most wrong.
    wrong = np.argsort(margins)[: (margins < 0).sum()][:_N_HARDEST]
    images = task.image_numbers[rows[wrong]].tolist()
    given = np.stack([votes.for_first, votes.for_second], axis=1)[wrong].tolist()
    return {
        "curve": curve,
        "n_random": n_random,
        "more": task.n_more,
        "after_more": _extrapolate(curve, task.n_more),
        "hardest": [
            {"anchor": anchor, "chosen": chosen, "other": other, "votes": both}
            for (anchor, chosen, other), both in zip(images, given, strict=True)
        ],
    }


def _measure_curve(
    judgements: Judgements,
    rows: np.ndarray,
    votes: Votes,
    features: np.ndarray,
    seed: int,
    progress: Progress = no_progress,
) -> tuple[_Curve, np.ndarray]:
    """Measure the accuracy after parts of the answers and after all, by cross-validation.

    The random share is parted; each part is asked of heads trained on all other answers, or on so
    much of them. An image may be in both, as when new questions are about the same images. Returns
    also the margins of heads that learned all others, NaN off the random share.
    """
    rng = np.random.default_rng(seed)
    is_random, weights = judgements.is_random, judgements.weights
    assert is_random is not None and weights is not None, "a database has both"
    random_rows = np.flatnonzero(is_random)
    margins = np.full((len(_SHARES), len(rows)), np.nan)
    n_learned = np.zeros(len(_SHARES))
    for fold, part in enumerate(np.array_split(rng.permutation(random_rows), _N_FOLDS)):
        others = rng.permutation(np.setdiff1d(np.arange(len(rows)), part))
        for place, share in enumerate(_SHARES):
            learned = others[: max(10, round(share * len(others)))]
            committee = _train_committee(features, rows[learned], votes.take(learned), seed, 1)
            embeddings, distance = committee.embeddings[0], committee.distance
            margins[place, part] = triplet_margins(embeddings, rows[part], distance)
            n_learned[place] += len(learned) / _N_FOLDS
            progress(fold * len(_SHARES) + place + 1, _N_FOLDS * len(_SHARES))
    weights = weights[random_rows]
    n_alike = effective_count(weights)
    curve: _Curve = []
    for n, right in zip(n_learned, (margins[:, random_rows] > 0) @ weights, strict=True):
        accuracy = float(right / weights.sum())
        interval = wilson_interval(accuracy * n_alike, n_alike)
        point = {"n_questions": round(n), "accuracy": accuracy}
        curve.append(point | {"low": interval.low, "high": interval.high})
    return curve, margins[-1]


def _extrapolate(curve: _Curve, n_more: int) -> float | None:
    """Return the accuracy after so many more answers, by a fitted power of their number, never
    above 1 (Cortes and others. Learning curves. NIPS 1993); None if nothing tells."""
    errors = np.array([1 - point["accuracy"] for point in curve])
    sizes = np.array([point["n_questions"] for point in curve], dtype=np.float64)
    if len(sizes) < 2 or (errors <= 0).any() or (np.diff(sizes) <= 0).any():
        return None
    power = float(np.clip(np.polyfit(np.log(sizes), np.log(errors), 1)[0], -1.0, 0.0))
    return float(1 - errors[-1] * ((sizes[-1] + n_more) / sizes[-1]) ** power)


def _find_rows(
    known: Iterable[Any], triplets: Sequence[Sequence[Any]], features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return triplets of names, or numbers, as rows of the features, and which have them."""
    place_of = {each: place for place, each in enumerate(known)}
    places = [[place_of.get(each, -1) for each in triplet] for triplet in triplets]
    rows = np.array(places, dtype=np.int64).reshape(-1, 3)
    is_found = (rows >= 0).all(axis=1) & np.isfinite(features[rows, 0]).all(axis=1)
    return rows[is_found], np.flatnonzero(is_found)


def _read_usable(task: _Task, features: np.ndarray) -> tuple[Judgements, np.ndarray, Votes]:
    """Return decided judgements of images that have features, their rows of these, and votes."""
    judgements = read_judgements(task.database).decided()
    names = np.array(judgements.triplets.names, dtype=object)
    rows, found = _find_rows(task.numbers, names[judgements.triplets.rows].tolist(), features)
    judgements = judgements.take(found)
    assert judgements.votes is not None, "a database has votes"
    return judgements, rows, judgements.votes


class BackgroundTrainer:
    """Starts the process, gives it work, and ends the study where a model `is_enough`."""

    def __init__(
        self,
        asker: Asker,
        numbers: Mapping[str, int],
        make_features: Callable[[Progress], np.ndarray],
        way: str,
        *,
        n_more: int = 200,
        is_enough: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        self._asker, self._database = asker, asker.database
        self._is_enough = is_enough
        self.status = {"text": _FEATURES}
        self._stop = threading.Event()
        grid_of = asker.settings.grid_of if asker.settings.screen == GRID else 0
        path = self._database.path.absolute()
        task = _Task(path, numbers, make_features, way, grid_of, n_more)
        # A fresh interpreter: TensorFlow does not survive a fork, nor do locks of other threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(
            target=_run_trainer, args=(task, self._theirs), daemon=True, name="tripletkit-trainer"
        )
        self._thread = threading.Thread(target=self._work, daemon=True, name="trainer")

    def start(self) -> None:
        """Start the process, and the thread that talks to it."""
        # It takes these along, and libraries read them as they are loaded; what is done later in
        # this process has its own threads again.
        added = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
        os.environ.update(added, KERAS_BACKEND="tensorflow")
        try:
            self._process.start()
        finally:
            for name in added:
                del os.environ[name]
        self._theirs.close()
        self._thread.start()

    def stop(self) -> None:
        """End both."""
        self._stop.set()
        if self._process.is_alive():
            self._process.terminate()
        self._process.join(5)
        self._thread.join(5)

    def _work(self) -> None:
        try:
            self._expect("ready", _FEATURES)
            last = self._database.last_model()
            n_trained = 0 if last is None else last["n_answers"]
            while True:
                if len(self._asker.drawn) < _N_READY / 2:
                    self._asker.drawn.extend(self._do("draw", _N_READY))
                if self._stop.wait(_LOOK_EVERY_S):
                    return
                n_answers = self._database.n_answers()
                if n_answers >= (
                    n_trained + _RETRAIN_EVERY if n_trained else defaults.FIRST_RANDOM
                ):
                    self._train(n_answers)
                    n_trained = n_answers
        except (EOFError, OSError, TripletkitError) as error:
            if not self._stop.is_set():
                text = "No model is trained, questions are drawn at random: "
                self.status["text"] = text + (str(error) or "its process ended")
                logger.warning("%s", self.status["text"])

    def _train(self, n_answers: int) -> None:
        """Choose first, so that judges wait for no measure of what they are asked by."""
        started_s = time.monotonic()
        doing = f"A model is being trained on {n_answers:,} answers."
        if (found := self._do("choose", n_answers, doing)) is None:
            return
        about = found["about"] | {"seconds": round(time.monotonic() - started_s, 1)}
        model = self._database.add_model(n_answers, about, found["questions"])
        doing = "Questions are chosen by a model; its accuracy is being measured."
        about |= self._do("measure", n_answers, doing)
        self._database.describe_model(model, about)
        if self._is_enough is not None and self._is_enough(about):
            self._database.end()
            logger.info("The study has ended: more answers would bring too little.")

    def _do(self, work: str, number: int, doing: str = "") -> Any:
        self._pipe.send((work, number))
        return self._expect(work, doing)

    def _expect(self, kind: str, doing: str) -> Any:
        """Return what comes, and say meanwhile how far it is."""
        self.status["text"] = doing
        started_s = time.monotonic()
        while (received := self._pipe.recv())[0] == _PROGRESS:
            done, total = received[1]
            left_s = (time.monotonic() - started_s) * (total - done) / max(done, 1)
            left = f", about {left_s / 60:.0f} minutes left" if left_s >= 90 else ""
            self.status["text"] = f"{doing} {done / total:.0%} done{left}."
        got, value = received
        self.status["text"] = ""
        if got != kind:
            raise JudgementsError(value)
        return value


def _run_trainer(task: _Task, pipe: Connection) -> None:
    """Compute features and do what the pipe says, until it is closed or the server has died."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _go_behind()
    rng = np.random.default_rng()

    def tell(done: int, total: int) -> None:
        pipe.send((_PROGRESS, (done, total)))

    try:
        features = np.asarray(task.make_features(tell))
        pipe.send(("ready", None))
        while True:
            work, number = pipe.recv()
            if work == "draw":
                pipe.send((work, _draw_by_chance(task, features, number, rng)))
            elif work == "choose":
                pipe.send((work, _choose_next(task, features, number)))
            else:
                pipe.send((work, _measure_model(task, features, number, tell)))
    except EOFError:
        return
    except Exception as error:
        # Whatever it is, the server shows it and goes on; a traceback here has no reader.
        pipe.send((_FAILED, f"{type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    """End this process, whatever it is doing, as soon as the server has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _go_behind() -> None:
    """Leave the processor to the server, and say nothing: TensorFlow writes to descriptor 2."""
    os.nice(_NICENESS) if hasattr(os, "nice") else None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
