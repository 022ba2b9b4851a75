"""What turns images into vectors that can be compared.

One backbone that sees the whole image gives its features as they are. Several views of an
image are averaged. Of several backbones, each one's features are scaled to length 1 and all
stand side by side, so that none drowns the others. Vectors made elsewhere are taken as they are.
Behind any of these may stand the head of a trained model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import Images, place_problems
from tripletkit.errors import (
    DataWarning,
    FeatureFileError,
    ImageReadError,
    caution,
    describe_problems,
)
from tripletkit.features.backbones import FROM_VECTORS
from tripletkit.features.exported_networks import load_network_function
from tripletkit.features.extract import FeatureFunction, extract_features
from tripletkit.features.feature_parts import (
    BackboneLike,
    FeaturePart,
    GivenWeights,
    choose_parts,
    recorded_parts,
)
from tripletkit.features.function_encoder import FunctionEncoder
from tripletkit.features.given_features import FeaturesLike, GivenFeatures, open_features
from tripletkit.features.image_views import ORIGINAL, View, choose_views, get_view
from tripletkit.features.store import FeatureSpace, FeatureStore
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.progress import Progress, no_progress

# Images whose features are in memory at a time: 84 MB of 2,560 numbers.
ENCODE_PART_IMAGES = 8192

logger = logging.getLogger("tripletkit")


class EncoderRecord(NamedTuple):
    """What a model's record says of the encoder that it was trained on."""

    features: Mapping[str, Any]  # see `Encoder.facts`
    weights_files: Sequence[str | None]  # see `FeaturePart.origin`
    n_features: int


class EncoderHead(NamedTuple):
    """The trained head behind features."""

    distance: str  # by which embeddings are compared
    sha256: str  # of all that decides it
    embed: Callable[[np.ndarray], np.ndarray]  # (n, n_features) -> (n, n_dims), both float32


@dataclass(frozen=True)
class Collection:
    """Features of named images; two names of one content are one image."""

    features: np.ndarray  # (n_names, n_features) float32; NaN where an image is missing or broken
    problems: dict[int, str]  # index of a name -> what is wrong with it, for those
    n_computed: int = 0  # images that a backbone had to look at
    n_stored: int = 0

    def is_usable(self) -> np.ndarray:
        """Return `(n_images,)` bool: the image has features."""
        return np.isfinite(self.features[:, 0])


@dataclass
class _Found:
    problems: dict[int, str]
    usable: set[bytes] = field(default_factory=set)
    computed: set[bytes] = field(default_factory=set)

    @property
    def n_stored(self) -> int:
        return len(self.usable - self.computed)


@dataclass(frozen=True)
class Encoder:
    """What an image's vector is of; `open_encoder` makes one.

    Attributes:
        parts: backbones, in the order of their columns; several depths of one follow each other.
            None where vectors were made elsewhere.
        views: what each one's features are averaged over.
        given: the vectors made elsewhere; None where features are computed, or none were given yet.
        n_given: how many numbers these have; 0 where features are computed.
        head: what a trained model adds; None for the features themselves.
    """

    parts: tuple[FeaturePart, ...] = ()
    views: tuple[View, ...] = (ORIGINAL,)
    given: GivenFeatures | None = None
    n_given: int = 0
    head: EncoderHead | None = None

    @property
    def is_given(self) -> bool:
        """Whether vectors were made elsewhere, so that no image is looked at."""
        return not self.parts

    @property
    def is_plain(self) -> bool:
        """Whether it is one backbone that sees the whole image, or vectors, just as they are."""
        is_one = len(self.parts) == 1 and self.parts[0].stage is None
        return self.is_given or (is_one and self.views == (ORIGINAL,))

    @property
    def n_features(self) -> int:
        """How many numbers an image has before the head."""
        return self.n_given or sum(part.n_features for part in self.parts)

    @property
    def networks(self) -> list[tuple[FeaturePart, ...]]:
        """The parts of each network, which one pass computes together."""
        by_network = groupby(self.parts, lambda part: part.network_facts)
        return [tuple(parts) for _, parts in by_network]

    @property
    def columns(self) -> dict[str, slice]:
        """Which features come from what, as in `resnet50` or `resnet50:conv3_block4_out`."""
        if self.is_given:
            return {"given": slice(0, self.n_given)}
        names = [
            part.backbone.name + (f":{part.stage.layer}" if part.stage else "")
            for part in self.parts
        ]
        ends = np.cumsum([part.n_features for part in self.parts]).tolist()
        return dict(zip(names, map(slice, [0, *ends], ends), strict=False))

    @property
    def facts(self) -> dict[str, object]:
        """What decides the features of an image.

        Of vectors made elsewhere only their length is known: the file differs with the images.
        """
        if self.is_given:
            return {"backbone": FROM_VECTORS, "n_features": self.n_given}
        if self.is_plain:
            return self.parts[0].facts
        return {
            "parts": [part.facts for part in self.parts],
            "views": [view.name for view in self.views],
        }

    @property
    def record(self) -> EncoderRecord:
        """What a model's record keeps of it, from which `open_recorded_encoder` makes it again."""
        origins = [part.origin for part in self.parts]
        return EncoderRecord(dict(self.facts), origins, self.n_features)

    @property
    def distance(self) -> str:
        """The distance that belongs to the vectors."""
        return defaults.FROZEN_DISTANCE if self.head is None else self.head.distance

    @property
    def fingerprint(self) -> str:
        """One text that is another wherever vectors would be others."""
        if self.head is not None:
            return f"model {self.head.sha256}"
        own = {"file_sha256": self.given.sha256} if self.given else {}
        return f"features {FeatureSpace({**self.facts, **own}, self.n_features).fingerprint}"

    @property
    def frozen(self) -> Encoder:
        """The same without the trained head."""
        return replace(self, head=None)

    def encode(
        self,
        images: Images,
        store: FeatureStore,
        *,
        progress: Progress | None = None,
        tell: bool = True,
    ) -> np.ndarray:
        """Return the vectors of images.

        Args:
            images: from `open_images`.
            store: where features are kept.
            progress: told (done, total) in images.
            tell: say how many were computed, and warn of what is left out.
        Returns:
            `(n_images, n_dims)` float32, in the order of the names; a row of NaN where an image is
            missing or broken.
        Raises:
            ImageReadError: if an image cannot be read, unless `images` leave bad ones out. All
                readable ones are in the store by then.
            FeatureFileError: if an image has no vector among those made elsewhere.
        """
        chunks = self.encode_in_chunks(images, store, progress=progress, tell=tell)
        return _gather(chunks, len(images.names))

    def encode_in_chunks(
        self,
        images: Images,
        store: FeatureStore,
        *,
        progress: Progress | None = None,
        tell: bool = True,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, vectors) of some thousand images at a time; see `encode`."""
        found = _Found(dict(images.problems))
        for start, features in self._load(images, store, found, progress):
            yield start, self.embed(features)
        self._finish(images, found, tell=tell)

    def embed(self, features: np.ndarray) -> np.ndarray:
        """Return the vectors of images from their features; a row of NaN gives one."""
        return features if self.head is None else self.head.embed(features)

    def load(
        self,
        images: Images,
        store: FeatureStore,
        *,
        progress: Progress | None = None,
        tell: bool = True,
        functions: Sequence[FeatureFunction] | None = None,
    ) -> Collection:
        """Return the features of images, by functions of the networks that may be made already."""
        found = _Found(dict(images.problems))
        chunks = self._load(images, store, found, progress, functions)
        features = _gather(chunks, len(images.names))
        self._finish(images, found, tell=tell)
        return Collection(features, found.problems, len(found.computed), found.n_stored)

    def network_functions(self, folder: Path) -> list[FeatureFunction]:
        """Return the function of each network, loaded when it is first called.

        In the folder networks are kept that are written on first use.
        """
        return [_load_late(parts, folder) for parts in self.networks]

    def _load(
        self,
        images: Images,
        store: FeatureStore,
        found: _Found,
        progress: Progress | None,
        functions: Sequence[FeatureFunction] | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, features) of some thousand images at a time, and note what is found."""
        n_images, n_networks = len(images.names), len(self.networks)
        if self.is_given:
            yield 0, self._take_given(images, found)
            return
        progress = progress or no_progress
        functions = functions or self.network_functions(store.folder)
        for start in range(0, max(n_images, 1), ENCODE_PART_IMAGES):
            end = min(start + ENCODE_PART_IMAGES, n_images)
            chunk = images if end - start == n_images else images.take(range(start, end))
            paths, contents = list(chunk.paths), chunk.contents(store)
            of_parts: list[np.ndarray] = []
            for number, (parts, function) in enumerate(zip(self.networks, functions, strict=True)):

                def told(done: int, total: int, at: int = start, before: int = number) -> None:
                    share = (before * total + done) / (n_networks * total)
                    progress(at + int(share * min(ENCODE_PART_IMAGES, n_images - at)), n_images)

                spaces = [part.space for part in parts]
                extracted = extract_features(
                    paths, parts[0].backbone, spaces, store, function, told, self.views, contents
                )
                ends = np.cumsum([part.n_features for part in parts])[:-1]
                of_parts += np.split(extracted.values, ends, axis=1)
                found.computed |= extracted.computed
                for index, why in extracted.problems.items():
                    found.problems[start + index] = why
                    # The next backbone could not read it either.
                    paths[index] = None
            pairs = zip(paths, contents.hashes, strict=True)
            found.usable |= {content for path, content in pairs if path and content}
            yield start, self._join(of_parts)

    def _finish(self, images: Images, found: _Found, *, tell: bool) -> None:
        """Refuse images with problems, or warn of them, and say how many were computed."""
        new = {index: why for index, why in found.problems.items() if index not in images.problems}
        images.refuse(new, FeatureFileError if self.is_given else ImageReadError)
        if not tell:
            return
        if n_bad := len(found.problems):
            placed = place_problems(dict(sorted(found.problems.items())), images.places)
            caution(f"{n_bad:,} images are left out:\n{describe_problems(placed)}", DataWarning)
        if self.is_given:
            logger.info("Features: %s images given.", f"{len(images.names) - n_bad:,}")
            return
        counts = f"{len(found.computed):,}", f"{found.n_stored:,}"
        logger.info("Features: %s images computed, %s from the store.", *counts)

    def _join(self, of_parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features of images from those of each part; a row of NaN stays one."""
        pieces = [
            piece
            for part, features in zip(self.parts, of_parts, strict=True)
            for piece in part.split(features)
        ]
        if len(pieces) == 1:
            return pieces[0]
        joined = np.hstack([scale_to_unit_length(piece) for piece in pieces])
        joined[np.isnan(joined).any(axis=1)] = np.nan
        return joined

    def _take_given(self, images: Images, found: _Found) -> np.ndarray:
        if self.given is None:
            raise FeatureFileError(
                "expected the features of these images from a file, because the model was trained "
                "on such. Give it as `features`."
            )
        features = self.given.take(images.names)
        for index in np.flatnonzero(np.isnan(features[:, 0])).tolist():
            why = f"{images.names[index]}: has no features in {self.given.source}"
            found.problems.setdefault(index, why)
        return features


def _load_late(parts: Sequence[FeaturePart], folder: Path) -> FeatureFunction:
    load = cache(lambda: load_network_function(parts, folder))
    return lambda pixels: load()(pixels)


def _gather(chunks: Iterator[tuple[int, np.ndarray]], n_images: int) -> np.ndarray:
    """Return all chunks as one array; a single one as it is."""
    whole = np.empty((0, 0), np.float32)
    for start, part in chunks:
        if len(part) == n_images:
            whole = part
            continue
        if start == 0:
            whole = np.empty((n_images, part.shape[1]), np.float32)
        whole[start : start + len(part)] = part
    return whole


def open_encoder(
    backbones: Sequence[BackboneLike] = (defaults.BACKBONE,),
    *,
    weights: GivenWeights | None = None,
    views: Sequence[str] = (defaults.VIEWS,),
    size_px: int | None = None,
    depth: str = defaults.DEPTH,
    preprocess: str | None = None,
    backbone_output: str | None = None,
    features: FeaturesLike | None = None,
) -> Encoder:
    """Return what the user named: backbones with their weights, or vectors made elsewhere.

    Args:
        backbones: registered names, ONNX files, functions, each once, or `auto` alone.
        weights: files to use instead of a backbone's own weights.
        views: what the features are averaged over, names of `VIEW_SETS`.
        size_px: side of the images that the backbones take. Defaults to each one's usual.
        depth: where in the backbones features are taken; a key of `DEPTHS`.
        preprocess, backbone_output: of ONNX files; see `open_network_file`.
        features: vectors made elsewhere, instead of all that; see `open_features`.
    """
    if features is not None:
        given = open_features(features)
        return Encoder(given=given, n_given=given.values.shape[1])
    chosen = choose_views(views)
    parts = choose_parts(
        backbones, weights or {}, chosen, size_px, depth, preprocess, backbone_output
    )
    return Encoder(parts, chosen)


def open_recorded_encoder(
    record: EncoderRecord,
    place: Path,
    *,
    weights: GivenWeights | None = None,
    own_weights: Path | None = None,
    features: FeaturesLike | None = None,
    functions: Sequence[FunctionEncoder] = (),
    head: EncoderHead | None = None,
) -> Encoder:
    """Return what a model in a folder was trained on, with its head.

    Args:
        weights: where the user says that weights are now. Defaults to where they were at training,
            then to the backbone's own.
        own_weights: the weights file in the model folder, where the model trained them too.
        features: the vectors of the images that are asked of, for a model that was
            trained on such, or instead of computing them.
        functions: for a model that was trained on such.
    """
    of_vectors = record.features.get("backbone") == FROM_VECTORS
    if of_vectors and features is None:
        return Encoder(n_given=record.n_features, head=head)
    if features is not None:
        given = open_features(features)
        if given.values.shape[1] != record.n_features:
            raise FeatureFileError(
                f"{given.source}: expected vectors of {record.n_features} numbers, as the model "
                f"was trained on, got {given.values.shape[1]}."
            )
        if not of_vectors and given.facts not in (None, record.features):
            raise FeatureFileError(
                f"{given.source}: its features are of another encoder than {place} was trained on."
            )
        return Encoder(given=given, n_given=record.n_features, head=head)
    views: tuple[View, ...] = (ORIGINAL,)
    facts = [record.features]
    if "parts" in record.features:
        facts = record.features["parts"]
        views = tuple(get_view(name) for name in record.features["views"])
    files = record.weights_files if own_weights is None else [str(own_weights)]
    return Encoder(recorded_parts(facts, files, place, weights or {}, functions), views, head=head)
