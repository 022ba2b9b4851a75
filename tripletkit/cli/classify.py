"""`tripletkit classify`: how well embeddings tell the classes of held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import progress_bar, say, show_json, show_text, warn
from tripletkit.cli.encoders import choose_encoder, encoder_options
from tripletkit.cli.options import (
    INPUT_FOLDER,
    LABELS,
    OUTPUT_FILE,
    FiniteRange,
    WholeRange,
    cache_option,
    follow_outside_option,
    force_option,
    input_source,
    json_option,
    on_bad_image_option,
    quiet_option,
    seed_option,
)

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@click.argument("labels", type=LABELS)
@click.argument("images", type=INPUT_FOLDER, required=False)
@encoder_options
@click.option(
    "--held-out",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="The images to classify: a folder inside IMAGES, a CSV (name,label), a triplet file, "
    "or a text of one name a line. All others are the reference.",
)
@click.option(
    "--fraction",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    help="Share of each class to hold out where --held-out is not given.  "
    f"[default: {defaults.VAL_FRACTION}]",
)
@click.option(
    "-k",
    type=WholeRange(1),
    default=defaults.NEIGHBORS,
    show_default=True,
    help="Neighbours that vote.",
)
@click.option(
    "--confusion",
    "confusion_figure",
    type=OUTPUT_FILE,
    help="SVG, PNG or PDF to draw the confusion matrix to.",
)
@click.option("--confusion-csv", type=OUTPUT_FILE, help="CSV to write the confusion matrix to.")
@seed_option
@on_bad_image_option
@follow_outside_option
@cache_option
@force_option
@json_option
@quiet_option
def classify(
    labels: Path,
    images: Path,
    model: Path | None,
    as_features: bool,
    backbone: list[str] | None,
    held_out: Path | None,
    fraction: float | None,
    k: int,
    confusion_figure: Path | None,
    confusion_csv: Path | None,
    weights: GivenWeights,
    views: list[str] | None,
    seed: int,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Say the classes of held-out images by their embeddings, and how often that is right.

    \b
    tripletkit classify labels.csv images/ --held-out val.txt
    tripletkit classify labels.csv images/ --held-out val.txt --confusion confusion.png
    tripletkit classify images/train images/ --held-out images/test --backbone auto

    LABELS is a CSV with the columns name and label, or a folder inside IMAGES with a subfolder
    for each class. A class is said by the nearest class center and by the vote of the nearest
    neighbours among the reference, the images that are not held out. Beside a model's embeddings
    stand the frozen features that they are made from.
    """
    if held_out is not None and fraction is not None:
        raise click.UsageError("--fraction is for a share by chance, --held-out says which.")

    from tripletkit.api.classifying import classify_held_out
    from tripletkit.data.output_forms import DRAWN_FORM
    from tripletkit.data.outputs import Outputs
    from tripletkit.data.splits.held_out_draws import read_held_out
    from tripletkit.data.splits.stratified import hold_out_images
    from tripletkit.evaluation.classification import CONFUSION_FORM
    from tripletkit.features.labelled_images import read_labelled
    from tripletkit.features.store import open_store
    from tripletkit.reporting.figures import draw_confusion
    from tripletkit.reporting.style import check_figure_suffix, write_figure

    outputs = Outputs(
        [labels, held_out, model, *weights.values()], image_folders=[images], overwrite=force
    )
    if confusion_figure is not None:
        check_figure_suffix(confusion_figure)
    figure_file = outputs.optional_file(confusion_figure, DRAWN_FORM)
    csv_file = outputs.optional_file(confusion_csv, CONFUSION_FORM)
    held_out_names = {} if held_out is None else read_held_out(held_out, images)
    found = read_labelled(
        input_source(labels),
        images,
        cache,
        skip_bad=on_bad_image == "skip",
        follow_outside=follow_outside,
        further=held_out_names,
        further_source=held_out,
    )
    if held_out is None:
        is_query = hold_out_images(
            found.labels.of_image, fraction or defaults.VAL_FRACTION, seed, found.images
        )
    else:
        is_query = found.mark(held_out_names)
    encoder = choose_encoder(model, as_features, backbone, weights, views)
    if held_out is None and encoder.head is not None:
        warn(
            "the model may have learned from images that are held out here, and its numbers "
            "are then too high. Name those that it has not seen with --held-out."
        )
    with open_store(cache) as store, progress_bar("features", "image") as progress:
        features = encoder.frozen.encode(found.files, store, progress=progress)
    classified = classify_held_out(found, is_query, features, encoder, k)
    confusion = classified.confusion
    if csv_file is not None:
        confusion.write(csv_file)
        say(f"Wrote {csv_file}.")
    if figure_file is not None:
        write_figure(figure_file, draw_confusion(confusion.counts, confusion.labels))
        say(f"Drew {figure_file}.")
    if as_json:
        show_json(classified.to_dict())
    else:
        show_text(str(classified))
