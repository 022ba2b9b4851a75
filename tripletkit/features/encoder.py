"""What turns images into vectors that can be compared.

One backbone that sees the whole image gives its features as they are. Several views of an
image are averaged. Of several backbones, each one's features are scaled to length 1 and all
stand side by side, so that none drowns the others. Vectors made elsewhere are taken as they are.
Behind any of these may stand the head of a trained model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import Images, place_problems
from tripletkit.data.outputs import note_input
from tripletkit.errors import (
    BackboneError,
    DataWarning,
    FeatureFileError,
    ImageReadError,
    SettingsError,
    WeightsError,
    caution,
    describe_problems,
)
from tripletkit.features.backbones import (
    ALWAYS_THERE,
    AUTO,
    FROM_FILE,
    FROM_FUNCTION,
    FROM_VECTORS,
    Backbone,
    FeatureFunction,
    KerasDownload,
    Stage,
    get_backbone,
)
from tripletkit.features.extract import (
    ORIGINAL,
    Collection,
    View,
    choose_views,
    extract_features,
    get_view,
)
from tripletkit.features.feature_parts import FeaturePart, load_network_function
from tripletkit.features.function_encoder import FunctionEncoder, open_function, recorded_function
from tripletkit.features.given_features import FeaturesLike, GivenFeatures, open_features
from tripletkit.features.onnx_files import (
    check_network_name,
    find_network,
    is_network_name,
    open_network,
    recorded_network,
)
from tripletkit.features.store import FeatureSpace, FeatureStore
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.progress import Progress, no_progress

# Images whose features are in memory at a time: 84 MB of 2,560 numbers.
ENCODE_PART_IMAGES = 8192

# The weights of a backbone that a model trained too, in its folder.
BACKBONE_FILE = "backbone.weights.h5"

# Name of a backbone -> the weights file that the user says is its; None stands for the only one.
GivenWeights = Mapping[str | None, Path]

# A registered name, the path of an ONNX file, a name on the hub, or a function.
BackboneLike = str | Path | FunctionEncoder

# What `auto` takes where it can.
_PREFERRED = "resnet50"
# Name of a depth -> (with the last features, with those of the earlier stages).
_DEPTHS = dict(zip(defaults.DEPTHS, ((True, False), (False, True), (True, True)), strict=True))

logger = logging.getLogger("tripletkit")


class EncoderHead(NamedTuple):
    """The trained head behind features."""

    distance: str  # by which embeddings are compared
    sha256: Callable[[], str]  # of all that decides it
    embed: Callable[[np.ndarray], np.ndarray]  # (n, n_features) -> (n, n_dims), both float32


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
    def pixel_inputs(self) -> dict[tuple[int, str], str]:
        """What a network's inputs are called, by (side in pixels, filter): `pixels` for a single
        form, else like `pixels_224px_bilinear`."""
        forms = dict.fromkeys(
            (view.resized_px(part.backbone.input_size_px), part.backbone.preprocessing.resample)
            for part in self.parts
            for view in self.views
        )
        if len(forms) == 1:
            return dict.fromkeys(forms, "pixels")
        return {(side, resample): f"pixels_{side}px_{resample}" for side, resample in forms}

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
        """What decides the features; of vectors made elsewhere only their length is known."""
        if self.is_given:
            return {"backbone": FROM_VECTORS, "n_features": self.n_given}
        if self.is_plain:
            return self.parts[0].facts
        return {
            "parts": [part.facts for part in self.parts],
            "views": [view.name for view in self.views],
        }

    @property
    def weights_files(self) -> list[str | None]:
        """What a model's record says of each part's weights; see `FeaturePart.origin`."""
        return [part.origin for part in self.parts]

    @property
    def distance(self) -> str:
        """The distance that belongs to the vectors."""
        return defaults.FROZEN_DISTANCE if self.head is None else self.head.distance

    @property
    def fingerprint(self) -> str:
        """One text that is another wherever vectors would be others."""
        if self.head is not None:
            return f"model {self.head.sha256()}"
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
        """Return `(n_images, n_dims)` float32, in the order of the names, all readable ones stored.

        A bad image is an error, or a row of NaN if `images` leave bad ones out.
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
        found = Collection(dict(images.problems))
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
        found = Collection(dict(images.problems))
        chunks = self._load(images, store, found, progress, functions)
        found.features = _gather(chunks, len(images.names))
        self._finish(images, found, tell=tell)
        return found

    def network_functions(self, folder: Path) -> list[FeatureFunction]:
        """Return the function of each network; those written on first use are kept in a folder."""
        return [load_network_function(parts, folder) for parts in self.networks]

    def _load(
        self,
        images: Images,
        store: FeatureStore,
        found: Collection,
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
                of_parts += np.split(extracted.features, ends, axis=1)
                found.computed |= extracted.computed
                for index, why in extracted.problems.items():
                    found.problems[start + index] = why
                    # The next backbone could not read it either.
                    paths[index] = None
            found.there |= extracted.there
            yield start, self._join(of_parts)

    def _finish(self, images: Images, found: Collection, *, tell: bool) -> None:
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
        counts = f"{found.n_computed:,}", f"{found.n_stored:,}"
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

    def _take_given(self, images: Images, found: Collection) -> np.ndarray:
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

    `views` are names of `VIEW_SETS`; `open_network` says what `preprocess` and `backbone_output`
    are, `open_features` what `features` may be.
    """
    if features is not None:
        given = open_features(features)
        return Encoder(given=given, n_given=given.values.shape[1])
    chosen = choose_views(views)
    check_backbone_names(backbones)
    names = [name_of(backbone) for backbone in backbones]
    if (preprocess or backbone_output) and not any(map(is_network_name, names)):
        raise SettingsError(
            "preprocess" if preprocess else "backbone_output",
            "`preprocess` and `backbone_output` are for encoders from ONNX files; registered "
            "backbones have their own.",
        )
    parts: list[FeaturePart] = []
    files = assign_weights(backbones, weights or {})
    for backbone, name, file in zip(backbones, names, files, strict=True):
        if isinstance(backbone, FunctionEncoder):
            part = _take_function(backbone)
        elif is_network_name(name):
            part = FeaturePart.of_file(*open_network(name, preprocess, backbone_output))
            _check_views(part.backbone, chosen)
        else:
            part = _take_registered(name, file, size_px)
        part.backbone.resized(size_px)
        parts += [replace(part, stage=stage) for stage in _stages_at(part.backbone, depth)]
    return Encoder(tuple(parts), chosen)


def check_backbone_names(chosen: Sequence[BackboneLike]) -> None:
    """Refuse names of backbones that are unknown, twice there, or `auto` beside another."""
    names = [name_of(backbone) for backbone in chosen]
    for backbone, name in zip(chosen, names, strict=True):
        if isinstance(backbone, FunctionEncoder):
            pass
        elif is_network_name(name):
            check_network_name(name)
        elif name != AUTO:
            get_backbone(name)
        elif len(names) > 1:
            raise BackboneError(f'"{AUTO}" chooses one backbone; name each of several.')
        if names.count(name) > 1:
            raise BackboneError(f'"{name}" is there twice; each backbone counts once.')


def name_of(backbone: BackboneLike) -> str:
    """Return what an encoder is called."""
    return backbone.name if isinstance(backbone, FunctionEncoder) else str(backbone)


def list_backbones(backbone: BackboneLike | Sequence[BackboneLike]) -> list[BackboneLike]:
    """Return one encoder, or several, as a list."""
    if isinstance(backbone, (str, Path, FunctionEncoder)):
        return [backbone]
    return list(backbone)


def assign_weights(chosen: Sequence[BackboneLike], given: GivenWeights) -> list[Path | None]:
    """Return the given weights file of each backbone, None where there is none."""
    names = [name_of(backbone) for backbone in chosen]
    problem = None
    if given and AUTO in names:
        problem = "`weights` needs `backbone`, the network that they are for, not `backbone=auto`."
    elif None in given and len(set(names)) > 1:
        problem = (
            f"`weights={given[None]}`: expected NAME=FILE where there are several backbones "
            f"({', '.join(names)}), got a file alone."
        )
    elif unknown := [name for name in given if name is not None and name not in names]:
        problem = (
            f"`weights={unknown[0]}={given[unknown[0]]}`: expected a backbone among "
            f"{', '.join(names)}."
        )
    if problem is not None:
        raise SettingsError("weights", problem)
    for file in given.values():
        note_input(file)
    return [given.get(name, given.get(None)) for name in names]


def _take_function(encoder: FunctionEncoder) -> FeaturePart:
    backbone = open_function(encoder)
    reason = (
        f"{encoder.name}: a function, which is not kept with a model; give it again to encode "
        "images that are new"
    )
    return FeaturePart(backbone, backbone.facts(), partial(_refuse, encoder.name), reason=reason)


def _refuse(name: str) -> Path:
    raise BackboneError(
        f"{name}: a function runs as it is, it can neither be trained further nor written."
    )


def _take_registered(name: str, weights: Path | None, size_px: int | None) -> FeaturePart:
    """Return a registered backbone; `auto` is resnet50 if its weights can be had, else
    efficientnet-lite0."""
    if name != AUTO:
        backbone = get_backbone(name).resized(size_px)
        origin = None if weights is None else str(weights.absolute())
        return FeaturePart.of_file(backbone, weights or backbone.find_weights(), origin)
    backbone = get_backbone(_PREFERRED)
    assert isinstance(backbone.weights, KerasDownload)
    try:
        path = backbone.weights.fetch(_PREFERRED)
        reason = f"{_PREFERRED}: its ImageNet weights are at hand"
    except BackboneError as error:
        backbone = get_backbone(ALWAYS_THERE)
        path = backbone.find_weights()
        reason = f"{ALWAYS_THERE}: {error}"
    return FeaturePart.of_file(backbone.resized(size_px), path, reason=reason)


def _stages_at(backbone: Backbone, depth: str) -> tuple[Stage | None, ...]:
    """Return what is taken of a network at a depth; None stands for its last features."""
    if depth not in _DEPTHS:
        raise BackboneError(f'expected a depth among {", ".join(_DEPTHS)}, got "{depth}"')
    with_last, with_early = _DEPTHS[depth]
    if with_early and not backbone.stages:
        raise BackboneError(
            f"{backbone.name}: names no stages, so that it has features of depth last alone, "
            f"got depth {depth}."
        )
    return (None,) * with_last + backbone.stages * with_early


def _check_views(encoder: Backbone, views: Sequence[View]) -> None:
    if encoder.preprocessing.cut_from_px is not None and any(view.place for view in views):
        raise SettingsError(
            "views",
            f"{encoder.name}: expected views of the whole image or its mirror image, because its "
            "preprocessing cuts the middle itself; got crops.",
        )


def open_recorded_encoder(
    facts: Mapping[str, Any],
    weights_files: Sequence[str | None],
    n_features: int,
    place: Path,
    *,
    weights: GivenWeights | None = None,
    features: FeaturesLike | None = None,
    functions: Sequence[FunctionEncoder] = (),
    head: EncoderHead | None = None,
) -> Encoder:
    """Return what a model in a folder was trained on, with its head, as its record says.

    `weights` are where the user says that those are now; `features` are given instead of computed.
    """
    of_vectors = facts.get("backbone") == FROM_VECTORS
    if of_vectors and features is None:
        return Encoder(n_given=n_features, head=head)
    if features is not None:
        given = open_features(features)
        if given.values.shape[1] != n_features:
            raise FeatureFileError(
                f"{given.source}: expected vectors of {n_features} numbers, as the model "
                f"was trained on, got {given.values.shape[1]}."
            )
        if not of_vectors and given.facts not in (None, facts):
            raise FeatureFileError(
                f"{given.source}: its features are of another encoder than {place} was trained on."
            )
        return Encoder(given=given, n_given=n_features, head=head)
    views: tuple[View, ...] = (ORIGINAL,)
    of_parts: Sequence[Mapping[str, Any]] = [facts]
    if "parts" in facts:
        of_parts = facts["parts"]
        views = tuple(get_view(name) for name in facts["views"])
    backbones = [
        _recorded_backbone(of_part, origin, functions)
        for of_part, origin in zip(of_parts, weights_files, strict=True)
    ]
    files = assign_weights([backbone.name for backbone in backbones], weights or {})
    parts = []
    for backbone, of_part, origin, file in zip(
        backbones, of_parts, weights_files, files, strict=True
    ):
        find = partial(_find_recorded, backbone, of_part.get("weights_sha256"), place, origin, file)
        of_network = {key: fact for key, fact in of_part.items() if key != "stage"}
        stage = _recorded_stage(backbone, of_part)
        parts.append(FeaturePart(backbone, of_network, find, origin, stage=stage))
    return Encoder(tuple(parts), views, head=head)


def _recorded_backbone(
    facts: Mapping[str, Any], origin: str | None, functions: Sequence[FunctionEncoder]
) -> Backbone:
    if facts["backbone"] == FROM_FUNCTION:
        return recorded_function(facts, functions)
    if facts["backbone"] == FROM_FILE:
        return recorded_network(facts, origin)
    return get_backbone(facts["backbone"]).resized(facts["input_size_px"])


def _recorded_stage(backbone: Backbone, facts: Mapping[str, Any]) -> Stage | None:
    if "stage" not in facts:
        return None
    layer = facts["stage"]["layer"]
    stages = {stage.layer: stage for stage in backbone.stages}
    if layer not in stages:
        raise BackboneError(
            f'{backbone.name}: expected a stage among {[*stages]}, got "{layer}". Update '
            "tripletkit."
        )
    return stages[layer]


def _find_recorded(
    backbone: Backbone, sha256: str | None, place: Path, origin: str | None, given: Path | None
) -> Path:
    """Return the weights file of a backbone that the model at a place was trained with."""
    if sha256 is None:
        return _refuse(backbone.name)
    if given is not None:
        path = given
    elif origin is None:
        path = backbone.find_weights()
    elif not (path := find_network(origin)).is_file():
        raise BackboneError(
            f"{place}: was trained with the weights file {path}, which is gone. "
            f"Say where it is now with `weights={backbone.name}=FILE`."
        )
    if (got := backbone.hash_weights(path)) != sha256:
        raise WeightsError(
            f"{path}: expected the weights that {place} was trained with (sha256 "
            f"{sha256[:12]}...), got others ({got[:12]}...). Give the right file with "
            f"`weights={backbone.name}=FILE`."
        )
    return path
