"""Which question to ask next: pure functions from embeddings to questions.

A question is a row `anchor, first, second` of image numbers, counted from 0. The order of the
last two is by chance and has nothing to do with what a model expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from tripletkit import defaults
from tripletkit.evaluation.distances import triplet_margins

# How often a question that is known is drawn again before it is given up.
_DRAWS = 50
WAYS = ("random", "margin", "disagreement")


@dataclass(frozen=True)
class Committee:
    """Several heads trained on the same answers.

    Attributes:
        embeddings: one `(n_images, n_dims)` float32 for each head.
        distance: what the embeddings are compared by; see `triplet_margins`.
        temperature: margin at which the odds of an answer are e to 1, in units of the distance.
    """

    embeddings: Sequence[np.ndarray]
    distance: str
    temperature: float

    def margins(self, rows: np.ndarray) -> np.ndarray:
        """Return `(n_members, n_questions)` float64; positive where the first is nearer."""
        return np.stack(
            [triplet_margins(each, rows, self.distance) for each in self.embeddings]
        ).astype(np.float64)

    def expect(self, rows: np.ndarray) -> np.ndarray:
        """Return `(n_members, n_questions)`: chance that a judge chooses the first, 0 to 1."""
        return expit(self.margins(rows) / self.temperature)


@dataclass(frozen=True)
class Choice:
    """Questions chosen by a committee.

    Attributes:
        rows: `(n_questions, 3)` int32, the most wanted first.
        scores: `(n_questions,)` what they were chosen by: the absolute mean margin, or the
            disagreement in nats.
        expected: `(n_questions,)` chance that a judge chooses the first, 0 to 1.
        n_candidates: how many questions they were chosen from.
    """

    rows: np.ndarray
    scores: np.ndarray
    expected: np.ndarray
    n_candidates: int


def deal_question(times_shown: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one question from the images that were shown least often, as from a shuffled deck.

    Images are alike but for how often they were dealt, so over a whole deck each question is as
    likely as any other, and yet every image is shown as often as the others.

    Args:
        times_shown: `(n_images,)` how often each was part of a question; negative for an image
            that is not to be shown.
        rng: what decides.
    Returns:
        `(3,)` int32.
    Raises:
        ValueError: if there are fewer than three images to show.
    Example:
        >>> sorted(deal_question(np.array([1, 0, 0, -1, 0]), np.random.default_rng(0)).tolist())
        [1, 2, 4]
    """
    return _least_shown(times_shown, 3, rng)


def deal_grid(times_shown: np.ndarray, n_shown: int, rng: np.random.Generator) -> np.ndarray:
    """Draw an anchor and `n_shown` images for a grid; see `deal_question`.

    Returns:
        `(1 + n_shown,)` int32, the anchor first.
    """
    return _least_shown(times_shown, 1 + n_shown, rng)


def draw_candidates(
    usable: np.ndarray, n_candidates: int, rng: np.random.Generator, known: np.ndarray
) -> np.ndarray:
    """Draw questions at random, none twice and none that is known.

    Args:
        usable: images that may be shown, at least three.
        n_candidates: how many at most; fewer where there are no more.
        rng: what decides.
        known: `(n, 3)` questions to leave out, whichever way round.
    Returns:
        `(n_questions, 3)` int32.
    """
    n = len(usable)
    drawn = rng.integers(0, n, (2 * n_candidates, 3))
    drawn = usable[drawn[_is_of_three(drawn)]].astype(np.int32)
    keys = question_keys(np.concatenate([known.astype(np.int32).reshape(-1, 3), drawn]))
    first_of_key = np.unique(keys, return_index=True)[1]
    is_new = np.zeros(len(keys), dtype=bool)
    is_new[first_of_key] = True
    return drawn[is_new[len(keys) - len(drawn) :]][:n_candidates]


def question_keys(rows: np.ndarray) -> np.ndarray:
    """Return `(n, )` int64 that are equal for rows that ask the same, whichever way round.

    Example:
        >>> keys = question_keys(np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2]]))
        >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[2])
        (True, False)
    """
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
) -> Choice:
    """Choose the questions that a committee learns most from.

    Args:
        committee: the heads.
        candidates: `(n_candidates, 3)` to choose from.
        n_questions: how many at most.
        way: `"margin"`: where the two distances differ least, of the heads' mean margin;
            `"disagreement"`: where the heads contradict each other, each being sure.
        max_per_image: how often an image may be part of a question of this batch.
    Returns:
        The choice; fewer than `n_questions` where the images do not suffice.
    Raises:
        ValueError: if the way is not one of the two.
    Reference:
        Houlsby, Huszar, Ghahramani, Lengyel. Bayesian Active Learning for Classification and
        Preference Learning. 2011. arXiv:1112.5745 (equation 2, the disagreement).
    """
    margins = committee.margins(candidates)
    expected = expit(margins / committee.temperature)
    if way == "margin":
        scores = np.abs(margins.mean(axis=0))
        order = np.argsort(scores, kind="stable")
    elif way == "disagreement":
        scores = disagreement(expected)
        order = np.argsort(-scores, kind="stable")
    else:
        raise ValueError(f'expected "margin" or "disagreement", got {way!r}')
    picked = order[pick_spread(candidates[order], n_questions, max_per_image)]
    return Choice(
        candidates[picked],
        scores[picked],
        expected[:, picked].mean(axis=0),
        len(candidates),
    )


def disagreement(expected: np.ndarray) -> np.ndarray:
    """Return what asking would tell of which head is right, in nats.

    Args:
        expected: `(n_members, n_questions)` chances, 0 to 1.
    Returns:
        `(n_questions,)`: entropy of the mean less mean entropy, 0 to log 2.
    Example:
        >>> disagreement(np.array([[0.5, 1.0, 1.0], [0.5, 0.0, 1.0]])).round(3).tolist()
        [0.0, 0.693, 0.0]
    """
    return np.maximum(0.0, _entropy(expected.mean(axis=0)) - _entropy(expected).mean(axis=0))


def pick_spread(rows: np.ndarray, n_rows: int, max_per_image: int) -> np.ndarray:
    """Return indices of the first rows, passing over those whose images were taken too often.

    Example:
        >>> pick_spread(np.array([[0, 1, 2], [0, 3, 4], [5, 6, 7]]), 2, max_per_image=1).tolist()
        [0, 2]
    """
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
    """Return the temperature that makes margins of answered questions most likely.

    Args:
        margins: `(n,)` towards the image that was chosen, of questions that the heads were not
            trained on.
        is_right: `(n,)` weights, 0 to 1, of each answer; 1 where all judges chose that image.
    Returns:
        In units of the margins; the spread of the margins where they tell nothing.
    """
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


def suggest_at_random(
    n_images: int, n_questions: int, known: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw questions that show every image as often as the others, and none that is known.

    Args:
        n_images: at least three.
        n_questions: how many at most; fewer where nearly all are known.
        known: `(n, 3)` questions to leave out, whichever way round.
        rng: what decides.
    Returns:
        `(n_questions, 3)` int32.
    """
    times_shown = np.zeros(n_images, dtype=np.int64)
    left_out = set(question_keys(known).tolist())
    rows = []
    for _ in range(n_questions):
        for _ in range(_DRAWS):
            row = deal_question(times_shown, rng)
            key = int(question_keys(row[None])[0])
            if key not in left_out:
                left_out.add(key)
                times_shown[row] += 1
                rows.append(row)
                break
    return np.array(rows, dtype=np.int32).reshape(-1, 3)


def suggest_by_model(
    members: Sequence[np.ndarray],
    distance: str,
    n_questions: int,
    way: str,
    known: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Choose questions by a model's heads, no image in more than `defaults.MAX_PER_IMAGE`.

    Args:
        members: `(n_images, n_dims)` embeddings of each head.
        distance: by which they are compared.
        n_questions: how many at most.
        way: `margin` or `disagreement`.
        known: `(n, 3)` questions to leave out, whichever way round.
        rng: what decides which candidates there are.
    Returns:
        `(n_questions, 3)` int32, the most wanted first.
    """
    images = np.arange(len(members[0]))
    candidates = draw_candidates(images, defaults.CHOICE_CANDIDATES, rng, known)
    committee = Committee(members, distance, defaults.MARGIN / 2)
    return choose_questions(
        committee, candidates, n_questions, way, max_per_image=defaults.MAX_PER_IMAGE
    ).rows


def _least_shown(times_shown: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    n_usable = int((times_shown >= 0).sum())
    if n_usable < n:
        raise ValueError(f"expected at least {n} images that can be shown, got {n_usable}")
    times = np.where(times_shown < 0, np.inf, times_shown)
    chosen = np.argsort(times + rng.random(len(times)))[:n]
    return rng.permutation(chosen).astype(np.int32)


def _is_of_three(rows: np.ndarray) -> np.ndarray:
    a, b, c = rows.T
    return (a != b) & (a != c) & (b != c)


def _entropy(chance: np.ndarray) -> np.ndarray:
    chance = np.clip(chance, 1e-12, 1 - 1e-12)
    return -(chance * np.log(chance) + (1 - chance) * np.log1p(-chance))
