"""What every command does that turns a folder of images into embeddings or features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.options import group_options
from tripletkit.cli.sources import (
    backbone_option,
    check_weights,
    choose_features,
    encoder_detail_options,
    features_option,
    given_features,
    need_images,
    views_option,
    weights_option,
)
from tripletkit.errors import ImageReadError

if TYPE_CHECKING:
    from tripletkit.data.images import Images
    from tripletkit.features.encoder import Encoder
    from tripletkit.features.feature_parts import GivenWeights


def _make_encoder_options(model_default: str, backbone_default: str) -> Callable:
    return group_options(
        click.option(
            "--model",
            type=click.Path(path_type=Path),
            help=f"Model folder that `tripletkit train` wrote.{model_default}",
        ),
        click.option(
            "--frozen",
            "as_features",
            is_flag=True,
            help="Take the frozen features that the model was trained on, without its head.",
        ),
        backbone_option(
            "Take the features of this backbone, or of several, without any model; `auto` as in "
            f"training.{backbone_default}"
        ),
        weights_option,
        views_option,
        encoder_detail_options,
        features_option,
    )


# What `choose_encoder` takes, where a model is taken by default or the pretrained backbone.
encoder_options = _make_encoder_options(f"  [default: {defaults.MODEL_FOLDER}]", "")
pretrained_encoder_options = _make_encoder_options("", f"  [default: {defaults.BACKBONE}]")


def choose_encoder(
    model: Path | None,
    as_features: bool,
    backbone: Sequence[str] | None,
    weights: GivenWeights,
    views: Sequence[str] | None,
) -> Encoder:
    """Return what the options name, and prepare TensorFlow for it."""
    from tripletkit.model.model_folder import load_model

    if backbone is not None:
        if model is not None:
            raise click.UsageError("--backbone needs no --model; give one of them.")
        check_weights(backbone, weights)
        return choose_features(backbone, weights, views)
    if as_features and model is None and given_features() is not None:
        return choose_features([], weights, views)
    if views is not None:
        raise click.UsageError("--views needs --backbone; a model has the views of its training.")
    folder = load_model(model or Path(defaults.MODEL_FOLDER))
    encoder = folder.open_encoder(weights, given_features())
    return encoder.frozen if as_features else encoder


def find_images(folder: Path | None, *, skip_bad: bool, follow_outside: bool) -> Images:
    """Find all images below a folder, in the order of their names; all of `--features` without.

    Raises:
        ImageNameError: if there is none.
    """
    need_images(folder)
    if folder is None:
        from tripletkit.features.given_features import read_features

        return read_features(given_features()).images
    from tripletkit.data.images import open_images

    return open_images(folder, skip_bad=skip_bad, follow_outside=follow_outside)


def find_queries(queries: tuple[Path, ...]) -> Images:
    """Take image files as they are named, and all images of folders."""
    from tripletkit.data.folder import list_images
    from tripletkit.data.images import open_images

    paths: list[Path] = []
    for query in queries:
        inside = [query / name for name in list_images(query)] if query.is_dir() else [query]
        if not inside:
            raise ImageReadError(f"--query {query}: expected images, there is none in it")
        paths += inside
    paths = list(dict.fromkeys(paths))
    return open_images(paths, places=["--query"] * len(paths), skip_bad=True)
