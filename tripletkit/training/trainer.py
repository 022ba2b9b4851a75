"""What a kind of training must be able to do, so that `run` can do the rest, and its epochs.

To add one, write a `Trainer` with the three abstract methods and name it in the `trainer` of its
recipe; nothing else has to know it. What is trained epoch by epoch goes on until the best is known,
or until its embeddings collapse. What an interrupted training needs to go on as if nothing had
happened is in one file: a NumPy archive without pickled objects of the arrays, and a JSON text with
the epochs so far and the facts that decide the training. It is replaced after every epoch, whole or
not at all, and goes when the model is written.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.array_files import read_array_file
from tripletkit.data.images import Images
from tripletkit.data.labels import ImageLabels
from tripletkit.data.outputs import open_output
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import VotesAs, make_loss_weights
from tripletkit.errors import CollapseError, FeatureFileError, ModelFolderError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import CandidateWorth, RecipeWorth
from tripletkit.evaluation.scoring import Score
from tripletkit.features.encoder import Encoder
from tripletkit.features.extract import Collection
from tripletkit.features.store import FeatureStore
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import Part, get_recipe
from tripletkit.model.record import InputsRecord, PixelsRecord
from tripletkit.model.settings import Settings
from tripletkit.progress import Stages, no_stages
from tripletkit.registry import load_object

if TYPE_CHECKING:
    import keras

    from tripletkit.model.head_layers import NumpyHead


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        loss: mean over the epoch's triplets or images, dropout on.
        active: share of triplets that break the margin, without a margin of those whose positive is
            not the nearer; without triplets share of images taken for another class.
        val_accuracy: share of validation triplets right after the epoch, by this head alone; NaN
            without any.
        spread, rank: root mean square distance between two embeddings of training images, and their
            effective rank.
        held_out_accuracy: share of held-out triplets right, over all draws, as far into their
            trainings as this epoch is into the one on all triplets; NaN where no epoch was chosen
            so.
    """

    epoch: int
    loss: float
    active: float
    val_accuracy: float
    spread: float
    rank: float
    held_out_accuracy: float = math.nan


# Told each epoch and how many there are at most.
OnEpoch = Callable[[EpochRecord, int], None]


def ignore_epoch(_record: EpochRecord, _n_epochs: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Examples:
    """What a trainer learns from: triplets over the features of images.

    Attributes:
        features: `(n_images, n_features)` float32; finite where a triplet has the image.
        rows, val_rows: `(n_triplets, 3)` indices into `features`: anchor, positive, negative.
        loss_weights: `(n_triplets, 2)` float32, of each triplet's loss as it stands and with
            positive and negative exchanged, where people disagree; see `make_loss_weights`.
        columns: of each network and depth, such as `efficientnet-lite0` and
            `efficientnet-lite0:block3b_depthwise_relu6`.
        is_scored: `(n_triplets,)` bool: a score may rest on the triplet; None for all.
        trials: see `Triplets`.
        groups: `(n_images,)` integers: what is held out together; None for each by itself.
    """

    features: np.ndarray
    rows: np.ndarray
    val_rows: np.ndarray = field(default_factory=lambda: np.empty((0, 3), np.int32))
    labels: ImageLabels | None = None
    loss_weights: np.ndarray | None = None
    columns: Mapping[str, slice] = field(default_factory=dict)
    is_scored: np.ndarray | None = None
    trials: np.ndarray | None = None
    groups: np.ndarray | None = None

    def weights_of(self, learned: np.ndarray) -> np.ndarray | None:
        return None if self.loss_weights is None else self.loss_weights[learned]

    def with_answer(self, triplets: np.ndarray) -> np.ndarray:
        """Return those of some triplets that can be right or wrong: people do not tie on them."""
        if self.loss_weights is None:
            return triplets
        return triplets[self.loss_weights[triplets, 0] != self.loss_weights[triplets, 1]]


@dataclass(frozen=True)
class Workplace:
    """What a training reads and writes.

    Attributes:
        data: triplets, and labels where there are any, over the names of the files.
        encoder, collection: the backbone as it starts, and features by it.
        folder: where trained weights are written; None where none will be.
        output: the model folder to be, which the checkpoint is beside; None for no checkpoint.
    """

    files: Images
    data: TrainingSet
    record: InputsRecord
    encoder: Encoder
    collection: Collection
    store: FeatureStore
    folder: Path | None
    test_features: np.ndarray | None = None
    output: Path | None = None
    resume: bool = False

    def examples(self, votes_as: VotesAs) -> Examples:
        """Return the triplets over the features."""
        data = self.data
        votes = data.train_votes
        return Examples(
            self.collection.features,
            data.train.rows,
            data.val.rows,
            data.labels,
            None if votes is None else make_loss_weights(votes, votes_as),
            self.encoder.columns,
            data.is_scored,
            data.train.trials,
            data.groups,
        )


def credit(margins: np.ndarray) -> np.ndarray:
    """Return what each margin counts: 1 where it is right, half for a tie."""
    return (margins > 0) + 0.5 * (margins == 0)


# Takes held-out answers, and returns what gives the margins `(n,)` of the variant that these choose
# from the margins of all variants, `(n_variants, n)`.
_Choose = Callable[["HeldOutAnswers"], Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class HeldOutAnswers:
    """What held-out draws gave.

    Attributes:
        margins: `(n_variants, n)` float32, above 0 where the positive is nearer.
        frozen, of_map: `(n,)` float32, of all features without training, by cosine, and of a linear
            map of them, where one was trained.
        images: `(n, 3)` indices of the images of each triplet.
        draws, rounds: `(n,)` the draw of each, and its round, from 0; in a round every image is
            held out once.
        by: what the draws hold out.
        trials: `(n,)` the trial of each; see `Triplets`.
    """

    margins: np.ndarray
    frozen: np.ndarray
    of_map: np.ndarray | None
    images: np.ndarray
    draws: np.ndarray
    rounds: np.ndarray
    by: str
    seconds_s: float
    trials: np.ndarray | None = None

    @property
    def n_draws(self) -> int:
        return int(self.draws[-1]) + 1

    def cross_fit(self, choose: _Choose) -> np.ndarray:
        """Return `(n,)` margins of which none was chosen by itself.

        Those of each draw are chosen by the other folds of its round: what is chosen by the very
        answers that are scored flatters. Nor may answers of other rounds choose: they are to the
        same triplets. Where a round has a single fold, all others choose.
        """
        margins = np.empty(len(self.draws))
        for draw in range(self.n_draws):
            is_asked = self.draws == draw
            is_other = (self.rounds == self.rounds[is_asked][0]) & ~is_asked
            if not is_other.any():
                is_other = is_asked if is_asked.all() else ~is_asked
            others = replace(
                self,
                margins=self.margins[:, is_other],
                images=self.images[is_other],
                draws=self.draws[is_other],
            )
            margins[is_asked] = choose(others)(self.margins[:, is_asked])
        return margins


@dataclass(frozen=True)
class Chosen:
    """What held-out answers chose.

    Attributes:
        trainer: with one variant.
        margins: `(n,)` of the held-out answers that are reported; None without any.
        epoch, n_epochs: the epoch that was best of so many, where one was chosen.
    """

    trainer: Trainer
    margins: np.ndarray | None = None
    epoch: int | None = None
    n_epochs: int | None = None
    candidates: tuple[CandidateWorth, ...] = ()
    recipes: tuple[RecipeWorth, ...] = ()


@dataclass(frozen=True)
class FromPixels:
    """A backbone that was trained; its weights are there as long as the workplace's folder."""

    encoder: Encoder
    backbone_file: Path
    collection: Collection
    record: PixelsRecord


@dataclass(frozen=True)
class Fitted:
    """What a trainer made of all triplets: a head, `(batch, n_features)` -> `(batch, dim)`.

    Attributes:
        history: one record an epoch.
        best_epoch: the epoch whose weights it has, from 1: the best by validation accuracy, the
            earliest of equals; the last one without validation. Of several heads, the first one's.
        centers: `(n_classes, dim)` that the loss drew embeddings to, if it did; NaN for a class
            that no batch had.
        frozen_head: the score of the head on the backbone before that was trained further.
    """

    head: keras.Model | NumpyHead
    history: list[EpochRecord]
    best_epoch: int
    settings: Settings
    centers: np.ndarray | None = None
    parts: tuple[Part, ...] = ()
    pixels: FromPixels | None = None
    frozen_head: Score | None = None


class Trainer(ABC):
    """One kind of training, of the model that the settings say."""

    # Held-out answers that are pooled, by whole rounds.
    n_enough: int = defaults.POOLED_TRIPLETS

    def __init__(self, examples: Examples, settings: Settings) -> None:
        self.examples = examples
        self.settings = settings

    @abstractmethod
    def answer(self, learned: np.ndarray, asked: np.ndarray, further: int = 0) -> np.ndarray:
        """Train without some triplets and answer them, `asked`, `(n_asked, 3)` indices of images.

        `learned` are indices into `examples.rows`; `further` is added to the seed, so that draws
        begin from other weights. Returned are `(n_variants, n_asked)` float32 margins, above 0
        where the positive is nearer. A *variant* is what can be chosen afterwards from one
        training, such as the number of epochs.
        """

    @abstractmethod
    def choose(self, held_out: HeldOutAnswers | None) -> Chosen:
        """Return the trainer with its best variant, or its usual one where nothing was held out."""

    @abstractmethod
    def fit(self, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        """Train on all triplets; embeddings that become alike raise a `CollapseError`."""

    def for_draws(self, _learned: np.ndarray) -> Trainer:
        """Return what answers held-out draws, given what the first of them learns from."""
        return self

    def for_curve(self) -> Trainer:
        """Return what the learning curve is measured with, once a variant is chosen."""
        return self


def make_trainer(examples: Examples, settings: Settings) -> Trainer:
    """Return the trainer of a recipe on stored features."""
    found: type[Trainer] = load_object(get_recipe(settings.recipe).trainer)  # type: ignore[assignment]
    return found(examples, settings)


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
            # A tie is not right.
            margins = triplet_margins(embeddings, val_rows, settings.distance)
            accuracy = float(np.mean(margins > 0))
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


def _mean_pairwise_distance(embeddings: np.ndarray) -> float:
    """Return the root mean square distance between two embeddings, about 1.41 of unit ones that
    point everywhere."""
    return float(np.sqrt(2.0 * embeddings.astype(np.float64).var(axis=0).sum()))


def _effective_rank(embeddings: np.ndarray) -> float:
    """Return in how many directions embeddings really spread: 1 where all are on a line.

    The exponential of the entropy of the shares that the principal directions have in the spread.

    Reference:
        Roy, Vetterli. The effective rank. EUSIPCO 2007.
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
    alike, or not numbers, or on a line where there are more classes than that can keep apart. After
    a collapse `find_cause` is asked what the embeddings are made of that explains it."""
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
    """The checkpoints of one training, in a file. A training goes on only where all facts (plain
    JSON values by what they are called in messages) are as they were."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self._facts = json.loads(json.dumps({"format of checkpoints": _FORMAT, **facts}))
        self._state: dict[str, list[np.ndarray]] = {}
        self._kept: _Kept | None = None

    def open(self) -> int:
        """Read what is there, so that `restore` goes on from it, and return after how many epochs.
        What is broken, or of other data or settings, is refused."""
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
