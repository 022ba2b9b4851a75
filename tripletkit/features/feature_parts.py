"""Parts of what images are turned into features by: a backbone with its weights, at a depth.

Chosen by name when features are first asked for, or found again from the record of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.data.outputs import note_input
from tripletkit.errors import BackboneError, SettingsError, WeightsError
from tripletkit.features.backbones import (
    AUTO,
    FROM_FILE,
    FROM_FUNCTION,
    Backbone,
    KerasDownload,
    Stage,
    get_backbone,
)
from tripletkit.features.function_encoder import (
    FunctionEncoder,
    open_function,
    recorded_function,
)
from tripletkit.features.hub import PREFIX, check_hub_name, find_on_hub, is_hub_name
from tripletkit.features.image_views import View
from tripletkit.features.onnx_files import (
    OnnxFile,
    is_network_file,
    network_sha256,
    open_network_file,
    recorded_network_file,
)
from tripletkit.features.store import FeatureSpace
from tripletkit.features.weights_files import (
    ALWAYS_THERE,
    fetch_weights,
    file_sha256,
    find_weights,
)

# The weights of a backbone that a model trained too, in its folder.
BACKBONE_FILE = "backbone.weights.h5"

# Name of a backbone -> the weights file that the user says is its; None stands for the only one.
GivenWeights = Mapping[str | None, Path]

# A registered name, the path of an ONNX file, or a function.
BackboneLike = str | Path | FunctionEncoder

# What `auto` takes where it can.
_PREFERRED = "resnet50"
# Name of a depth -> (with the last features, with those of the earlier stages).
_DEPTHS = dict(zip(defaults.DEPTHS, ((True, False), (False, True), (True, True)), strict=True))


@dataclass(frozen=True)
class FeaturePart:
    """One backbone with certain weights, at one of its depths.

    Attributes:
        network_facts: what decides all that it computes of a whole image.
        find_weights: returns the weights file; called only if something has to be computed, so
            that answering from the store needs no weights.
        origin: what a model's record says of the weights: the path of the file that the user
            named, absolute, or a name on the hub; None for the backbone's own.
        reason: why `auto` took this backbone, or what to know of it; empty for nothing.
        stage: whose mean and standard deviation are taken; None for the last features.
    """

    backbone: Backbone
    network_facts: dict[str, object]
    find_weights: Callable[[], Path] = field(compare=False)
    origin: str | None = None
    reason: str = ""
    stage: Stage | None = None

    @classmethod
    def of_file(
        cls, backbone: Backbone, path: Path, origin: str | None = None, reason: str = ""
    ) -> FeaturePart:
        """Return a backbone whose weights are at hand."""
        facts = {**backbone.facts(), "weights_sha256": _hash_weights(backbone, path)}
        return cls(backbone, facts, partial(Path, path), origin, reason)

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


def choose_parts(
    chosen: Sequence[BackboneLike],
    weights: GivenWeights,
    views: Sequence[View],
    size_px: int | None,
    depth: str,
    preprocess: str | None,
    backbone_output: str | None,
) -> tuple[FeaturePart, ...]:
    """Return the named backbones with their weights; see `open_encoder`."""
    check_backbone_names(chosen)
    names = [name_of(backbone) for backbone in chosen]
    if not any(_is_network(name) for name in names) and (preprocess or backbone_output):
        raise SettingsError(
            "preprocess" if preprocess else "backbone_output",
            "`preprocess` and `backbone_output` are for encoders from ONNX files; registered "
            "backbones have their own.",
        )
    parts: list[FeaturePart] = []
    for backbone, name, file in zip(chosen, names, assign_weights(chosen, weights), strict=True):
        if isinstance(backbone, FunctionEncoder):
            part = _take_function(backbone)
        elif _is_network(name):
            part = _take_network(name, preprocess, backbone_output)
            _check_views(part.backbone, views)
        else:
            part = choose_backbone(name, file, size_px)
        part.backbone.resized(size_px)
        parts += [replace(part, stage=stage) for stage in _stages_at(part.backbone, depth)]
    return tuple(parts)


def choose_backbone(
    name: str, weights: Path | None = None, size_px: int | None = None
) -> FeaturePart:
    """Return a registered backbone with the weights file that is given, or its own.

    `auto` takes resnet50 where its weights can be had, else efficientnet-lite0.
    """
    if name != AUTO:
        backbone = get_backbone(name).resized(size_px)
        origin = None if weights is None else str(weights.absolute())
        return FeaturePart.of_file(backbone, weights or find_weights(backbone), origin)
    backbone = get_backbone(_PREFERRED)
    assert isinstance(backbone.weights, KerasDownload)
    try:
        path = fetch_weights(_PREFERRED, backbone.weights)
        reason = f"{_PREFERRED}: its ImageNet weights are at hand"
    except BackboneError as error:
        backbone = get_backbone(ALWAYS_THERE)
        path = find_weights(backbone)
        reason = f"{ALWAYS_THERE}: {error}"
    return FeaturePart.of_file(backbone.resized(size_px), path, reason=reason)


def _take_network(name: str, preprocess: str | None, output: str | None) -> FeaturePart:
    """Return the encoder of an ONNX file, given by its path or by its name on the hub."""
    if not is_hub_name(name):
        path = Path(name)
        encoder = open_network_file(path, preprocess, output)
        return FeaturePart.of_file(encoder, path, str(path.absolute()))
    found = find_on_hub(name)
    encoder = replace(open_network_file(found.path, preprocess, output), name=found.name)
    return FeaturePart.of_file(encoder, found.path, found.recorded)


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


def _is_network(name: str) -> bool:
    return is_hub_name(name) or is_network_file(name)


def name_of(backbone: BackboneLike) -> str:
    """Return what an encoder is called."""
    return backbone.name if isinstance(backbone, FunctionEncoder) else str(backbone)


def list_backbones(backbone: BackboneLike | Sequence[BackboneLike]) -> list[BackboneLike]:
    """Return one encoder, or several, as a list."""
    if isinstance(backbone, (str, Path, FunctionEncoder)):
        return [backbone]
    return list(backbone)


def recorded_parts(
    facts: Sequence[Mapping[str, Any]],
    origins: Sequence[str | None],
    place: Path,
    given: GivenWeights,
    functions: Sequence[FunctionEncoder] = (),
) -> tuple[FeaturePart, ...]:
    """Return the parts that a model was trained with; see `open_recorded_encoder`."""
    backbones = [
        _recorded_backbone(of_part, origin, functions)
        for of_part, origin in zip(facts, origins, strict=True)
    ]
    files = assign_weights([backbone.name for backbone in backbones], given)
    parts = []
    for backbone, of_part, origin, file in zip(backbones, facts, origins, files, strict=True):
        sha256 = of_part.get("weights_sha256")
        find = partial(_find_recorded, backbone, sha256, place, origin, file)
        of_network = {key: fact for key, fact in of_part.items() if key != "stage"}
        stage = _recorded_stage(backbone, of_part)
        parts.append(FeaturePart(backbone, of_network, find, origin, stage=stage))
    return tuple(parts)


def pixel_inputs(
    backbones: Sequence[Backbone], views: Sequence[View]
) -> dict[tuple[int, str], str]:
    """Return in which forms backbones and views need an image, and what inputs are called.

    That is (side in pixels, filter that resizes) -> name: `pixels` for a single form, else like
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


def check_backbone_names(chosen: Sequence[BackboneLike]) -> None:
    """Refuse names of backbones that are unknown, twice there, or `auto` beside another."""
    names = [name_of(backbone) for backbone in chosen]
    for backbone, name in zip(chosen, names, strict=True):
        if isinstance(backbone, FunctionEncoder):
            pass
        elif is_hub_name(name):
            check_hub_name(name)
        elif is_network_file(name):
            if not Path(name).is_file():
                raise BackboneError(f"{name}: expected an ONNX file, there is none.")
        elif name != AUTO:
            get_backbone(name)
        elif len(names) > 1:
            raise BackboneError(f'"{AUTO}" chooses one backbone; name each of several.')
        if names.count(name) > 1:
            raise BackboneError(f'"{name}" is there twice; each backbone counts once.')


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


def _recorded_backbone(
    facts: Mapping[str, Any], origin: str | None, functions: Sequence[FunctionEncoder]
) -> Backbone:
    if facts["backbone"] == FROM_FUNCTION:
        return recorded_function(facts, functions)
    if facts["backbone"] != FROM_FILE:
        return get_backbone(facts["backbone"]).resized(facts["input_size_px"])
    if origin is not None and is_hub_name(origin):
        return recorded_network_file(facts, f"{PREFIX}{check_hub_name(origin)['repo']}")
    return recorded_network_file(facts, Path(origin or FROM_FILE).name)


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
        path = find_weights(backbone)
    elif is_hub_name(origin):
        path = find_on_hub(origin).path
    elif not (path := Path(origin)).is_file():
        raise BackboneError(
            f"{place}: was trained with the weights file {path}, which is gone. "
            f"Say where it is now with `weights={backbone.name}=FILE`."
        )
    if (got := _hash_weights(backbone, path)) != sha256:
        raise WeightsError(
            f"{path}: expected the weights that {place} was trained with (sha256 "
            f"{sha256[:12]}...), got others ({got[:12]}...). Give the right file with "
            f"`weights={backbone.name}=FILE`."
        )
    return path


def _hash_weights(backbone: Backbone, path: Path) -> str:
    return network_sha256(path) if isinstance(backbone, OnnxFile) else file_sha256(path)
