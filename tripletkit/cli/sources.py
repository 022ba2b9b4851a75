"""What every command does that takes backbones, their weights, and views of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.console import say
from tripletkit.errors import BackboneError, ViewError

if TYPE_CHECKING:
    from tripletkit.features.sources import FeatureSource, GivenWeights


class _Weights(click.ParamType):
    """`FILE`, or `NAME=FILE` where NAME is a backbone."""

    name = "weights"
    _file = click.Path(exists=True, dir_okay=False, path_type=Path)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str | None, Path]:
        from tripletkit.features.backbones import BACKBONES

        if isinstance(value, tuple):
            return value
        backbone, is_named, file = value.partition("=")
        if not is_named or backbone not in BACKBONES:
            backbone, file = None, value
        return backbone, self._file.convert(file, param, context)


def _gather_weights(
    _context: click.Context, _option: click.Parameter, given: Sequence[tuple[str | None, Path]]
) -> GivenWeights:
    weights: dict[str | None, Path] = {}
    for backbone, file in given:
        if backbone in weights:
            which = f"of {backbone} " if backbone else ""
            raise click.BadParameter(
                f"expected one weights file {which}, got {weights[backbone]} and {file}. "
                "Say which backbone each is for: NAME=FILE."
            )
        weights[backbone] = file
    return weights


def _read_backbones(
    _context: click.Context, _option: click.Parameter, names: str | None
) -> list[str] | None:
    from tripletkit.features.sources import check_backbone_names

    if names is None:
        return None
    chosen = [name.strip() for name in names.split(",")]
    try:
        check_backbone_names(chosen)
    except BackboneError as error:
        raise click.BadParameter(str(error)) from error
    return chosen


def _read_views(
    _context: click.Context, _option: click.Parameter, names: str | None
) -> list[str] | None:
    from tripletkit.features.image_views import choose_views

    if names is None:
        return None
    chosen = [name.strip() for name in names.split(",")]
    try:
        choose_views(chosen)
    except ViewError as error:
        raise click.BadParameter(str(error)) from error
    return chosen


weights_option = click.option(
    "--weights",
    type=_Weights(),
    multiple=True,
    callback=_gather_weights,
    metavar="[NAME=]FILE",
    help="Weights file of the backbone, instead of its own ImageNet weights; of several "
    "backbones NAME=FILE, once for each.",
)


def backbone_option(help_text: str, **attributes: Any) -> Any:
    """Return the option `--backbone` of a command, for one name or several."""
    return click.option(
        "--backbone",
        callback=_read_backbones,
        metavar="NAME[,NAME...]",
        help=help_text,
        **attributes,
    )


views_option = click.option(
    "--views",
    callback=_read_views,
    metavar="NAME[,NAME...]",
    help="Views of each image to average the features over (test-time augmentation): "
    "original; flip: with its mirror image; five-crop: corners and center; ten-crop: these and "
    f"their mirror images. Each view costs a pass of the backbone, once.  "
    f"[default: {defaults.VIEWS}]",
)


def check_weights(backbones: Sequence[str], weights: GivenWeights) -> None:
    """Refuse weights that are for none of the backbones as a wrong call."""
    from tripletkit.features.sources import assign_weights

    try:
        assign_weights(backbones, weights)
    except BackboneError as error:
        raise click.UsageError(str(error)) from error


def choose_features(
    backbones: Sequence[str],
    weights: GivenWeights,
    views: Sequence[str] | None,
    size_px: int | None = None,
) -> FeatureSource:
    """Return what features are to be of, and say why where `auto` chose."""
    from tripletkit.features.image_views import choose_views
    from tripletkit.features.sources import choose_source

    source = choose_source(backbones, weights, choose_views(views or [defaults.VIEWS]), size_px)
    for part in source.parts:
        if part.reason:
            say(f"Backbone {part.reason}.")
    return source
