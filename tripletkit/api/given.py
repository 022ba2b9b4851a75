"""What the public functions take: files, tables, arrays, or what they themselves return."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

import numpy as np

from tripletkit.data.judgements import JudgementsLike
from tripletkit.data.labels import LabelsLike as LabelsLike
from tripletkit.evaluation.answers import Answers

if TYPE_CHECKING:
    from typing_extensions import TypeIs

PathLike = str | os.PathLike[str]
TripletsLike = JudgementsLike
AnswersLike = PathLike | BinaryIO | Answers | np.ndarray | Sequence[int]
WeightsLike = PathLike | Mapping[str, PathLike] | Mapping[str | None, PathLike]


class EncoderOptions(TypedDict, total=False):
    """How the features of a backbone are taken; see `tripletkit.pretrained`."""

    weights: WeightsLike | None
    views: Sequence[str]
    image_size: int | None
    depth: str
    preprocess: str | None
    backbone_output: str | None


def is_path(value: Any) -> TypeIs[PathLike]:
    """Return whether a value names a file or a folder."""
    return isinstance(value, (str, os.PathLike))


def take_encoder_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide keyword arguments into how the features of a backbone are taken, and all others."""
    taken = {name: each for name, each in options.items() if name in EncoderOptions.__annotations__}
    others = {name: each for name, each in options.items() if name not in taken}
    if "weights" in taken:
        taken["weights"] = given_weights(taken["weights"])
    if "views" in taken:
        taken["views"] = tuple(taken["views"])
    return taken, others


def as_path(given: PathLike | None) -> Path | None:
    """Return the path that is given, if one is."""
    return None if given is None else Path(given)


def given_weights(weights: WeightsLike | None) -> dict[str | None, Path]:
    """Return name of a backbone -> weights file; None stands for the only one."""
    if isinstance(weights, Mapping):
        return {name: Path(file) for name, file in weights.items()}
    return {} if weights is None else {None: Path(weights)}
