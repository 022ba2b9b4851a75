"""`tripletkit embed`: the embeddings of all images in a folder, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import progress_bar, say
from tripletkit.cli.encoders import choose_encoder, encoder_options, find_images
from tripletkit.cli.options import (
    INPUT_FOLDER,
    OUTPUT_FILE,
    cache_option,
    follow_outside_option,
    force_option,
    on_bad_image_option,
    quiet_option,
)

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@click.argument("images", type=INPUT_FOLDER, required=False)
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    required=True,
    help="File to write; its suffix says the format: .parquet, .csv or .npz.",
)
@encoder_options
@on_bad_image_option
@follow_outside_option
@cache_option
@force_option
@quiet_option
def embed(
    images: Path | None,
    output: Path,
    model: Path | None,
    as_features: bool,
    backbone: list[str] | None,
    views: list[str] | None,
    weights: GivenWeights,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    force: bool,
) -> None:
    """Write the embedding of every image in a folder, or its backbone features.

    \b
    tripletkit embed images/ -o embeddings.parquet
    tripletkit embed images/ -o features.npz --frozen
    tripletkit embed images/ -o features.csv --backbone efficientnet-lite0

    Rows are in the order of the names. Parquet: columns name and vector. CSV: name, 0, 1, ...
    NPZ: arrays names and vectors. With --on-bad-image skip, images that cannot be read have
    no row.
    """
    import numpy as np

    from tripletkit.data.outputs import Outputs
    from tripletkit.features.store import open_store
    from tripletkit.search.vector_files import (
        check_vector_suffix,
        encode_all,
        vectors_form,
        write_vectors,
    )

    check_vector_suffix(output)
    outputs = Outputs([model, *weights.values()], image_folders=[images], overwrite=force)
    file = outputs.file(output, vectors_form(output))
    files = find_images(images, skip_bad=on_bad_image == "skip", follow_outside=follow_outside)
    encoder = choose_encoder(model, as_features, backbone, weights, views)
    with open_store(cache) as store, progress_bar("features", "image") as progress:
        vectors = encode_all(files, encoder, store, progress)
    is_usable = np.isfinite(vectors[:, 0])
    vectors = vectors[is_usable]
    names = [name for name, usable in zip(files.names, is_usable, strict=True) if usable]
    write_vectors(file, names, vectors)
    what = "features" if encoder.head is None else "embeddings"
    say(f"Wrote {what} of {len(names):,} images, {vectors.shape[1]:,} numbers each: {output}.")
