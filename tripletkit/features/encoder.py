"""What turns images into vectors that can be compared.

One backbone that sees the whole image gives its features as they are. Several views of an
image are averaged. Of several backbones, each one's features are scaled to length 1 and all
stand side by side, so that none drowns the others. Vectors made elsewhere are taken as they are.
Behind any of these may stand the head of a trained model.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.folder import place_problems
from tripletkit.data.images import Images
from tripletkit.errors import (
    DataWarning,
    FeatureFileError,
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
from tripletkit.features.store import FeatureSpace, Store
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.progress import Progress, no_progress

# Images whose features are in memory at a time: 84 MB of 2,560 numbers.
ENCODE_PART_IMAGES = 8192

logger = logging.getLogger("tripletkit")

# Takes the parts of a network, and the folder beside which it is kept once it was written.
NetworkLoader = Callable[[Sequence[FeaturePart], Path], FeatureFunction]


@dataclass(frozen=True)
class EncoderRecord:
    """What a model's record says of the encoder that it was trained on.

    Attributes:
        features: what decides the features of an image; see `Encoder.facts`.
        weights_files: the weights file of each part that the user named, absolute; None for its
            own.
        n_features: numbers of an image.
    """

    features: Mapping[str, Any]
    weights_files: Sequence[str | None]
    n_features: int


@dataclass(frozen=True)
class EncoderHead:
    """The trained head behind features.

    Attributes:
        distance: by which embeddings are compared.
        sha256: of all that decides it, hexadecimal.
        embed: `(n_images, n_features)` -> `(n_images, n_dims)`, both float32.
    """

    distance: str
    sha256: str
    embed: Callable[[np.ndarray], np.ndarray]


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
        files = [
            part.hub.recorded
            if part.hub
            else part.given_weights and str(part.given_weights.absolute())
            for part in self.parts
        ]
        return EncoderRecord(dict(self.facts), files, self.n_features)

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
        store: Store,
        *,
        progress: Progress | None = None,
        tell: bool = True,
    ) -> np.ndarray:
        """Return the vectors of images.

        Args:
            images: from `open_images`.
            store: where features are kept.
            progress: told (done, total) in images, of each backbone anew.
            tell: say how many were computed, and warn of what is left out.
        Returns:
            `(n_images, n_dims)` float32, in the order of the names; a row of NaN where an image is
            missing or broken.
        Raises:
            ImageReadError: if an image cannot be read, unless `images` leave bad ones out. All
                readable ones are in the store by then.
            FeatureFileError: if an image has no vector among those made elsewhere.
        """
        collection = self.load(images, store, progress=progress)
        if tell:
            self.tell(collection, images)
        return self.embed(collection.features)

    def encode_in_chunks(
        self,
        images: Images,
        store: Store,
        *,
        progress: Progress | None = None,
        tell: bool = True,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, vectors) of some thousand images at a time; see `encode`."""
        n_images = len(images.names)
        # Vectors made elsewhere are in memory as a whole anyway.
        size = n_images if self.is_given else ENCODE_PART_IMAGES
        progress = progress or no_progress
        problems: dict[int, str] = {}
        n_computed = n_stored = 0
        for start in range(0, n_images, max(size, 1)):
            end = min(start + size, n_images)
            chunk = images if end - start == n_images else images.take(range(start, end))

            def told(done: int, total: int, end: int = end) -> None:
                progress(end - total + done, n_images)

            loaded = self.load(chunk, store, progress=told)
            problems |= {start + index: why for index, why in loaded.problems.items()}
            n_computed += loaded.n_computed
            n_stored += loaded.n_stored
            yield start, self.embed(loaded.features)
        if tell:
            none = np.empty((0, 1), np.float32)
            self.tell(Collection(none, problems, n_computed, n_stored), images)

    def embed(self, features: np.ndarray) -> np.ndarray:
        """Return the vectors of images from their features.

        Args:
            features: `(n_images, n_features)` float32; a row of NaN gives one.
        Returns:
            `(n_images, n_dims)` float32.
        """
        return features if self.head is None else self.head.embed(features)

    def load(
        self,
        images: Images,
        store: Store,
        *,
        progress: Progress | None = None,
        load_network: NetworkLoader = load_network_function,
    ) -> Collection:
        """Return the features of images, from the store or the backbones; see `encode`.

        Args:
            load_network: makes the function of a network where something has to be computed.
        """
        if self.is_given:
            return self._take_given(images)
        paths, contents = list(images.paths), images.contents(store)
        problems: dict[int, str] = {}
        computed: set[bytes] = set()
        of_parts: list[np.ndarray] = []
        for parts in self.networks:
            extracted = extract_features(
                paths,
                parts[0].backbone,
                [part.space for part in parts],
                store,
                partial(load_network, parts, store.folder),
                progress,
                self.views,
                contents,
            )
            ends = np.cumsum([part.n_features for part in parts])[:-1]
            of_parts += np.split(extracted.values, ends, axis=1)
            computed |= extracted.computed
            problems |= extracted.problems
            for index in extracted.problems:
                # The next backbone could not read it either.
                paths[index] = None
        images.refuse(problems)
        usable = {
            content
            for path, content in zip(paths, contents.hashes, strict=True)
            if path is not None and content is not None
        }
        return Collection(
            self._join(of_parts),
            images.problems | problems,
            len(computed),
            len(usable - computed),
        )

    def tell(self, collection: Collection, images: Images) -> None:
        """Say how many images' features were computed and stored, and warn of what is left out."""
        if n_bad := len(collection.problems):
            placed = place_problems(dict(sorted(collection.problems.items())), images.places)
            warnings.warn(
                f"{n_bad:,} images are left out:\n{describe_problems(placed)}",
                DataWarning,
                stacklevel=4,
            )
        if self.is_given:
            logger.info("Features: %s images given.", f"{len(images.names) - n_bad:,}")
            return
        logger.info(
            "Features: %s images computed, %s from the store.",
            f"{collection.n_computed:,}",
            f"{collection.n_stored:,}",
        )

    def _join(self, of_parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features of images from those of each backbone.

        Args:
            of_parts: `(n_images, n_features of the part)` float32 for each part; a row of NaN
                where an image has none.
        """
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

    def _take_given(self, images: Images) -> Collection:
        if self.given is None:
            raise FeatureFileError(
                "expected the features of these images from a file, because the model was trained "
                "on such. Give it as `features`."
            )
        features = self.given.take(images.names)
        problems = {
            index: f"{images.names[index]}: has no features in {self.given.source}"
            for index in np.flatnonzero(np.isnan(features[:, 0])).tolist()
            if index not in images.problems
        }
        images.refuse(problems, FeatureFileError)
        return Collection(features, images.problems | problems, 0)


@dataclass(frozen=True)
class Collection:
    """Features of named images.

    Attributes:
        features: `(n_images, n_features)` float32, in the order of the names; NaN where an
            image is missing or broken.
        problems: index of an image -> what is wrong with it, for those.
        n_computed: images that a backbone had to look at; two names of one content are one image.
        n_stored: images whose features were in the store.
    """

    features: np.ndarray
    problems: dict[int, str]
    n_computed: int
    n_stored: int = 0

    def is_usable(self) -> np.ndarray:
        """Return `(n_images,)` bool: the image has features."""
        return np.isfinite(self.features[:, 0])


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
        backbones: registered names, paths of ONNX files, functions, each once, or `auto` alone,
            which takes the best that can be had.
        weights: files to use instead of a backbone's own weights.
        views: names of what the features are averaged over; see `VIEW_SETS`.
        size_px: side of the images that the backbones take. Defaults to each one's usual.
        depth: where in the backbones features are taken; a key of `DEPTHS`.
        preprocess, backbone_output: of ONNX files; see `open_network_file`.
        features: vectors made elsewhere, instead of all that; see `open_features`.
    Raises:
        BackboneError: if a name is unknown, has no such depth, or its weights can neither be
            found nor downloaded.
        WeightsError: if a given file cannot be read.
        NetworkFileError, PreprocessingError: if an ONNX file cannot be run, or it is not clear
            how.
        ViewError: if a view is unknown, or an encoder does not take it.
        FeatureFileError: if vectors cannot be read.
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
    """Return what a model was trained on, with its head.

    Args:
        record: what it was.
        place: the model folder, for messages.
        weights: where the user says that weights are now. Defaults to where they were at training,
            then to the backbone's own.
        own_weights: the weights file in the model folder, where the model trained them too.
        features: the vectors of the images that are asked of, for a model that was
            trained on such, or instead of computing them.
        functions: for a model that was trained on such.
        head: what the model adds.
    Raises:
        BackboneError: if a backbone is not known, or weights are given for another.
        ViewError: if a view is not known.
        FeatureFileError: if vectors cannot be read, or have another width.
    """
    if features is not None or record.features.get("backbone") == FROM_VECTORS:
        given = None if features is None else open_features(features)
        if given is not None and given.values.shape[1] != record.n_features:
            raise FeatureFileError(
                f"{given.source}: expected vectors of {record.n_features} numbers, as the model "
                f"was trained on, got {given.values.shape[1]}."
            )
        if given is not None and given.facts is not None:
            is_same = record.features.get("backbone") == FROM_VECTORS
            if not is_same and given.facts != record.features:
                raise FeatureFileError(
                    f"{given.source}: its features are of another encoder than {place} was "
                    "trained on."
                )
        return Encoder(given=given, n_given=record.n_features, head=head)
    views, facts = (ORIGINAL,), [record.features]
    if "parts" in record.features:
        facts = record.features["parts"]
        views = tuple(get_view(name) for name in record.features["views"])
    files = record.weights_files if own_weights is None else [str(own_weights)]
    return Encoder(recorded_parts(facts, files, place, weights or {}, functions), views, head=head)


def open_collection(
    images: Images,
    encoder: Encoder,
    store: Store,
    *,
    progress: Progress | None = None,
) -> Collection:
    """Load the features of images, and say how many were computed; see `Encoder.load`."""
    collection = encoder.load(images, store, progress=progress)
    encoder.tell(collection, images)
    return collection
