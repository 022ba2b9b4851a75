"""A model as it is looked at: its record, its epochs, and its answers to some triplets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tripletkit.data.images import ImagesLike, open_images
from tripletkit.data.judgements import Judgements, JudgementsLike, TruthLike, open_judgements
from tripletkit.data.labels import open_labels
from tripletkit.data.triplets import Triplets
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.errors import SettingsError, TripletFileError
from tripletkit.evaluation.distances import distances_between
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import score_embeddings
from tripletkit.features.encoder import Encoder
from tripletkit.features.feature_parts import GivenWeights
from tripletkit.features.store import FeatureStore
from tripletkit.model.model_folder import ModelFolder
from tripletkit.progress import Progress
from tripletkit.training.job import describe_missing_triplets, read_training_triplets

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class ModelView:
    """A model, and what it says of triplets whose answers are known.

    Attributes:
        model: the model.
        encoder: what turns images into its embeddings.
        triplets: anchor, positive, negative.
        is_training: they are the ones that the model learned from.
        paths: of the images in `triplets.names`; None where there is none.
        features: `(n_images, n_features)` float32 of them, NaN where there are none.
        embeddings: `(n_images, dim)` float32 of them.
        labels: name of an image -> label; empty without labels.
        judgements: what it was trained on, where that is in memory.
    """

    model: ModelFolder
    encoder: Encoder
    triplets: Triplets
    is_training: bool
    paths: Sequence[Path | None]
    features: np.ndarray
    embeddings: np.ndarray
    labels: dict[str, str]
    judgements: Judgements | None = None

    @cached_property
    def to_positive(self) -> np.ndarray:
        """`(n_triplets,)` float64 distance from anchor to positive; NaN where not known."""
        return self._distances(1)

    @cached_property
    def to_negative(self) -> np.ndarray:
        """`(n_triplets,)` float64 distance from anchor to negative; NaN where not known."""
        return self._distances(2)

    @cached_property
    def margins(self) -> np.ndarray:
        """`(n_triplets,)` float32, positive where the answer is right."""
        return (self.to_negative - self.to_positive).astype(np.float32)

    @cached_property
    def known(self) -> np.ndarray:
        """`(n_triplets,)` bool: all three images could be read."""
        return np.isfinite(self.margins)

    @cached_property
    def score(self) -> Score:
        """The score of the embeddings."""
        return score_embeddings(self.embeddings, self.triplets, self.model.distance)

    @cached_property
    def frozen_score(self) -> Score:
        """The score of the frozen features, as if nothing had been trained."""
        return score_embeddings(self.features, self.triplets, FROZEN_DISTANCE)

    @cached_property
    def shown(self) -> np.ndarray:
        """Indices of the images that are named in a triplet and could be read."""
        used = np.unique(self.triplets.rows)
        return used[np.isfinite(self.embeddings[used, 0])]

    @cached_property
    def labelled(self) -> np.ndarray:
        """Indices of those of `shown` that have a label."""
        return np.array([i for i in self.shown if self.label_of(i) is not None], dtype=np.int64)

    def label_of(self, image: int) -> str | None:
        """Return the label of an image, if it has one."""
        return self.labels.get(self.triplets.names[image])

    def _distances(self, slot: int) -> np.ndarray:
        rows = self.triplets.rows
        return distances_between(
            self.embeddings, rows[:, 0], self.embeddings, rows[:, slot], self.model.distance
        )


def open_views(
    models: Sequence[ModelFolder],
    *,
    triplets: JudgementsLike | None = None,
    truth: TruthLike | None = None,
    images: ImagesLike | None = None,
    labels: Path | BinaryIO | Mapping[str, str] | None = None,
    weights: GivenWeights | None = None,
    features: Path | None = None,
    training: Sequence[Judgements | None] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[ModelView]:
    """Let models answer triplets and gather what there is to show.

    It takes what `tripletkit.report` takes; `training` is what each model was trained on, where it
    is in memory.
    """
    if truth is not None and triplets is None:
        raise SettingsError("truth", "`truth` needs `triplets`, whose truth it is.")
    if triplets is None and len(models) > 1:
        raise SettingsError(
            "triplets",
            f"{len(models)} models are compared on the same triplets, and each was trained on its "
            "own. Say which to take with `triplets`.",
        )
    label_of = {} if labels is None else open_labels(labels).of_name
    in_memory = training or [None] * len(models)
    chosen = _read_triplets(models[0], triplets, truth, in_memory[0])
    views = []
    for model, judgements in zip(models, in_memory, strict=True):
        found = open_images(images).or_folder(model.image_folder)
        if not found.has_files:
            raise SettingsError(
                "images",
                f"{model.path}: expected a folder of images to show, this model was trained on "
                "features alone. Say where the images are with `images`.",
            )
        encoder = model.open_encoder(weights, features)
        files = found.find(chosen.names, chosen.first_places())
        with FeatureStore(cache) as store:
            collection = encoder.load(files, store, progress=progress)
        views.append(
            ModelView(
                model=model,
                encoder=encoder,
                triplets=chosen,
                is_training=triplets is None,
                paths=list(files.paths),
                features=collection.features,
                embeddings=encoder.embed(collection.features),
                labels=label_of,
                judgements=judgements,
            )
        )
    return views


def _read_triplets(
    model: ModelFolder,
    triplets: JudgementsLike | None,
    truth: TruthLike | None,
    in_memory: Judgements | None,
) -> Triplets:
    if triplets is None and in_memory is not None:
        return in_memory.decided().triplets.without_degenerate()
    if triplets is None:
        inputs = model.record.inputs
        found = read_training_triplets(inputs)
        if found is None:
            raise TripletFileError(
                f"{inputs.name}: expected the triplets that {model.path} was trained on, "
                f"{describe_missing_triplets(inputs)}. Give some with `triplets`."
            )
        path = inputs.triplets and inputs.triplets.path
        logger.info("No `triplets`: taking those of the training, %s.", path)
        return found.without_degenerate()
    given = open_judgements(triplets, truth=truth)
    if given.truth is None and given.votes is None:
        logger.info("%s: taking every second image for the positive (no `truth`).", given.source)
    return given.decided().triplets
