"""Training beside the server, in a process of its own, so that no page ever waits for it.

The process computes the features of all images and draws questions by chance; told of new answers
it trains heads, chooses questions by them, and only then measures how good they are. It has the
lowest claim on the processor, and if it dies the server goes on with questions of chance and says
so. If the server dies, however that comes, the process ends too.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.asking import Asker
from tripletkit.collecting.committee import (
    TrainerTask,
    choose_next,
    draw_by_chance,
    measure_model,
)
from tripletkit.collecting.database import now
from tripletkit.errors import JudgementsError, TripletkitError

logger = logging.getLogger("tripletkit")

# Answers after which the questions are chosen anew.
_RETRAIN_EVERY = 100
_LOOK_EVERY_S = 1.0
_NICENESS = 10
# Questions by chance that are held ready, and drawn anew where half of them are gone.
_N_READY = 2000
_FAILED, _PROGRESS = "failed", "progress"
_FEATURES = "Features of the images are being computed."


class BackgroundTrainer:
    """Starts the process and gives it work when there are enough new answers.

    Args:
        first_after, again_after: answers before the first training, and between two.
        is_enough: whether the study is to end, by what is known of a model.
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
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_run_trainer, args=(task, theirs), daemon=True, name="tripletkit-trainer"
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
            self._expect("ready", _FEATURES)
            last = self._database.last_model()
            n_trained = 0 if last is None else last["n_answers"]
            while True:
                if self._asker.n_drawn < _N_READY / 2:
                    self._asker.add_drawn(self._do("draw", _N_READY))
                if self._stop.wait(_LOOK_EVERY_S):
                    return
                n_answers = self._database.n_answers()
                due = n_trained + self._again_after if n_trained else self._first_after
                if n_answers >= due:
                    self._train(n_answers)
                    n_trained = n_answers
        except (EOFError, OSError, TripletkitError) as error:
            if not self._stop.is_set():
                reason = str(error) or "its process ended"
                self.status["text"] = (
                    f"No model is trained, questions are drawn at random: {reason}"
                )
                logger.warning("no model is trained, questions are drawn at random: %s", reason)

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
    try:

        def tell(done: int, total: int) -> None:
            pipe.send((_PROGRESS, (done, total)))

        features = np.asarray(task.make_features(tell))
        pipe.send(("ready", None))
        while True:
            work, number = pipe.recv()
            if work == "draw":
                pipe.send((work, draw_by_chance(task, features, number, rng)))
            elif work == "choose":
                pipe.send((work, choose_next(task, features, number)))
            else:
                pipe.send((work, measure_model(task, features, number, tell)))
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
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
