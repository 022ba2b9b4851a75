"""What every command does that turns a folder of pictures into codes or features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import prepare_tensorflow, say
from tripletkit.cli.options import group_options
from tripletkit.errors import ImageNameError, ImageReadError

if TYPE_CHECKING:
    from tripletkit.features.collection import NamedFiles
    from tripletkit.search.encoders import Encoder

# What `choose_encoder` takes.
encoder_options = group_options(
    click.option(
        "--model",
        type=click.Path(path_type=Path),
        help=f"Model folder that `tripletkit train` wrote.  [default: {defaults.MODEL_FOLDER}]",
    ),
    click.option(
        "--features",
        "as_features",
        is_flag=True,
        help="Take the features of the model's backbone, as if nothing had been trained.",
    ),
    click.option(
        "--backbone",
        help="Take the features of this backbone, without any model; `auto` as in training.",
    ),
)


def choose_encoder(
    model: Path | None, as_features: bool, backbone: str | None, weights: Path | None
) -> Encoder:
    """Return what the options name, and prepare TensorFlow for it."""
    from tripletkit.features.weights_origin import choose_backbone
    from tripletkit.model.artifact import load_model
    from tripletkit.search.encoders import Encoder

    if backbone is not None:
        if model is not None:
            raise click.UsageError("--backbone needs no --model; give one of them.")
        prepare_tensorflow()
        chosen = choose_backbone(backbone, weights)
        if chosen.reason:
            say(f"Backbone {chosen.reason}.")
        return Encoder.of_backbone(chosen)
    folder = load_model(model or Path(defaults.MODEL_FOLDER))
    prepare_tensorflow()
    return (Encoder.of_features if as_features else Encoder.of_model)(folder, weights)


def find_pictures(folder: Path, *, skip_bad: bool, follow_outside: bool) -> NamedFiles:
    """Find all pictures below a folder, in the order of their names.

    Raises:
        ImageNameError: if there is none.
    """
    from tripletkit.data.folder import list_images
    from tripletkit.features.collection import find_files

    names = list_images(folder)
    if not names:
        raise ImageNameError(f"{folder}: expected a folder of pictures, there is none in it")
    return find_files(
        names, [str(folder)] * len(names), folder, skip_bad=skip_bad, follow_outside=follow_outside
    )


def find_queries(queries: tuple[Path, ...]) -> NamedFiles:
    """Take picture files as they are named, and all pictures of folders."""
    from tripletkit.data.folder import list_images
    from tripletkit.features.collection import NamedFiles

    paths: list[Path] = []
    for query in queries:
        inside = [query / name for name in list_images(query)] if query.is_dir() else [query]
        if not inside:
            raise ImageReadError(f"--query {query}: expected pictures, there is none in it")
        paths += inside
    paths = list(dict.fromkeys(paths))
    return NamedFiles([str(path) for path in paths], ["--query"] * len(paths), paths, {})
