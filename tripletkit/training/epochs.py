"""Epochs of a training until the best is known, or until its embeddings collapse.

What an interrupted training needs to go on as if nothing had happened is in one file: a NumPy
archive without pickled objects of the arrays, and a JSON text with the epochs so far and with the
facts that decide the training. It is replaced after every epoch, whole or not at all, and goes when
the model is written.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tripletkit.data.array_files import read_array_file
from tripletkit.data.outputs import open_output
from tripletkit.errors import CollapseError, FeatureFileError, ModelFolderError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.settings import Settings
from tripletkit.training.trainer import EpochRecord, Fitted

if TYPE_CHECKING:
    import keras

# Embeddings of length 1 whose mean distance is below this are alike; trained ones are near 1.
_COLLAPSE_SPREAD = 0.01
# Embeddings of an effective rank below this are on a line, which two classes can share, and hardly
# three. It is measured over at most so many images.
_COLLAPSE_RANK = 1.2
_RANK_IMAGES = 512


class EpochTraining(ABC):
    """What is trained epoch by epoch: a head on features, or a network on pixels."""

    @property
    def centers(self) -> np.ndarray | None:
        """See `Fitted`."""
        return None

    @abstractmethod
    def run_epoch(self) -> tuple[float, float]:
        """Go once over what there is to learn from; return mean loss and share of violations."""

    @abstractmethod
    def embed(self, strength: float = 1.0) -> np.ndarray:
        """Return the embeddings of all images, with so much of the step; see `shorten_step`."""

    @abstractmethod
    def check(self, embeddings: np.ndarray, loss: float) -> tuple[float, float]:
        """Return the spread and the effective rank of the training images' embeddings."""

    @abstractmethod
    def weights(self) -> list[np.ndarray]:
        """Return what training changes."""

    @abstractmethod
    def finish(self, weights: list[np.ndarray]) -> keras.Model:
        """Return the head with these weights, for features as they are."""


def keep_best_epoch(
    training: EpochTraining,
    val_rows: np.ndarray,
    settings: Settings,
    *,
    chooses_epoch: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Run a training from its beginning, or its checkpoint, to its end and keep an epoch: the best
    by validation accuracy, which ends when that no longer rises, or the last."""
    chooses_epoch = chooses_epoch and len(val_rows) > 0
    history: list[EpochRecord] = []
    best_epoch, best_accuracy = 0, -np.inf
    best_weights: list[np.ndarray] = []
    centers: np.ndarray | None = None
    if checkpoints is not None and (found := checkpoints.restore(training)) is not None:
        history, best_epoch, best_weights, centers = found
        best_accuracy = history[best_epoch - 1].val_accuracy
    for epoch in range(len(history) + 1, settings.epochs + 1):
        if chooses_epoch and epoch > best_epoch + settings.patience:
            break
        loss, active = training.run_epoch()
        embeddings = training.embed(settings.strength)
        accuracy = np.nan
        if len(val_rows):
            accuracy = _share_right(embeddings, val_rows, settings.distance)
        spread, rank = training.check(embeddings, loss)
        record = EpochRecord(epoch, loss, active, accuracy, spread, rank)
        history.append(record)
        if on_epoch is not None:
            on_epoch(record)
        if not chooses_epoch or accuracy > best_accuracy:
            best_epoch, best_accuracy = epoch, accuracy
            best_weights, centers = training.weights(), training.centers
        if checkpoints is not None:
            checkpoints.save(training, history, best_epoch, best_weights, centers)
    return Fitted(training.finish(best_weights), history, best_epoch, settings, centers)


def _share_right(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> float:
    """Return the share of answered triplets whose positive is nearer; a tie is not."""
    return float(np.mean(triplet_margins(embeddings, rows, distance) > 0))


def _mean_pairwise_distance(embeddings: np.ndarray) -> float:
    """Return the root mean square distance between two embeddings, about 1.41 of unit ones that
    point everywhere.

    Example:
        >>> _mean_pairwise_distance(np.array([[0.0], [2.0]]))   # pairs 00, 01, 10, 11: 0 4 4 0
        1.4142135623730951
    """
    return float(np.sqrt(2.0 * embeddings.astype(np.float64).var(axis=0).sum()))


def _effective_rank(embeddings: np.ndarray) -> float:
    """Return in how many directions embeddings really spread: 1 where all are on a line.

    The exponential of the entropy of the shares that the principal directions have in the spread.

    Reference:
        Roy, Vetterli. The effective rank. EUSIPCO 2007.
    Example:
        >>> round(_effective_rank(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6)
        2.0
    """
    embeddings = embeddings[:: -(-len(embeddings) // _RANK_IMAGES)].astype(np.float64)
    embeddings -= embeddings.mean(axis=0)
    # Squares of the singular values, from the smaller of the two matrices of inner products: an
    # SVD of wide embeddings took most of the time of training a head.
    is_wide = embeddings.shape[0] < embeddings.shape[1]
    products = embeddings @ embeddings.T if is_wide else embeddings.T @ embeddings
    squares = np.linalg.eigvalsh(products)
    # What rounding leaves of directions that are not there.
    squares[squares < 1e-12 * squares.max(initial=0)] = 0
    stretches = np.sqrt(squares)
    if not stretches.sum() > 0:
        return 0.0
    shares = stretches[stretches > 0] / stretches.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def check_collapse(
    embeddings: np.ndarray,
    loss: float,
    settings: Settings,
    n_classes: int | None = None,
    *,
    find_cause: Callable[[], str | None] = lambda: None,
) -> tuple[float, float]:
    """Return spread and effective rank of the embeddings of training images; refuse those that are
    alike, or not numbers, or on a line where there are more classes than that can keep apart.

    After a collapse `find_cause` is asked what the embeddings are made of that explains it.
    """
    advice = (
        f"Try a lower learning rate (`learning_rate={settings.learning_rate / 10:g}`), another "
        "`seed`, or fewer contradictions in the triplets (`tripletkit audit`)."
    )
    if settings.mining == "batch-hard":
        advice += " The hardest triplets collapse most easily: `mining=semi-hard` is gentler."
    if not (np.isfinite(loss) and np.isfinite(embeddings).all()):
        what = "embeddings are not numbers" if np.isfinite(loss) else f"the loss is {loss}"
        raise CollapseError(f"training broke down: {what}. {advice}")
    spread, rank = _mean_pairwise_distance(embeddings), _effective_rank(embeddings)
    if spread < _COLLAPSE_SPREAD:
        at_margin = (
            f", so the loss is stuck at the margin ({loss:.4f}, margin {settings.margin:g})"
            if get_loss(settings.loss).has_margin
            else ""
        )
        cause = find_cause()
        raise CollapseError(
            f"training collapsed: all embeddings are alike (mean distance between two images "
            f"{spread:.2g}, expected about 1){at_margin} and every answer would be a tie. "
            f"{f'The cause: {cause}' if cause else advice}"
        )
    dim = embeddings.shape[1]
    if rank < _COLLAPSE_RANK and min(dim, (n_classes or 0) - 1) > 2:
        raise CollapseError(
            f"training collapsed: the embeddings of {n_classes} classes lie on a line (effective "
            f"rank {rank:.2f} of {dim} dimensions), which cannot keep them apart. {advice}"
        )
    return spread, rank


# Increase when a checkpoint of an older tripletkit can no longer be gone on from.
_FORMAT = 2
_TEXT = "text"
# The epochs so far, the number of the best one, its weights, and its class centers.
_Kept = tuple[list[EpochRecord], int, list[np.ndarray], np.ndarray | None]


class Checkpoints:
    """The checkpoints of one training, in a file.

    A training goes on only where all facts (plain JSON values by what they are called in messages)
    are as they were.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self._facts = json.loads(json.dumps({"format of checkpoints": _FORMAT, **facts}))
        self._state: dict[str, list[np.ndarray]] = {}
        self._kept: _Kept | None = None

    def open(self) -> int:
        """Read what is there, so that `restore` goes on from it, and return after how many epochs.

        What is broken, or of other data or settings, is refused.
        """
        if not self.path.exists():
            return 0
        try:
            found = read_array_file(self.path)
            text = json.loads(bytes(found.pop(_TEXT)))
            arrays: dict[str, list[np.ndarray]] = {}
            for key, array in found.items():
                arrays.setdefault(key.rpartition("/")[0], []).append(array)
            history = [EpochRecord(**record) for record in text["history"]]
            best_epoch, facts = text["best_epoch"], text["facts"]
            (centers,) = arrays.pop("centers", [None])
            kept = history, best_epoch, arrays.pop("best"), centers
            if not 1 <= best_epoch <= len(history):
                raise LookupError("no best epoch")
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            is_known = isinstance(error, OSError | FeatureFileError)
            raise ModelFolderError(
                f"{self.path}: expected a checkpoint, cannot be read as one: "
                f"{error if is_known else 'it holds something else'}. Begin anew with "
                "`overwrite=True`."
            ) from error
        if differences := _describe_differences(facts, self._facts):
            raise ModelFolderError(
                f"{self.path}: expected the checkpoint of this very training, got one of "
                f"another:\n{differences}\nCall it as before to go on, or begin anew with "
                "`overwrite=True`."
            )
        self._state, self._kept = arrays, kept
        return len(history)

    def restore(self, training: Any) -> _Kept | None:
        """Put a training where `open` found it; None where nothing was found."""
        if self._kept is not None:
            training.restore(self._state, len(self._kept[0]))
        return self._kept

    def save(
        self,
        training: Any,
        history: list[EpochRecord],
        best_epoch: int,
        best_weights: list[np.ndarray],
        centers: np.ndarray | None,
    ) -> None:
        text = {
            "facts": self._facts,
            "history": [asdict(record) for record in history],
            "best_epoch": best_epoch,
        }
        lists = {**training.state(), "best": best_weights}
        lists["centers"] = [] if centers is None else [centers]
        arrays: dict[str, Any] = {_TEXT: np.frombuffer(json.dumps(text).encode(), np.uint8)}
        arrays |= {
            f"{name}/{number}": value
            for name, values in lists.items()
            for number, value in enumerate(values)
        }
        with open_output(self.path, "wb") as file:
            np.savez(file, **arrays)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


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
