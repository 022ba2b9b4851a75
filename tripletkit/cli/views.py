"""Options of the commands that look at a trained model, and what they open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tripletkit.cli.console import progress_bar
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    cache_option,
    follow_outside_option,
    force_option,
    group_options,
    input_source,
    on_bad_image_option,
)
from tripletkit.cli.sources import features_option, given_features, weights_option

if TYPE_CHECKING:
    from tripletkit.data.outputs import Outputs
    from tripletkit.features.feature_parts import GivenWeights
    from tripletkit.model.model_folder import ModelFolder
    from tripletkit.reporting.model_view import ModelView

# What `open_model_views` takes.
view_options = group_options(
    click.option(
        "--triplets",
        type=INPUT_FILE,
        help="Triplets whose answers are known.  [default: those of the training]",
    ),
    click.option(
        "--truth",
        type=INPUT_FILE,
        help="Truth of --triplets, where their second and third images are in chance order.",
    ),
    click.option(
        "--images",
        type=INPUT_FOLDER,
        help="Folder of the images.  [default: the one used in training]",
    ),
    click.option(
        "--labels",
        type=INPUT_FILE,
        help="CSV with the columns name and label, for the map and the confusion matrix.",
    ),
    click.option(
        "--projection",
        type=click.Choice(["pca", "umap"]),
        default="pca",
        show_default=True,
        help="How the map of embeddings is made; umap needs tripletkit[map].",
    ),
    weights_option,
    features_option,
    on_bad_image_option,
    follow_outside_option,
    cache_option,
    force_option,
)


def make_outputs(
    models: list[ModelFolder], *, images: Path | None, force: bool, **view_settings: Any
) -> Outputs:
    """Return what may be written by a command that takes `view_options`."""
    from tripletkit.data.outputs import Outputs

    inputs = [view_settings[name] for name in ("triplets", "truth", "labels")]
    inputs += view_settings["weights"].values()
    inputs += [path for model in models for path in model.record.inputs.paths()]
    folders = [images or model.image_folder for model in models]
    return Outputs(inputs, image_folders=folders, overwrite=force)


def open_model_views(
    models: list[ModelFolder],
    *,
    triplets: Path | None,
    truth: Path | None,
    images: Path | None,
    labels: Path | None,
    weights: GivenWeights,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
) -> list[ModelView]:
    """Open what the options name; see `open_views`."""
    from tripletkit.reporting.model_view import open_views

    with progress_bar("features", "image") as progress:
        return open_views(
            models,
            triplets=triplets and input_source(triplets),
            truth=truth and input_source(truth),
            images=images,
            labels=labels and input_source(labels),
            weights=weights,
            features=given_features(),
            skip_bad=on_bad_image == "skip",
            follow_outside=follow_outside,
            cache=cache,
            progress=progress,
        )
