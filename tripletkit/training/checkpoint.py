"""What an interrupted training needs to go on as if nothing had happened, in one file.

The file is a NumPy archive without pickled objects: the arrays, and a JSON text with the epochs
so far and with the facts that decide the training. It is replaced after every epoch, whole or
not at all, and goes when the model is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tripletkit.data.array_files import read_array_file
from tripletkit.data.outputs import open_output
from tripletkit.errors import ArrayFileError, CheckpointError, OutputError
from tripletkit.model.history import EpochRecord

# Increase when a checkpoint of an older tripletkit can no longer be gone on from.
FORMAT_VERSION = 1

_TEXT = "text"
_STATE = "state."


class Resumable(Protocol):
    """A training that can go on from a state."""

    def state(self) -> dict[str, list[np.ndarray]]: ...

    def restore(self, state: dict[str, list[np.ndarray]], n_epochs: int) -> None: ...


class Checkpoints:
    """The checkpoints of one training.

    Args:
        path: the file.
        facts: plain JSON values by what they are called in messages; a training goes on only
            where all of them are as they were.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self._facts = json.loads(json.dumps(facts))
        self._found: tuple[dict[str, Any], dict[str, list[np.ndarray]]] | None = None

    def open(self) -> int:
        """Read what is there, so that `restore` goes on from it.

        Returns:
            How many epochs are behind it; 0 where there is nothing.
        Raises:
            CheckpointError: if it is broken, or of other data or settings, saying which.
        """
        if not self.path.exists():
            return 0
        advice = "Begin anew with `overwrite=True`."
        try:
            found = read_array_file(self.path)
            text = json.loads(bytes(found.pop(_TEXT)))
            arrays: dict[str, list[np.ndarray]] = {}
            for key, array in found.items():
                arrays.setdefault(key.rpartition("/")[0], []).append(array)
            version, n_epochs, facts = text["version"], len(text["history"]), text["facts"]
            _check_parts(text, arrays)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            is_known = isinstance(error, OSError | ArrayFileError)
            reason = error if is_known else "it holds something else"
            raise CheckpointError(
                f"{self.path}: expected a checkpoint, cannot be read as one: {reason}. {advice}"
            ) from error
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{self.path}: expected a checkpoint of version {FORMAT_VERSION}, got {version!r}, "
                f"of another tripletkit. {advice}"
            )
        if differences := _describe_differences(facts, self._facts):
            raise CheckpointError(
                f"{self.path}: expected the checkpoint of this very training, got one of "
                f"another:\n{differences}\nCall it as before to go on, or begin anew with "
                "`overwrite=True`."
            )
        self._found = text, arrays
        return n_epochs

    def restore(
        self, training: Resumable
    ) -> tuple[list[EpochRecord], int, list[np.ndarray], np.ndarray | None] | None:
        """Put a training where `open` found it.

        Returns:
            The epochs so far, the number of the best one, its weights, and its class centers; None
            where nothing was found.
        """
        if self._found is None:
            return None
        text, arrays = self._found
        history = [EpochRecord(**record) for record in text["history"]]
        state = {
            name.removeprefix(_STATE): values
            for name, values in arrays.items()
            if name.startswith(_STATE)
        }
        training.restore(state, len(history))
        (centers,) = arrays.get("centers", [None])
        return history, text["best_epoch"], arrays["best"], centers

    def save(
        self,
        training: Resumable,
        history: list[EpochRecord],
        best_epoch: int,
        best_weights: list[np.ndarray],
        centers: np.ndarray | None,
    ) -> None:
        """Replace the checkpoint; the arguments are what `restore` returns.

        Raises:
            OutputError: if it cannot be written.
        """
        text = {
            "version": FORMAT_VERSION,
            "facts": self._facts,
            "history": [asdict(record) for record in history],
            "best_epoch": best_epoch,
        }
        lists = {_STATE + name: values for name, values in training.state().items()}
        lists |= {"best": best_weights, "centers": [] if centers is None else [centers]}
        arrays = {
            f"{name}/{number}": value
            for name, values in lists.items()
            for number, value in enumerate(values)
        }
        with open_output(self.path, "wb") as file:
            np.savez(file, **{_TEXT: np.frombuffer(json.dumps(text).encode(), np.uint8)}, **arrays)

    def remove(self) -> None:
        """Delete the file, if it is there."""
        self.path.unlink(missing_ok=True)


def _check_parts(text: dict[str, Any], arrays: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Raise TypeError or LookupError where `restore` would miss something."""
    for record in text["history"]:
        EpochRecord(**record)
    if not 1 <= text["best_epoch"] <= len(text["history"]) or not arrays["best"]:
        raise LookupError("no best epoch")


def checkpoint_path(model: Path) -> Path:
    """Return where the checkpoint of a model folder is: beside it."""
    model = model.absolute()
    return model.with_name(f"{model.name}.checkpoint.npz")


def check_no_checkpoint(model: Path, *, overwrite: bool) -> None:
    """Refuse to begin anew where an interrupted training left a checkpoint.

    Raises:
        OutputError: unless it may be overwritten.
    """
    path = checkpoint_path(model)
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path}: an interrupted training left this. Go on with `resume`, or begin anew "
            "with `overwrite=True`."
        )


def _describe_differences(was: dict[str, Any], now: dict[str, Any]) -> str:
    """Return a line for each fact that is not as it was."""
    names = [*now, *(name for name in was if name not in now)]
    return "\n".join(
        f"  {name}: was {_shorten(was.get(name))}, is {_shorten(now.get(name))}"
        for name in names
        if was.get(name) != now.get(name)
    )


def _shorten(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
