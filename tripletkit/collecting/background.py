"""Training beside the server, in a process of its own, so that no page ever waits for it.

The process computes the features of all images, then waits; told of new answers it trains heads,
chooses questions by them, and sends both back. It has the lowest claim on the processor, and if it
dies the server goes on with questions of chance and says so.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.accuracy_curve import MORE_ANSWERS, LearningCurve, measure_curve
from tripletkit.collecting.choosing import (
    Committee,
    choose_questions,
    draw_candidates,
    fit_temperature,
)
from tripletkit.collecting.database import JudgementDatabase
from tripletkit.data.judgement_files import read_shown_questions
from tripletkit.data.judgements import Judgements, read_judgements
from tripletkit.data.votes import Votes, make_loss_weights
from tripletkit.errors import JudgementsError, TripletkitError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.model.settings import HeadSettings


def split_members(
    embeddings: np.ndarray, settings: HeadSettings, n_features: int
) -> list[np.ndarray]:
    """Return the embeddings of each member of a model, for comparing them with one another.

    The members stand side by side in an embedding, behind the frozen features where these have a
    share, which then every member gets too.

    Args:
        embeddings: `(n_images, n_dims)` of the model.
        settings: of the model.
        n_features: width of the features.
    Returns:
        One array a member; the embeddings alone where they cannot be told apart.
    """
    n_frozen = n_features if settings.frozen_share else 0
    # Members of other widths, or compressed together, cannot be told apart.
    if settings.members < 2 or settings.mlp_members or settings.is_compressed:
        return [embeddings]
    width = (embeddings.shape[1] - n_frozen) // settings.members
    frozen = embeddings[:, :n_frozen]
    of_members = embeddings[:, n_frozen:]
    # Each member as long as all were, so that the frozen share weighs the same.
    return [
        np.hstack([frozen, of_members[:, start : start + width] * settings.members**0.5])
        for start in range(0, settings.members * width, width)
    ]


def train_committee(
    features: np.ndarray,
    rows: np.ndarray,
    votes: Votes,
    *,
    n_members: int = defaults.COMMITTEE_MEMBERS,
    seed: int = defaults.SEED,
    temperature: float | None = None,
) -> Committee:
    """Train heads that differ in seed and in the answers that each sees most of.

    Args:
        features: `(n_images, n_features)` float32.
        rows: `(n_questions, 3)`: anchor, what most judges chose, the other.
        votes: on these rows.
        n_members: how many heads.
        seed: start of the first; the others follow.
        temperature: see `Committee`. Defaults to half of the margin that training asks for.
    Raises:
        CollapseError: if a head's embeddings become alike.
    """
    from tripletkit.model.embedding import embed
    from tripletkit.model.settings import HeadSettings, choose_epochs
    from tripletkit.training.epochs import train_model

    is_open = votes.is_tie
    rows, votes = rows[~is_open], votes.take(~is_open)
    rng = np.random.default_rng(seed)
    embeddings = []
    settings = HeadSettings.of_recipe(
        defaults.COMMITTEE_RECIPE, seed=seed, hidden=defaults.COMMITTEE_HIDDEN
    )
    for member in range(n_members):
        # A bootstrap sample for each, so that heads differ where answers are few.
        drawn = rng.integers(0, len(rows), len(rows)) if n_members > 1 else np.arange(len(rows))
        epochs = choose_epochs(len(drawn), settings.batch_size, settings.epochs)
        of_member = replace(
            settings, seed=seed + member, epochs=min(epochs, defaults.COMMITTEE_MAX_EPOCHS)
        )
        weights = make_loss_weights(votes.take(drawn), "weight")
        trained = train_model(features, rows[drawn], rows[:0], of_member, loss_weights=weights)
        embeddings.append(embed(trained.head, features))
    return Committee(embeddings, settings.distance, temperature or settings.margin / 2)


def calibrate(committee: Committee, rows: np.ndarray, votes: Votes) -> float:
    """Return the temperature that fits answers to questions that the committee has not seen.

    Args:
        committee: trained on other questions.
        rows, votes: `(n_questions, 3)` and their votes.
    """
    margins = np.mean(
        [triplet_margins(each, rows, committee.distance) for each in committee.embeddings], axis=0
    )
    return fit_temperature(margins, votes.share)


logger = logging.getLogger("tripletkit")

_LOOK_EVERY_S = 1.0
_NICENESS = 10
# Decided questions below which there is nothing to learn from.
_FEWEST_ANSWERS = 10
_READY, _TRAINED, _FAILED = "ready", "trained", "failed"


@dataclass(frozen=True)
class TrainerTask:
    """What the training process needs to know; it must be picklable.

    Attributes:
        database: path of the database.
        numbers: image name -> its number, of the images that can be shown.
        make_features: returns `(n_images, n_features)` float32 in the order of `numbers`, NaN
            where an image has none; a function of a module.
        way: how to choose; `random` trains for the learning curve alone.
        seed: start of everything by chance.
    """

    database: Path
    numbers: dict[str, int]
    make_features: Callable[[], np.ndarray]
    way: str
    seed: int = defaults.SEED


class BackgroundTrainer:
    """Starts the process and gives it work when there are enough new answers.

    Args:
        database: open for writing.
        task: see `TrainerTask`.
        first_after, again_after: answers before the first training, and between two.
    """

    def __init__(
        self,
        database: JudgementDatabase,
        task: TrainerTask,
        first_after: int = defaults.FIRST_RANDOM,
        again_after: int = defaults.RETRAIN_EVERY,
    ) -> None:
        self._database = database
        self._task = task
        self._first_after, self._again_after = first_after, again_after
        self.status: dict[str, Any] = {"text": "Features of the images are being computed."}
        self._stop = threading.Event()
        # A fresh interpreter: TensorFlow does not survive a fork, nor do locks of other threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=run_trainer, args=(task, theirs), daemon=True, name="tripletkit-trainer"
        )
        self._thread = threading.Thread(target=self._work, daemon=True, name="trainer")
        self._theirs = theirs

    def start(self) -> None:
        """Start the process, and the thread that talks to it."""
        self._process.start()
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
            self._expect(_READY)
            last = self._database.last_model()
            n_trained = 0 if last is None else last["n_answers"]
            self.status["text"] = ""
            while not self._stop.wait(_LOOK_EVERY_S):
                n_answers = self._database.n_answers()
                due = n_trained + self._again_after if n_trained else self._first_after
                if n_answers < due:
                    continue
                self.status["text"] = f"A model is being trained on {n_answers:,} answers."
                started_s = time.monotonic()
                self._pipe.send(n_answers)
                found = self._expect(_TRAINED)
                n_trained = n_answers
                if found is not None:
                    about = found["about"] | {"seconds": round(time.monotonic() - started_s, 1)}
                    self._database.add_model(n_answers, about, found["questions"])
                self.status["text"] = ""
        except (EOFError, OSError, TripletkitError) as error:
            if not self._stop.is_set():
                reason = str(error) or "its process ended"
                self.status["text"] = (
                    f"No model is trained, questions are drawn at random: {reason}"
                )
                logger.warning("no model is trained, questions are drawn at random: %s", reason)

    def _expect(self, kind: str) -> Any:
        got, value = self._pipe.recv()
        if got != kind:
            raise JudgementsError(value)
        return value


def run_trainer(task: TrainerTask, pipe: Connection) -> None:
    """Compute features and train whenever the pipe says so, until it is closed."""
    _go_behind()
    try:
        features = np.asarray(task.make_features())
        pipe.send((_READY, None))
        while True:
            n_answers = pipe.recv()
            pipe.send((_TRAINED, train_and_choose(task, features, n_answers)))
    except EOFError:
        return
    except Exception as error:
        # Whatever it is, the server shows it and goes on; a traceback here has no reader.
        pipe.send((_FAILED, f"{type(error).__name__}: {error}"))


def train_and_choose(
    task: TrainerTask, features: np.ndarray, n_answers: int
) -> dict[str, Any] | None:
    """Train on what the database holds and choose the next questions.

    Args:
        task: see `TrainerTask`.
        features: in the order of its images.
        n_answers: seeds this round.
    Returns:
        `about` the model, and the `questions`, as `JudgementDatabase.add_model` takes them; None
        if there is nothing to learn from yet.
    """
    place_of = {name: place for place, name in enumerate(task.numbers)}
    numbers = np.array(list(task.numbers.values()))
    judgements = _keep_usable(read_judgements(task.database), place_of, features)
    if len(judgements) < _FEWEST_ANSWERS:
        return None
    rows, seed = judgements.triplets.rows, task.seed + n_answers
    curve = measure_curve(
        judgements, lambda learned: _train_one(features, judgements, learned, seed), seed
    )
    about: dict[str, Any] = {"n_questions": len(judgements), "way": task.way}
    temperature = None
    if curve is not None:
        about |= describe_curve(curve)
        temperature = fit_temperature(curve.margins, np.ones(len(curve.margins)))
        about["hardest"] = _find_hardest(judgements, curve, task)
    if task.way == "random":
        return {"about": about, "questions": []}
    committee = train_committee(
        features, rows, judgements.votes, seed=seed, temperature=temperature
    )
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.isfinite(features[:, 0]))
    asked = np.concatenate([rows, _find_shown(task)])
    candidates = draw_candidates(usable, defaults.CHOICE_CANDIDATES, rng, asked)
    choice = choose_questions(
        committee,
        candidates,
        defaults.CHOSEN_BATCH,
        task.way,
        max_per_image=defaults.MAX_PER_IMAGE,
    )
    n_possible = len(usable) * (len(usable) - 1) * (len(usable) - 2) / 2
    questions = [
        {
            "anchor": int(anchor),
            "first": int(first),
            "second": int(second),
            "how": task.way,
            "score": float(score),
            "expected": float(expected),
            "probability": min(1.0, choice.n_candidates / n_possible),
        }
        for (anchor, first, second), score, expected in zip(
            numbers[choice.rows], choice.scores, choice.expected, strict=True
        )
    ]
    return {"about": about | {"temperature": committee.temperature}, "questions": questions}


def describe_curve(curve: LearningCurve) -> dict[str, Any]:
    """Return a learning curve as plain JSON values."""
    return {
        "curve": [
            {
                "n_questions": point.n_questions,
                "accuracy": point.accuracy,
                "low": point.interval.low,
                "high": point.interval.high,
            }
            for point in curve.points
        ],
        "n_random": len(curve.questions),
        "more": MORE_ANSWERS,
        "after_more": curve.after(),
    }


def _train_one(
    features: np.ndarray, judgements: Judgements, learned: np.ndarray, seed: int
) -> tuple[np.ndarray, str]:
    part = judgements.take(learned)
    committee = train_committee(features, part.triplets.rows, part.votes, n_members=1, seed=seed)
    return committee.embeddings[0], committee.distance


def _keep_usable(
    judgements: Judgements, place_of: dict[str, int], features: np.ndarray
) -> Judgements:
    """Return decided judgements over rows of the features instead of their own names."""
    from dataclasses import replace

    places = np.array([place_of.get(name, -1) for name in judgements.triplets.names])
    rows = places[judgements.triplets.rows]
    is_usable = (rows >= 0).all(axis=1) & np.isfinite(features[rows, 0]).all(axis=1)
    triplets = replace(judgements.triplets, names=list(place_of), rows=rows.astype(np.int32))
    return replace(judgements, triplets=triplets).take(is_usable).decided()


def _find_shown(task: TrainerTask) -> np.ndarray:
    """Return rows of the questions that judges were shown, those that nobody could tell, too."""
    place_of = {number: place for place, number in enumerate(task.numbers.values())}
    shown = read_shown_questions(task.database)
    places = [[place_of.get(number, -1) for number in row] for row in shown]
    rows = np.array(places, dtype=np.int64).reshape(-1, 3)
    return rows[(rows >= 0).all(axis=1)]


def _find_hardest(
    judgements: Judgements, curve: LearningCurve, task: TrainerTask, n: int = 12
) -> list[dict[str, Any]]:
    """Return the random questions that heads get most wrong, as numbers of images."""
    numbers = np.array(list(task.numbers.values()))
    order = np.argsort(curve.margins)[:n]
    return [
        {
            "anchor": int(anchor),
            "chosen": int(chosen),
            "other": int(other),
            "margin": float(curve.margins[place]),
            "votes": [float(v) for v in (votes.for_first[0], votes.for_second[0])],
        }
        for place in order
        if curve.margins[place] < 0
        for row in [curve.questions[place]]
        for anchor, chosen, other in [numbers[judgements.triplets.rows[row]]]
        for votes in [judgements.votes.take(np.array([row]))]
    ]


def _go_behind() -> None:
    """Leave the processor to the server, and say nothing: TensorFlow writes to descriptor 2."""
    os.nice(_NICENESS) if hasattr(os, "nice") else None
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
