"""Training beside the server, in a process of its own, so that no page ever waits for it.

The process computes the features of all images and draws questions by chance; told of new answers
it trains a committee, chooses questions by it, and only then measures how good it is. It has the
lowest claim on the processor, and if it dies the server goes on with questions of chance and says
so. If the server dies, however that comes, the process ends too.

Accuracy is measured on the random share alone: questions that a model chose are those it finds
hard, so a score on them is too low, and a score on those that it was sure of is too high. Those
drawn by chance are weighted by the inverse of their probability.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.asking import Asker
from tripletkit.collecting.choosing import (
    Committee,
    Drawn,
    choose_questions,
    draw_grids,
    draw_questions,
    expect_answers,
    fit_temperature,
    keep_new,
    measure_nearness,
)
from tripletkit.collecting.database import now
from tripletkit.data.judgement_files import (
    CANT_TELL,
    GRID,
    read_answers_given,
    read_shown_questions,
)
from tripletkit.data.judgements import Judgements, read_judgements
from tripletkit.data.triplets import Votes, make_loss_weights
from tripletkit.errors import JudgementsError, TripletkitError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import effective_count, wilson_interval
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.progress import Progress, no_progress
from tripletkit.training.part_training import MapSettings, PartFeatures, train_map

logger = logging.getLogger("tripletkit")

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

# Trains on rows of the judgements and returns embeddings, and how to compare them.
_Train = Callable[[np.ndarray], tuple[np.ndarray, str]]
# A learning curve, a point a dictionary: `n_questions` that were learned from, on average over the
# folds; the weighted `accuracy` on questions of the random share that were not; and `low` and
# `high`, Wilson's 95% interval for as many rows of equal weight.
_Curve = list[dict[str, float]]

_COMMITTEE_MEMBERS = 5
_N_FOLDS = 3
_SHARES = (0.25, 0.5, 1.0)
_MIN_RANDOM = 30
# Decided questions below which there is nothing to learn from.
_FEWEST_ANSWERS = 10
# Held nearer to the features than maps of many triplets are: judges err. And what maps compare by.
_SETTINGS = MapSettings(("hinge",), hold=0.05)
_DISTANCE = "cosine"
# Candidates for each anchor that questions are chosen for.
_EACH_ANCHOR = 40
_N_HARDEST = 12


@dataclass(frozen=True)
class TrainerTask:
    """What the training process needs to know; it must be picklable.

    `make_features` returns float32 in the order of `numbers` (image name -> its number), NaN where
    an image has none. The way `random` trains for the learning curve alone; `grid_of` is 0 where
    questions are shown; the curve is followed ahead for `n_more` answers.
    """

    database: Path
    numbers: dict[str, int]
    make_features: Callable[[Progress], np.ndarray]
    way: str
    seed: int = defaults.SEED
    grid_of: int = 0
    n_more: int = 200


class BackgroundTrainer:
    """Starts the process and gives it work when there are enough new answers.

    `first_after` and `again_after` are answers before the first training, and between two;
    `is_enough` tells whether the study is to end, by what is known of a model.
    """

    def __init__(
        self,
        asker: Asker,
        task: TrainerTask,
        first_after: int = defaults.FIRST_RANDOM,
        again_after: int = _RETRAIN_EVERY,
        is_enough: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        self._asker, self._database = asker, asker.database
        self._first_after, self._again_after = first_after, again_after
        self._is_enough = is_enough
        self.status = {"text": _FEATURES}
        self._stop = threading.Event()
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
                if n_answers >= (n_trained + self._again_after if n_trained else self._first_after):
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
            self._database.keep_fact("ended", now())
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


def _run_trainer(task: TrainerTask, pipe: Connection) -> None:
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


def _train_committee(
    features: np.ndarray,
    rows: np.ndarray,
    votes: Votes,
    *,
    n_members: int = _COMMITTEE_MEMBERS,
    seed: int = defaults.SEED,
) -> Committee:
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
    temperature = fit_temperature(of_known, votes.take(is_known).share)
    return Committee(embeddings, _DISTANCE, temperature)


def _extrapolate(curve: _Curve, n_more: int) -> float | None:
    """Return the accuracy to expect after so many more answers; None if nothing tells.

    The error is taken to fall by a power of the number of answers, which is fitted to the points,
    and never above 1 (Cortes and others. Learning curves. NIPS 1993).
    """
    errors = np.array([1 - point["accuracy"] for point in curve])
    sizes = np.array([point["n_questions"] for point in curve], dtype=np.float64)
    if len(sizes) < 2 or (errors <= 0).any() or (np.diff(sizes) <= 0).any():
        return None
    power = float(np.clip(np.polyfit(np.log(sizes), np.log(errors), 1)[0], -1.0, 0.0))
    return float(1 - errors[-1] * ((sizes[-1] + n_more) / sizes[-1]) ** power)


def _measure_curve(
    judgements: Judgements, train: _Train, seed: int, progress: Progress = no_progress
) -> tuple[_Curve, np.ndarray] | None:
    """Measure the accuracy after parts of the answers and after all, by cross-validation.

    The random share is parted; each part is asked of heads trained on all other answers, or on
    so much of them. An image may be in both, as it is when new questions are about the same
    images. Returns also `(n,)` margins of heads that learned all others, positive where they are
    right, NaN off the random share; None where that is too small.
    """
    rng = np.random.default_rng(seed)
    is_random, weights = judgements.is_random, judgements.weights
    assert is_random is not None and weights is not None, "a database has both"
    random_rows = np.flatnonzero(is_random)
    if len(random_rows) < _MIN_RANDOM:
        return None
    margins = np.full((len(_SHARES), len(judgements)), np.nan)
    n_learned = np.zeros(len(_SHARES))
    for fold, part in enumerate(np.array_split(rng.permutation(random_rows), _N_FOLDS)):
        others = rng.permutation(np.setdiff1d(np.arange(len(judgements)), part))
        for place, share in enumerate(_SHARES):
            learned = others[: max(10, round(share * len(others)))]
            embeddings, distance = train(learned)
            rows = judgements.triplets.rows[part]
            margins[place, part] = triplet_margins(embeddings, rows, distance)
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


def _draw_by_chance(
    task: TrainerTask, features: np.ndarray, n: int, rng: np.random.Generator
) -> list[Drawn]:
    """Draw questions, or grids, by chance; see `draw_questions` and `draw_grids`."""
    usable = np.flatnonzero(np.isfinite(features[:, 0]))
    numbers = np.array(list(task.numbers.values()))[usable]
    if len(usable) <= max(2, task.grid_of):
        return []
    rounds = [rng.permutation(len(usable)) for _ in range(-(-n // len(usable)))]
    anchors = np.concatenate(rounds)[:n]
    if task.grid_of:
        return [
            Drawn(numbers[images].tolist(), near=numbers[near].tolist(), n_images=len(usable))
            for images, near in draw_grids(features[usable], anchors, task.grid_of, rng)
        ]
    rows, probability = draw_questions(features[usable], anchors, 1, rng)
    order = rng.permutation(n)
    return [Drawn(numbers[rows[k]].tolist(), float(probability[k])) for k in order]


def _choose_next(task: TrainerTask, features: np.ndarray, n_answers: int) -> dict[str, Any] | None:
    """Train on what the database holds and choose the next questions."""
    judgements = _read_usable(task, features)
    if len(judgements) < _FEWEST_ANSWERS:
        return None
    about: dict[str, Any] = {"n_questions": len(judgements), "way": task.way}
    if task.way == "random":
        return {"about": about, "questions": []}
    seed = task.seed + n_answers
    committee = _train_committee(features, *_rows_and_votes(judgements), seed=seed)
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.isfinite(features[:, 0]))
    anchors = rng.permutation(len(usable))[: defaults.CHOICE_CANDIDATES // _EACH_ANCHOR]
    n_each = defaults.CHOICE_CANDIDATES // len(anchors)
    drawn, _ = draw_questions(features[usable], anchors, n_each, rng)
    # Questions that judges were shown are not asked again, those that nobody could tell, too.
    shown, _ = _find_rows(task.numbers.values(), read_shown_questions(task.database), features)
    candidates = keep_new(usable[drawn], np.concatenate([judgements.triplets.rows, shown]))
    answers = [a for a in read_answers_given(task.database) if a.side != GRID]
    rows, places = _find_rows(task.numbers, [answer.triplet for answer in answers], features)
    was_answered = np.array([answer.choice != CANT_TELL for answer in answers], dtype=bool)[places]
    measures = [measure_nearness(features, committee, each) for each in (rows, candidates)]
    choice = choose_questions(
        committee,
        candidates,
        defaults.CHOSEN_BATCH,
        task.way,
        max_per_image=defaults.MAX_PER_IMAGE,
        answerable=expect_answers(measures[0], was_answered, measures[1]),
    )
    numbers = np.array(list(task.numbers.values()))[choice.rows]
    chosen = zip(numbers.tolist(), choice.scores.tolist(), choice.expected.tolist(), strict=True)
    questions = [
        {"images": images, "how": task.way, "score": score, "expected": expected}
        for images, score, expected in chosen
    ]
    return {"about": about, "questions": questions}


def _measure_model(
    task: TrainerTask, features: np.ndarray, n_answers: int, progress: Progress = no_progress
) -> dict[str, Any]:
    """Return the learning curve and the hardest questions, as plain JSON values."""
    judgements, seed = _read_usable(task, features), task.seed + n_answers

    def train(learned: np.ndarray) -> tuple[np.ndarray, str]:
        rows, votes = _rows_and_votes(judgements.take(learned))
        committee = _train_committee(features, rows, votes, n_members=1, seed=seed)
        return committee.embeddings[0], committee.distance

    assert judgements.is_random is not None, "a database has it"
    n_random = int(judgements.is_random.sum())
    measured = _measure_curve(judgements, train, seed, progress)
    if measured is None:
        return {"n_random": n_random}
    curve, margins = measured
    return {
        "curve": curve,
        "n_random": n_random,
        "more": task.n_more,
        "after_more": _extrapolate(curve, task.n_more),
        "hardest": _find_hardest(task, judgements, margins),
    }


def _rows_and_votes(judgements: Judgements) -> tuple[np.ndarray, Votes]:
    assert judgements.votes is not None, "a database has votes"
    return judgements.triplets.rows, judgements.votes


def _find_rows(
    known: Iterable[Any], triplets: Sequence[Sequence[Any]], features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return triplets of names, or numbers, as rows of the features, and which have them."""
    place_of = {each: place for place, each in enumerate(known)}
    places = [[place_of.get(each, -1) for each in triplet] for triplet in triplets]
    rows = np.array(places, dtype=np.int64).reshape(-1, 3)
    is_found = (rows >= 0).all(axis=1) & np.isfinite(features[rows, 0]).all(axis=1)
    return rows[is_found], np.flatnonzero(is_found)


def _read_usable(task: TrainerTask, features: np.ndarray) -> Judgements:
    """Return decided judgements over rows of the features instead of their own names."""
    judgements = read_judgements(task.database).decided()
    names = np.array(judgements.triplets.names, dtype=object)
    rows, found = _find_rows(task.numbers, names[judgements.triplets.rows].tolist(), features)
    judgements = judgements.take(found)
    triplets = replace(judgements.triplets, names=list(task.numbers), rows=rows.astype(np.int32))
    return replace(judgements, triplets=triplets)


def _find_hardest(
    task: TrainerTask, judgements: Judgements, margins: np.ndarray
) -> list[dict[str, Any]]:
    """Return the random questions that heads get most wrong, as numbers of images."""
    numbers = np.array(list(task.numbers.values()))
    rows, votes = _rows_and_votes(judgements)
    hardest = np.argsort(margins)[:_N_HARDEST]
    return [
        {
            **dict(zip(("anchor", "chosen", "other"), numbers[rows[place]].tolist(), strict=True)),
            "margin": float(margins[place]),
            "votes": [float(votes.for_first[place]), float(votes.for_second[place])],
        }
        for place in hardest[margins[hardest] < 0].tolist()
    ]
