"""What images are turned into features by: backbones with their weights, and views.

One backbone that sees the whole image gives its features as they are. Several views of an
image are averaged. Of several backbones, each one's features are scaled to length 1 and all
stand side by side, so that none drowns the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit.errors import BackboneError, ViewError, WeightsError
from tripletkit.features.backbones import AUTO, FROM_FILE, Backbone, Stage, get_backbone
from tripletkit.features.image_views import ORIGINAL, View, get_view
from tripletkit.features.onnx_files import (
    OnnxFile,
    is_network_file,
    network_sha256,
    open_network_file,
    recorded_network_file,
)
from tripletkit.features.stage_outputs import stages_at
from tripletkit.features.store import FeatureSpace
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.features.weights_files import file_sha256
from tripletkit.features.weights_origin import WeightsFile, choose_backbone, find_weights

# The weights of a backbone that a model trained too, in its folder.
BACKBONE_FILE = "backbone.weights.h5"

# Name of a backbone -> the weights file that the user says is its; None stands for the only one.
GivenWeights = Mapping[str | None, Path]


@dataclass(frozen=True)
class FeaturePart:
    """One backbone with certain weights, at one of its depths.

    Attributes:
        network_facts: what decides all that it computes of a whole image.
        find_weights: returns the weights file; called only if something has to be computed, so
            that answering from the store needs no weights.
        given_weights: the file that the user named; None for the backbone's own.
        reason: why `auto` took this backbone; empty where the user chose it.
        stage: whose mean and standard deviation are taken; None for the last features.
    """

    backbone: Backbone
    network_facts: dict[str, object]
    find_weights: Callable[[], Path] = field(compare=False)
    given_weights: Path | None = None
    reason: str = ""
    stage: Stage | None = None

    @classmethod
    def of_file(
        cls, chosen: WeightsFile, given_weights: Path | None = None, stage: Stage | None = None
    ) -> FeaturePart:
        """Return a backbone whose weights are at hand."""
        find = partial(Path, chosen.path)
        return cls(chosen.backbone, chosen.facts(), find, given_weights, chosen.reason, stage)

    @property
    def n_features(self) -> int:
        return self.backbone.n_features if self.stage is None else self.stage.n_features

    @property
    def facts(self) -> dict[str, object]:
        """What decides its features of a whole image."""
        if self.stage is None:
            return self.network_facts
        stage = {"layer": self.stage.layer, "statistics": "mean, deviation"}
        return {**self.network_facts, "stage": stage}

    @property
    def space(self) -> FeatureSpace:
        return FeatureSpace(self.facts, self.n_features)

    def split(self, features: np.ndarray) -> list[np.ndarray]:
        """Return what is to count alike of its features: all of them, or means and deviations."""
        return [features] if self.stage is None else np.split(features, 2, axis=1)


@dataclass(frozen=True)
class FeatureSource:
    """What an image's features are of.

    Attributes:
        parts: backbones, in the order of their columns; several depths of one follow each other.
        views: what each one's features are averaged over.
    """

    parts: tuple[FeaturePart, ...]
    views: tuple[View, ...] = (ORIGINAL,)

    @classmethod
    def of_record(
        cls,
        features: Mapping[str, Any],
        files: Sequence[str | None],
        place: Path,
        own: Path | None = None,
        given: GivenWeights | None = None,
    ) -> FeatureSource:
        """Return what a model was trained with, from its record.

        Args:
            features: what `facts` was.
            files: the weights file of each backbone that was named at training, or None.
            place: the model folder, for messages.
            own: the weights file in it, where the model trained them too.
            given: where the user says that weights are now.
        Raises:
            BackboneError: if a backbone is not known, or `given` names one that the model has
                not.
            ViewError: if a view is not known.
        """
        views, facts = (ORIGINAL,), [features]
        if "parts" in features:
            facts = features["parts"]
            views = tuple(get_view(name) for name in features["views"])
        if own is not None:
            files = [str(own)]
        backbones = [
            _find_recorded_backbone(of_part, file)
            for of_part, file in zip(facts, files, strict=True)
        ]
        stages = [
            _find_recorded_stage(backbone, of_part)
            for backbone, of_part in zip(backbones, facts, strict=True)
        ]
        parts = []
        for backbone, stage, of_part, file, now in zip(
            backbones,
            stages,
            facts,
            files,
            assign_weights([backbone.name for backbone in backbones], given or {}),
            strict=True,
        ):
            then = file and Path(file)
            find = partial(
                _find_recorded_weights, backbone, of_part["weights_sha256"], place, then, now
            )
            of_network = {key: fact for key, fact in of_part.items() if key != "stage"}
            parts.append(FeaturePart(backbone, of_network, find, then, stage=stage))
        return cls(tuple(parts), views)

    @property
    def is_plain(self) -> bool:
        """Whether it is one backbone that sees the whole image, and its features as they are."""
        is_one = len(self.parts) == 1 and self.parts[0].stage is None
        return is_one and self.views == (ORIGINAL,)

    @property
    def n_features(self) -> int:
        return sum(part.n_features for part in self.parts)

    @property
    def networks(self) -> list[tuple[FeaturePart, ...]]:
        """The parts of each network, which one pass computes together."""
        by_network = groupby(self.parts, lambda part: part.network_facts)
        return [tuple(parts) for _, parts in by_network]

    @property
    def columns(self) -> dict[str, slice]:
        """Which features come from what, as in `resnet50` or `resnet50:conv3_block4_out`."""
        names = [
            part.backbone.name + (f":{part.stage.layer}" if part.stage else "")
            for part in self.parts
        ]
        ends = np.cumsum([part.n_features for part in self.parts]).tolist()
        return dict(zip(names, map(slice, [0, *ends], ends), strict=False))

    @property
    def facts(self) -> dict[str, object]:
        """What decides the features of an image."""
        if self.is_plain:
            return self.parts[0].facts
        return {
            "parts": [part.facts for part in self.parts],
            "views": [view.name for view in self.views],
        }

    @property
    def fingerprint(self) -> str:
        """One text that is another wherever features would be others."""
        return FeatureSpace(self.facts, self.n_features).fingerprint

    @property
    def weights_files(self) -> list[str | None]:
        """The weights file of each part that the user named, absolute; None for its own."""
        return [part.given_weights and str(part.given_weights.absolute()) for part in self.parts]

    def join(self, of_parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features of images from those of each backbone.

        Args:
            of_parts: `(n_images, n_features of the part)` float32 for each part; a row of NaN
                where an image has none.
        Returns:
            `(n_images, n_features)` float32; a row of NaN where any part has none.
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


def choose_source(
    names: Sequence[str],
    weights: GivenWeights | None = None,
    views: Sequence[View] = (ORIGINAL,),
    size_px: int | None = None,
    depth: str = "last",
    preprocess: str | None = None,
    backbone_output: str | None = None,
) -> FeatureSource:
    """Return the named backbones with their weights; `auto` takes the best that can be had.

    Args:
        names: registered names or paths of ONNX files, each once, or `auto` alone.
        weights: files to use instead of a backbone's own weights.
        views: what the features are averaged over.
        size_px: side of the images that the backbones take. Defaults to each one's usual.
        depth: where in the backbones features are taken; a key of `DEPTHS`.
        preprocess, backbone_output: of ONNX files; see `open_network_file`.
    Raises:
        BackboneError: if a name is unknown, has no such depth, or its weights can neither be
            found nor downloaded.
        WeightsError: if a given file cannot be read.
        NetworkFileError, PreprocessingError: if an ONNX file cannot be run, or it is not clear
            how.
        ViewError: if an encoder does not take such views.
    """
    check_backbone_names(names)
    if (preprocess or backbone_output) and not any(map(is_network_file, names)):
        raise BackboneError(
            "`preprocess` and `backbone_output` are for encoders from ONNX files; registered "
            "backbones have their own."
        )
    given = assign_weights(names, weights or {})
    parts = []
    for name, file in zip(names, given, strict=True):
        if is_network_file(name):
            file = Path(name)
            encoder = open_network_file(file, preprocess, backbone_output)
            chosen = WeightsFile(encoder.resized(size_px), file, network_sha256(file))
            _check_views(encoder, views)
        else:
            chosen = choose_backbone(name, file, size_px)
        stages = stages_at(chosen.backbone, depth)
        parts += [FeaturePart.of_file(chosen, file, stage) for stage in stages]
    return FeatureSource(tuple(parts), tuple(views))


def pixel_inputs(
    backbones: Sequence[Backbone], views: Sequence[View]
) -> dict[tuple[int, str], str]:
    """Return in which forms backbones and views need an image, and what inputs are called.

    Returns:
        (side in pixels, filter that resizes) -> name: `pixels` for a single form, else like
        `pixels_224px_bilinear`.
    """
    forms = dict.fromkeys(
        (view.resized_px(backbone.input_size_px), backbone.preprocessing.resample)
        for backbone in backbones
        for view in views
    )
    if len(forms) == 1:
        return dict.fromkeys(forms, "pixels")
    return {(side, resample): f"pixels_{side}px_{resample}" for side, resample in forms}


def check_backbone_names(names: Sequence[str]) -> None:
    """Refuse names of backbones that cannot stand side by side.

    Raises:
        BackboneError: if one is unknown, twice there, or `auto` beside another.
    """
    for name in names:
        if is_network_file(name):
            if not Path(name).is_file():
                raise BackboneError(f"{name}: expected an ONNX file, there is none.")
        elif name != AUTO:
            get_backbone(name)
        elif len(names) > 1:
            raise BackboneError(f'"{AUTO}" chooses one backbone; name each of several.')
        if names.count(name) > 1:
            raise BackboneError(f'"{name}" is there twice; each backbone counts once.')


def assign_weights(names: Sequence[str], given: GivenWeights) -> list[Path | None]:
    """Return the given weights file of each backbone, None where there is none.

    Raises:
        BackboneError: if a file is for none of them, or it is not said for which.
    """
    if given and AUTO in names:
        raise BackboneError(
            "`weights` needs `backbone`, the network that they are for, not `backbone=auto`."
        )
    if None in given and len(set(names)) > 1:
        raise BackboneError(
            f"`weights={given[None]}`: expected NAME=FILE where there are several backbones "
            f"({', '.join(names)}), got a file alone."
        )
    for name in given:
        if name is not None and name not in names:
            raise BackboneError(
                f"`weights={name}={given[name]}`: expected a backbone among {', '.join(names)}."
            )
    return [given.get(name, given.get(None)) for name in names]


def _check_views(encoder: OnnxFile, views: Sequence[View]) -> None:
    if encoder.preprocessing.shortest_edge_px is not None and any(view.place for view in views):
        raise ViewError(
            f"{encoder.name}: expected views of the whole image or its mirror image, because its "
            "preprocessing cuts the middle itself; got crops."
        )


def _find_recorded_backbone(facts: Mapping[str, Any], file: str | None) -> Backbone:
    """Return the backbone that facts of a part name.

    Args:
        file: the weights file, or the ONNX file, that was named at training.
    Raises:
        BackboneError: if it is not known.
    """
    if facts["backbone"] == FROM_FILE:
        return recorded_network_file(facts, Path(file or FROM_FILE).name)
    return get_backbone(facts["backbone"]).resized(facts["input_size_px"])


def _find_recorded_stage(backbone: Backbone, facts: Mapping[str, Any]) -> Stage | None:
    """Return the stage that facts of a part name, None for the last features.

    Raises:
        BackboneError: if the backbone has no such stage any more.
    """
    if "stage" not in facts:
        return None
    layer = facts["stage"]["layer"]
    for stage in backbone.stages:
        if stage.layer == layer:
            return stage
    raise BackboneError(
        f"{backbone.name}: expected a stage among {[stage.layer for stage in backbone.stages]}, "
        f'got "{layer}". Update tripletkit.'
    )


def _find_recorded_weights(
    backbone: Backbone, sha256: str, place: Path, then: Path | None, now: Path | None
) -> Path:
    """Return the weights file of a backbone that a model was trained with.

    Args:
        sha256: of the file, hexadecimal.
        place: the model folder.
        then: the file that was named at training; None for the backbone's own.
        now: the file that is named now.
    Raises:
        BackboneError: if it cannot be had.
        WeightsError: if what is there now has other weights.
    """
    if now is None and then is not None and not then.is_file():
        raise BackboneError(
            f"{place}: was trained with the weights file {then}, which is gone. "
            f"Say where it is now with `weights={backbone.name}=FILE`."
        )
    path = now or then or find_weights(backbone)
    hash_file = network_sha256 if isinstance(backbone, OnnxFile) else file_sha256
    if (got := hash_file(path)) != sha256:
        raise WeightsError(
            f"{path}: expected the weights that {place} was trained with (sha256 "
            f"{sha256[:12]}...), got others ({got[:12]}...). Give the right file with "
            f"`weights={backbone.name}=FILE`."
        )
    return path
