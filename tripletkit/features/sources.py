"""What images are turned into features by: backbones with their weights, and views.

One backbone that sees the whole image gives its features as they are. Several views of an
image are averaged. Of several backbones, each one's features are scaled to length 1 and all
stand side by side, so that none drowns the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit.errors import BackboneError, WeightsError
from tripletkit.features.backbones import AUTO, Backbone, get_backbone
from tripletkit.features.image_views import ORIGINAL, View, get_view
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
    """One backbone with certain weights.

    Attributes:
        facts: what decides its features of a whole image.
        find_weights: returns the weights file; called only if something has to be computed, so
            that answering from the store needs no weights.
        given_weights: the file that the user named; None for the backbone's own.
        reason: why `auto` took this backbone; empty where the user chose it.
    """

    backbone: Backbone
    facts: dict[str, object]
    find_weights: Callable[[], Path] = field(compare=False)
    given_weights: Path | None = None
    reason: str = ""

    @classmethod
    def of_file(cls, chosen: WeightsFile, given_weights: Path | None = None) -> FeaturePart:
        """Return a backbone whose weights are at hand."""
        find = partial(Path, chosen.path)
        return cls(chosen.backbone, chosen.facts(), find, given_weights, chosen.reason)

    @property
    def space(self) -> FeatureSpace:
        return FeatureSpace(self.facts, self.backbone.n_features)


@dataclass(frozen=True)
class FeatureSource:
    """What an image's features are of.

    Attributes:
        parts: backbones, in the order of their columns.
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
            get_backbone(of_part["backbone"]).resized(of_part["input_size_px"]) for of_part in facts
        ]
        parts = []
        for backbone, of_part, file, now in zip(
            backbones,
            facts,
            files,
            assign_weights([backbone.name for backbone in backbones], given or {}),
            strict=True,
        ):
            then = file and Path(file)
            find = partial(
                _find_recorded_weights, backbone, of_part["weights_sha256"], place, then, now
            )
            parts.append(FeaturePart(backbone, of_part, find, then))
        return cls(tuple(parts), views)

    @property
    def is_plain(self) -> bool:
        """Whether it is one backbone that sees the whole image, and its features as they are."""
        return len(self.parts) == 1 and self.views == (ORIGINAL,)

    @property
    def n_features(self) -> int:
        return sum(part.backbone.n_features for part in self.parts)

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
        if len(self.parts) == 1:
            return of_parts[0]
        joined = np.hstack([scale_to_unit_length(features) for features in of_parts])
        joined[np.isnan(joined).any(axis=1)] = np.nan
        return joined


def choose_source(
    names: Sequence[str],
    weights: GivenWeights | None = None,
    views: Sequence[View] = (ORIGINAL,),
    size_px: int | None = None,
) -> FeatureSource:
    """Return the named backbones with their weights; `auto` takes the best that can be had.

    Args:
        names: registered names, each once, or `auto` alone.
        weights: files to use instead of a backbone's own weights.
        views: what the features are averaged over.
        size_px: side of the images that the backbones take. Defaults to each one's usual.
    Raises:
        BackboneError: if a name is unknown, or its weights can neither be found nor
            downloaded.
        WeightsError: if a given file cannot be read.
    """
    check_backbone_names(names)
    given = assign_weights(names, weights or {})
    parts = [
        FeaturePart.of_file(choose_backbone(name, file, size_px), file)
        for name, file in zip(names, given, strict=True)
    ]
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
        if name != AUTO:
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
            "--weights needs --backbone, the network that they are for, not --backbone auto."
        )
    if None in given and len(names) > 1:
        raise BackboneError(
            f"--weights {given[None]}: expected NAME=FILE where there are several backbones "
            f"({', '.join(names)}), got a file alone."
        )
    for name in given:
        if name is not None and name not in names:
            raise BackboneError(
                f"--weights {name}={given[name]}: expected a backbone among {', '.join(names)}."
            )
    return [given.get(name, given.get(None)) for name in names]


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
            f"Say where it is now with --weights {backbone.name}=FILE."
        )
    path = now or then or find_weights(backbone)
    if (got := file_sha256(path)) != sha256:
        raise WeightsError(
            f"{path}: expected the weights that {place} was trained with (sha256 "
            f"{sha256[:12]}...), got others ({got[:12]}...). Give the right file with "
            f"--weights {backbone.name}=FILE."
        )
    return path
