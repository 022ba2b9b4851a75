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
from tripletkit.errors import BackboneError, SettingsError, ViewError, WeightsError
from tripletkit.features.backbones import (
    AUTO,
    FROM_FILE,
    FROM_FUNCTION,
    Backbone,
    Stage,
    get_backbone,
)
from tripletkit.features.function_encoder import (
    FunctionEncoder,
    open_function,
    recorded_function,
)
from tripletkit.features.hub import PREFIX, HubFile, check_hub_name, find_on_hub, is_hub_name
from tripletkit.features.image_views import View
from tripletkit.features.onnx_files import (
    OnnxFile,
    is_network_file,
    network_sha256,
    open_network_file,
    recorded_network_file,
)
from tripletkit.features.store import FeatureSpace
from tripletkit.features.weights_files import file_sha256
from tripletkit.features.weights_origin import WeightsFile, choose_backbone, find_weights

# The weights of a backbone that a model trained too, in its folder.
BACKBONE_FILE = "backbone.weights.h5"

# Name of a backbone -> the weights file that the user says is its; None stands for the only one.
GivenWeights = Mapping[str | None, Path]

# A registered name, the path of an ONNX file, or a function.
BackboneLike = str | Path | FunctionEncoder


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
        hub: where on the hub the weights are from; None elsewhere.
    """

    backbone: Backbone
    network_facts: dict[str, object]
    find_weights: Callable[[], Path] = field(compare=False)
    given_weights: Path | None = None
    reason: str = ""
    stage: Stage | None = None
    hub: HubFile | None = None

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
    if (preprocess or backbone_output) and not any(
        is_network_file(name) or is_hub_name(name) for name in names
    ):
        raise BackboneError(
            "`preprocess` and `backbone_output` are for encoders from ONNX files; registered "
            "backbones have their own."
        )
    parts: list[FeaturePart] = []
    for backbone, name, file in zip(chosen, names, assign_weights(chosen, weights), strict=True):
        if isinstance(backbone, FunctionEncoder):
            parts.append(_take_function(backbone, size_px, depth))
            continue
        hub = None
        if is_hub_name(name) or is_network_file(name):
            hub = find_on_hub(name) if is_hub_name(name) else None
            file = Path(name) if hub is None else hub.path
            encoder = open_network_file(file, preprocess, backbone_output)
            encoder = encoder if hub is None else replace(encoder, name=hub.name)
            found = WeightsFile(encoder.resized(size_px), file, network_sha256(file))
            _check_views(encoder, views)
        else:
            found = choose_backbone(name, file, size_px)
        stages = stages_at(found.backbone, depth)
        parts += [replace(FeaturePart.of_file(found, file, stage), hub=hub) for stage in stages]
    return tuple(parts)


def _take_function(encoder: FunctionEncoder, size_px: int | None, depth: str) -> FeaturePart:
    backbone = open_function(encoder).resized(size_px)
    stages_at(backbone, depth)
    reason = (
        f"{encoder.name}: a function, which is not kept with a model; give it again to encode "
        "images that are new"
    )
    find = partial(_refuse_weights, encoder.name)
    return FeaturePart(backbone, backbone.facts(), find, reason=reason)


def _refuse_weights(name: str) -> Path:
    raise BackboneError(
        f"{name}: a function runs as it is, it can neither be trained further nor written."
    )


def name_of(backbone: BackboneLike) -> str:
    """Return what an encoder is called."""
    return backbone.name if isinstance(backbone, FunctionEncoder) else str(backbone)


def list_backbones(backbone: BackboneLike | Sequence[BackboneLike]) -> list[BackboneLike]:
    """Return one encoder, or several, as a list."""
    is_one = isinstance(backbone, (str, Path, FunctionEncoder))
    return [backbone] if is_one else list(backbone)


def recorded_parts(
    facts: Sequence[Mapping[str, Any]],
    files: Sequence[str | None],
    place: Path,
    given: GivenWeights,
    functions: Sequence[FunctionEncoder] = (),
) -> tuple[FeaturePart, ...]:
    """Return the parts that a model was trained with, from its record.

    Args:
        facts: of each part.
        files: the weights file of each that was named at training, or None.
        place: the model folder, for messages.
        given: where the user says that weights are now.
        functions: that the user gives, for parts that are such.
    Raises:
        BackboneError: if a backbone is not known, or `given` names one that the model has not.
    """
    backbones = [
        recorded_function(dict(of_part), list(functions))
        if of_part["backbone"] == FROM_FUNCTION
        else _find_recorded_backbone(of_part, file)
        for of_part, file in zip(facts, files, strict=True)
    ]
    given_files = assign_weights([backbone.name for backbone in backbones], given)
    parts = []
    for backbone, of_part, file, now in zip(backbones, facts, files, given_files, strict=True):
        then = None if file is None else Path(file)
        if file is not None and is_hub_name(file):
            then = None
        find = partial(
            _find_recorded_weights,
            backbone,
            of_part.get("weights_sha256"),
            place,
            then,
            now,
            file if file is not None and is_hub_name(file) else None,
        )
        of_network = {key: fact for key, fact in of_part.items() if key != "stage"}
        stage = _find_recorded_stage(backbone, of_part)
        parts.append(FeaturePart(backbone, of_network, find, then, stage=stage))
    return tuple(parts)


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


def check_backbone_names(chosen: Sequence[BackboneLike]) -> None:
    """Refuse names of backbones that cannot stand side by side.

    Raises:
        BackboneError: if one is unknown, twice there, or `auto` beside another.
    """
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
    """Return the given weights file of each backbone, None where there is none.

    Raises:
        SettingsError: if a file is for none of them, or it is not said for which.
    """
    names = [name_of(backbone) for backbone in chosen]
    if given and AUTO in names:
        raise SettingsError(
            "weights",
            "`weights` needs `backbone`, the network that they are for, not `backbone=auto`.",
        )
    if None in given and len(set(names)) > 1:
        raise SettingsError(
            "weights",
            f"`weights={given[None]}`: expected NAME=FILE where there are several backbones "
            f"({', '.join(names)}), got a file alone.",
        )
    for name, file in given.items():
        if name is not None and name not in names:
            raise SettingsError(
                "weights",
                f"`weights={name}={file}`: expected a backbone among {', '.join(names)}.",
            )
        note_input(file)
    return [given.get(name, given.get(None)) for name in names]


# Name of a depth -> (with the last features, with those of the earlier stages).
DEPTHS = dict(zip(defaults.DEPTHS, ((True, False), (False, True), (True, True)), strict=True))


def stages_at(backbone: Backbone, depth: str) -> tuple[Stage | None, ...]:
    """Return what is taken of a network at a depth; None stands for its last features.

    Args:
        depth: a key of `DEPTHS`.
    Raises:
        BackboneError: if there is no such depth, or the network names no stages.
    """
    if depth not in DEPTHS:
        raise BackboneError(f'expected a depth among {", ".join(DEPTHS)}, got "{depth}"')
    with_last, with_early = DEPTHS[depth]
    if with_early and not backbone.stages:
        raise BackboneError(
            f"{backbone.name}: names no stages, so that it has features of depth last alone, "
            f"got depth {depth}."
        )
    return (None,) * with_last + backbone.stages * with_early


def _check_views(encoder: OnnxFile, views: Sequence[View]) -> None:
    how = encoder.preprocessing
    is_cut = how.shortest_edge_px is not None or how.square_px is not None
    if is_cut and any(view.place for view in views):
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
        name = Path(file or FROM_FILE).name
        if file is not None and is_hub_name(file):
            name = f"{PREFIX}{check_hub_name(file)['repo']}"
        return recorded_network_file(facts, name)
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
    backbone: Backbone,
    sha256: str | None,
    place: Path,
    then: Path | None,
    now: Path | None,
    on_hub: str | None = None,
) -> Path:
    """Return the weights file of a backbone that a model was trained with.

    Args:
        sha256: of the file, hexadecimal.
        place: the model folder.
        then: the file that was named at training; None for the backbone's own.
        now: the file that is named now.
        on_hub: where on the hub it was from.
    Raises:
        BackboneError: if it cannot be had.
        WeightsError: if what is there now has other weights.
    """
    if sha256 is None:
        return _refuse_weights(backbone.name)
    if now is None and then is not None and not then.is_file():
        raise BackboneError(
            f"{place}: was trained with the weights file {then}, which is gone. "
            f"Say where it is now with `weights={backbone.name}=FILE`."
        )
    if on_hub is not None and now is None:
        path = find_on_hub(on_hub).path
    else:
        path = now or then or find_weights(backbone)
    hash_file = network_sha256 if isinstance(backbone, OnnxFile) else file_sha256
    if (got := hash_file(path)) != sha256:
        raise WeightsError(
            f"{path}: expected the weights that {place} was trained with (sha256 "
            f"{sha256[:12]}...), got others ({got[:12]}...). Give the right file with "
            f"`weights={backbone.name}=FILE`."
        )
    return path
