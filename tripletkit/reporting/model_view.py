"""A model as it is looked at: its record, its epochs, and its answers to some triplets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.data.images import ImagesLike, open_images
from tripletkit.data.judgements import Judgements, JudgementsLike, TruthLike, read_judgements
from tripletkit.data.questions import hash_questions
from tripletkit.data.triplets import Triplets
from tripletkit.errors import SettingsError, TripletFileError
from tripletkit.evaluation.baselines import Baseline, run_baselines
from tripletkit.evaluation.classification import Confusion, count_confusions, vote
from tripletkit.evaluation.distances import triplet_distances
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.scoring import Score
from tripletkit.features.encoder import Encoder, GivenWeights
from tripletkit.features.store import FeatureStore
from tripletkit.model.model_folder import ModelFolder
from tripletkit.model.record import InputsRecord
from tripletkit.progress import Progress
from tripletkit.search.image_search import NOBODY, find_neighbors
from tripletkit.training.inputs import read_training_triplets

logger = logging.getLogger("tripletkit")

# Of each file that models were trained on, what is known of it.
_Known = dict[InputsRecord, tuple[Triplets | None, list[Baseline]]]


class _Headline(NamedTuple):
    """The accuracy that a page names first: of triplets that the model did not learn from.

    `frozen` is that of the features without any training, `caution` what the interval does not
    allow for.
    """

    accuracy: float
    frozen: float
    n: int
    on: str
    interval: Interval | None
    caution: str = ""


@dataclass(frozen=True)
class ModelView:
    """A model, and what it says of triplets whose answers are known.

    Attributes:
        name: what a page calls it; no other model of the page is called so.
        model: the model.
        encoder: what turns images into its embeddings.
        triplets: anchor, positive, negative.
        is_training: they are the ones that the model learned from.
        paths: of the images in `triplets.names`; None where there is none.
        features: `(n_images, n_features)` float32 of them, NaN where there are none.
        embeddings: `(n_images, dim)` float32 of them.
        labels: name of an image -> label; empty without labels.
        judgements: what it was trained on, where that is in memory.
        known: of training files, shared by the models of a page, as names are scored for seconds.
    """

    name: str
    model: ModelFolder
    encoder: Encoder
    triplets: Triplets
    is_training: bool
    paths: Sequence[Path | None]
    features: np.ndarray
    embeddings: np.ndarray
    labels: Mapping[str, str]
    judgements: Judgements | None
    known: _Known

    @cached_property
    def to_positive(self) -> np.ndarray:
        """`(n_triplets,)` float64 distance from anchor to positive; NaN where not known."""
        return self._distances[:, 0]

    @cached_property
    def to_negative(self) -> np.ndarray:
        """`(n_triplets,)` float64 distance from anchor to negative; NaN where not known."""
        return self._distances[:, 1]

    @cached_property
    def _distances(self) -> np.ndarray:
        return triplet_distances(self.embeddings, self.triplets.rows, self.model.distance)

    @cached_property
    def margins(self) -> np.ndarray:
        """`(n_triplets,)` float32, positive where the answer is right."""
        return (self.to_negative - self.to_positive).astype(np.float32)

    @cached_property
    def is_answered(self) -> np.ndarray:
        """`(n_triplets,)` bool: all three images could be read."""
        return np.isfinite(self.margins)

    @cached_property
    def mistakes(self) -> np.ndarray:
        """Indices of the triplets that are answered wrongly."""
        return np.flatnonzero(self.is_answered & (self.margins <= 0))

    @cached_property
    def score(self) -> Score:
        """The score of the embeddings."""
        return Score.of_embeddings(self.embeddings, self.triplets, self.model.distance)

    @cached_property
    def frozen_score(self) -> Score:
        """The score of the frozen features, as if nothing had been trained."""
        return Score.of_embeddings(self.features, self.triplets, defaults.FROZEN_DISTANCE)

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

    @property
    def training(self) -> Triplets | None:
        """The triplets that the model learned from; None where they are gone."""
        return self._names_alone[0]

    @property
    def baselines(self) -> list[Baseline]:
        """What names alone would score on the triplets.

        None without `training`, nor on the training triplets, where they would say nothing.
        """
        return self._names_alone[1]

    @property
    def _names_alone(self) -> tuple[Triplets | None, list[Baseline]]:
        inputs = self.model.record.inputs
        if inputs not in self.known:
            if self.judgements is not None:
                training: Triplets | None = self.judgements.decided().triplets
            else:
                training = read_training_triplets(inputs)
            if training is None:
                why = _describe_missing_triplets(inputs)
                logger.info(
                    "%s: no training triplets (%s), so names are not scored.", inputs.name, why
                )
            baselines = []
            if training is not None and not self.is_training:
                baselines = run_baselines(training, self.triplets)
            self.known[inputs] = training, baselines
        return self.known[inputs]

    @cached_property
    def learned(self) -> np.ndarray:
        """`(n_triplets,)` bool: the model learned from this very triplet."""
        if self.training is None or self.is_training:
            return np.full(len(self.triplets), self.is_training)
        return np.isin(hash_questions(self.triplets), hash_questions(self.training))

    @cached_property
    def headline(self) -> _Headline | None:
        """The accuracy to name first; None if nothing was ever held out."""
        validation, pooled = self.model.record.validation, self.model.record.pooled
        on = "validation triplets of its training"
        if not self.learned.all():
            trained, frozen = self.score, self.frozen_score
            on = f"triplets of {Path(self.triplets.source).name}"
            if self.learned.any():
                fresh = self.triplets.take(~self.learned)
                trained = Score.of_embeddings(self.embeddings, fresh, self.model.distance)
                frozen = Score.of_embeddings(self.features, fresh, defaults.FROZEN_DISTANCE)
        elif validation is not None:
            trained, frozen = validation.trained, validation.frozen
        elif pooled is not None:
            of_draws, on = pooled.trained, "triplets held out in draws of its training"
            n, interval = of_draws.n_triplets, of_draws.interval
            return _Headline(of_draws.accuracy, pooled.frozen.accuracy, n, on, interval)
        else:
            return None
        caution = "" if trained.image_interval else "if triplets were independent"
        if isinstance(trained.image_interval, NoInterval):
            caution += f"; {trained.image_interval.detail}"
        return _Headline(
            trained.accuracy, frozen.accuracy, trained.n, on, trained.interval, caution
        )

    def confuse_labels(self) -> Confusion | None:
        """Let each labelled image's neighbours say its label; None for fewer than two of them."""
        images = self.labelled
        if len(images) < 2:
            return None
        labels = np.array([self.label_of(image) for image in images], dtype=object)
        numbers, names = pd.factorize(labels, sort=True)
        embeddings, k = self.embeddings[images], min(defaults.NEIGHBORS, len(images) - 1)
        itself = list(np.arange(len(images))[:, None])
        near = find_neighbors(embeddings, embeddings, k, self.model.distance, itself).rows
        said = vote(numbers[near], near != NOBODY)
        return Confusion(list(names), count_confusions(numbers, said, len(names)))


def open_views(
    models: Sequence[ModelFolder],
    *,
    triplets: JudgementsLike | None = None,
    truth: TruthLike | None = None,
    images: ImagesLike | None = None,
    labels: Mapping[str, str] | None = None,
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
    in_memory = training or [None] * len(models)
    chosen = _read_triplets(models[0], triplets, truth, in_memory[0])
    names = _distinct_names([model.path.resolve() for model in models])
    views: list[ModelView] = []
    known: _Known = {}
    for name, model, judgements in zip(names, models, in_memory, strict=True):
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
                name=name,
                model=model,
                encoder=encoder,
                triplets=chosen,
                is_training=triplets is None,
                paths=list(files.paths),
                features=collection.features,
                embeddings=encoder.embed(collection.features),
                labels=labels or {},
                judgements=judgements,
                known=known,
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
                f"{_describe_missing_triplets(inputs)}. Give some with `triplets`."
            )
        path = inputs.triplets and inputs.triplets.path
        logger.info("No `triplets`: taking those of the training, %s.", path)
        return found.without_degenerate()
    given = read_judgements(triplets, truth=truth)
    if given.truth is None and given.votes is None:
        logger.info("%s: taking every second image for the positive (no `truth`).", given.source)
    return given.decided().triplets


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of folders, with as many folders above as it takes to tell them apart.

    Example:
        >>> _distinct_names([Path("/a/m"), Path("/b/m"), Path("/b/n")])
        ['a/m', 'b/m', 'b/n']
    """
    for n_parts in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-n_parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({number})" for number, path in enumerate(paths, 1)]


def _describe_missing_triplets(inputs: InputsRecord) -> str:
    return "they were drawn from labels" if inputs.triplets is None else "they are gone or changed"
