"""What a kind of training must be able to do, so that `run` can do the rest.

To add one, write a `Trainer` with the three abstract methods and name it in the `trainer` of its
recipe; nothing else has to know it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import Images
from tripletkit.data.labels import ImageLabels
from tripletkit.data.training_set import TrainingSet
from tripletkit.data.triplets import VotesAs, make_loss_weights
from tripletkit.evaluation.pooled import CandidateWorth, RecipeWorth
from tripletkit.evaluation.scoring import Score
from tripletkit.features.encoder import Encoder
from tripletkit.features.extract import Collection
from tripletkit.features.store import FeatureStore
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
        encoder, collection: the backbone with the weights that it starts from, and features by
            these.
        folder: where trained weights are written; None where none will be.
        test_features: `(n_test, n_features)` float32 of the images of a test; None without.
        output: the model folder to be, which the checkpoint is beside; None for no checkpoint.
        resume: go on from that checkpoint.
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
        epoch, n_epochs: the epoch of a training on all triplets that was best of so many, where one
            was chosen.
        candidates, recipes: what each candidate part, or recipe, is worth.
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
        parts: of an ensemble, as the record has them.
        frozen_head: the score of the head on the backbone as it was before it was trained further.
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
