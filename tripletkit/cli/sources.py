"""What every command does that takes backbones, their weights, and views of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit import defaults
from tripletkit.cli.console import say
from tripletkit.cli.options import group_options
from tripletkit.errors import BackboneError, ViewError

if TYPE_CHECKING:
    from tripletkit.features.encoder import Encoder
    from tripletkit.features.feature_parts import GivenWeights


class _Weights(click.ParamType):
    """`FILE`, or `NAME=FILE` where NAME is a backbone."""

    name = "weights"
    _file = click.Path(exists=True, dir_okay=False, path_type=Path)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str | None, Path]:
        from tripletkit.features.backbones import BACKBONES
        from tripletkit.features.onnx_files import is_network_file

        if isinstance(value, tuple):
            return value
        backbone, is_named, file = value.partition("=")
        if not is_named or not (backbone in BACKBONES or is_network_file(backbone)):
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


def _read_names(check: str) -> Callable[..., list[str] | None]:
    """Return a callback that takes names between commas, and refuses what a function refuses.

    Args:
        check: `"module:function"` of the names, loaded on use.
    """

    def read(_context: click.Context, _option: click.Parameter, names: str | None) -> Any:
        from tripletkit.registry import load_object

        if names is None:
            return None
        chosen = [name.strip() for name in names.split(",")]
        try:
            load_object(check)(chosen)
        except (BackboneError, ViewError) as error:
            raise click.BadParameter(str(error)) from error
        return chosen

    return read


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
        callback=_read_names("tripletkit.features.feature_parts:check_backbone_names"),
        shell_complete=lambda *given: _complete_backbones(given[-1]),
        metavar="NAME|FILE.onnx[,...]",
        help=help_text,
        **attributes,
    )


def _complete_backbones(incomplete: str) -> list[str]:
    """Return what the last name of a list may become; files are left to the shell."""
    from tripletkit.features.backbones import AUTO, BACKBONES

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in (AUTO, *BACKBONES) if name.startswith(last)]


views_option = click.option(
    "--views",
    callback=_read_names("tripletkit.features.image_views:choose_views"),
    metavar="NAME[,NAME...]",
    help="Views of each image to average the features over (test-time augmentation): "
    "original; flip: with its mirror image; five-crop: corners and center; ten-crop: these and "
    f"their mirror images. Each view costs a pass of the backbone, once.  "
    f"[default: {defaults.VIEWS}]",
)


def _remember(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Keep an option's value for `choose_features`, so that commands need not hand it on."""
    context.meta[f"{_REMEMBERED}{option.name}"] = value
    return value


_REMEMBERED = "tripletkit.encoder."
# How features are taken, for every command that takes a backbone.
encoder_detail_options = group_options(
    click.option(
        "--depth",
        type=click.Choice(defaults.DEPTHS),
        default=defaults.DEPTH,
        show_default=True,
        expose_value=False,
        callback=_remember,
        help="Features of the backbone's end; of earlier stages, mean and deviation over their "
        "maps; or all of them, side by side.",
    ),
    click.option(
        "--preprocess",
        metavar="KEY=VALUE,...",
        expose_value=False,
        callback=_remember,
        help="What images go through before a --backbone FILE.onnx, such as size=224,"
        "resample=bicubic,mean=0.5,std=0.5,crop=224.  [default: preprocessor_config.json beside "
        "it]",
    ),
    click.option(
        "--backbone-output",
        metavar="NAME[:cls|:mean]",
        expose_value=False,
        callback=_remember,
        help="Output of a --backbone FILE.onnx to take as features, such as "
        "last_hidden_state:mean; needed where several could be meant.",
    ),
)


features_option = click.option(
    "--features",
    type=click.Path(exists=True, path_type=Path),
    expose_value=False,
    callback=_remember,
    metavar="FILE",
    help="Vectors made elsewhere, instead of a backbone's features: .npz with the arrays names "
    "and features, or .parquet with a column name. train, embed and classify need no IMAGES then.",
)


def given_features() -> Path | None:
    """Return the file that the current command was given with `--features`."""
    return click.get_current_context().meta.get(f"{_REMEMBERED}features")


def encoder_details() -> dict[str, Any]:
    """Return depth, preprocessing and output of encoders, as the current command was given them."""
    return {
        key.removeprefix(_REMEMBERED): value
        for key, value in click.get_current_context().meta.items()
        if key.startswith(_REMEMBERED) and key != f"{_REMEMBERED}features"
    }


def need_images(images: Path | None) -> None:
    """Refuse a command without an image folder, unless features are given.

    Raises:
        click.UsageError: if it needs one.
    """
    if images is None and given_features() is None:
        raise click.UsageError("Missing argument 'IMAGES'.")


def check_weights(backbones: Sequence[str], weights: GivenWeights) -> None:
    """Refuse weights that are for none of the backbones as a wrong call."""
    from tripletkit.features.feature_parts import assign_weights

    try:
        assign_weights(backbones, weights)
    except BackboneError as error:
        raise click.UsageError(str(error)) from error


def choose_features(
    backbones: Sequence[str], weights: GivenWeights, views: Sequence[str] | None
) -> Encoder:
    """Return what features are to be of, and say why where `auto` chose."""
    from tripletkit.features.encoder import open_encoder

    if (features := given_features()) is not None:
        _check_given(weights, views)
    encoder = open_encoder(
        backbones,
        weights=weights,
        views=views or [defaults.VIEWS],
        features=features,
        **encoder_details(),
    )
    for part in encoder.parts:
        if part.reason:
            say(f"Backbone {part.reason}.")
    return encoder


def _check_given(weights: GivenWeights, views: Sequence[str] | None) -> None:
    context = click.get_current_context()
    details = ("backbone", "depth", "preprocess", "backbone_output")
    chosen = [
        name
        for name in details
        if context.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)
    ]
    if chosen or weights or views:
        raise click.UsageError(
            "--features are taken as they are; leave out --backbone, --weights, --views and what "
            "else is about computing features."
        )
