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
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.committee import TrainerTask, train_and_choose
from tripletkit.collecting.database import JudgementDatabase
from tripletkit.errors import JudgementsError, TripletkitError

logger = logging.getLogger("tripletkit")

_LOOK_EVERY_S = 1.0
_NICENESS = 10
_READY, _TRAINED, _FAILED = "ready", "trained", "failed"


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


def _go_behind() -> None:
    """Leave the processor to the server, and say nothing: TensorFlow writes to descriptor 2."""
    os.nice(_NICENESS) if hasattr(os, "nice") else None
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
