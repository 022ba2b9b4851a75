"""`tripletkit neighbors`: the images of a collection that look most like a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import progress_bar, say, show_json, show_text
from tripletkit.cli.encoders import choose_encoder, encoder_options, find_images, find_queries
from tripletkit.cli.options import (
    INPUT_FILE,
    INPUT_FOLDER,
    OUTPUT_FILE,
    WholeRange,
    cache_option,
    follow_outside_option,
    force_option,
    input_source,
    json_option,
    on_bad_image_option,
    quiet_option,
)

if TYPE_CHECKING:
    from tripletkit.features.feature_parts import GivenWeights


@click.command()
@click.argument("images", type=INPUT_FOLDER, required=False)
@click.option(
    "--query",
    "queries",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    required=True,
    metavar="PATH",
    help="Image, or folder of images, in the collection or not. May be given several times.",
)
@click.option(
    "-k",
    type=WholeRange(1),
    default=defaults.NEIGHBORS,
    show_default=True,
    help="Neighbours of each query.",
)
@encoder_options
@click.option(
    "--index",
    type=OUTPUT_FILE,
    help="File of an approximate index, for large collections: made if it is not there; if "
    "it is, no other image is read. Needs tripletkit[search].",
)
@click.option(
    "--check-recall",
    is_flag=True,
    help="Also say which share of the true neighbours the --index finds, of images of the "
    "collection drawn by chance.",
)
@click.option("--collage", type=OUTPUT_FILE, help="Image to draw: a row for each query.")
@click.option(
    "--labels",
    type=INPUT_FILE,
    help="CSV with the columns name and label; neighbours of the query's label are marked.",
)
@on_bad_image_option
@follow_outside_option
@cache_option
@force_option
@json_option
@quiet_option
def neighbors(
    images: Path | None,
    queries: tuple[Path, ...],
    k: int,
    model: Path | None,
    as_features: bool,
    backbone: list[str] | None,
    views: list[str] | None,
    index: Path | None,
    check_recall: bool,
    collage: Path | None,
    labels: Path | None,
    weights: GivenWeights,
    on_bad_image: str,
    follow_outside: bool,
    cache: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print the images of a collection that are nearest to a query.

    \b
    tripletkit neighbors images/ --query images/00001.jpg
    tripletkit neighbors images/ --query new.jpg --query other.jpg -k 5 --collage c.png
    tripletkit neighbors images/ --query new.jpg --backbone efficientnet-lite0 --json

    The query itself, also as a copy under another name, is never its own neighbour. Of equally
    near images the first by name comes first. With --force an --index that is there is made
    anew.
    """
    from tripletkit.data.labels import read_labels
    from tripletkit.data.output_forms import DRAWN_FORM
    from tripletkit.data.outputs import Outputs
    from tripletkit.features.store import open_store
    from tripletkit.search.approximate import INDEX_FORM, check_faiss
    from tripletkit.search.image_search import (
        CollectionSearch,
        NearestImages,
        add_labels,
        find_same,
        list_neighbors,
    )

    if collage is not None:
        from tripletkit.reporting.collages import check_collage_suffix

        check_collage_suffix(collage)
    # An index that is there is read, unless it is to be made anew.
    makes_index = index is not None and (force or not index.exists())
    outputs = Outputs(
        [*queries, labels, model, *weights.values(), None if makes_index else index],
        image_folders=[images, *(query for query in queries if query.is_dir())],
        overwrite=force,
    )
    collage_file = outputs.optional_file(collage, DRAWN_FORM)
    index_file = outputs.optional_file(index if makes_index else None, INDEX_FORM)
    if index is not None:
        check_faiss()
    elif check_recall:
        raise click.UsageError("--check-recall needs --index.")
    label_of = read_labels(input_source(labels)) if labels else {}
    query_files = find_queries(queries)
    files = find_images(images, skip_bad=on_bad_image == "skip", follow_outside=follow_outside)
    encoder = choose_encoder(model, as_features, backbone, weights, views)
    with open_store(cache) as store:
        own, contents = query_files.contents(store).hashes, files.contents(store).hashes
    same = find_same(own, contents)
    with progress_bar("features", "image") as progress:
        search = CollectionSearch(encoder, files, query_files, cache, progress)
        if index is None:
            found = search.exactly(k, same)
        else:
            found = search.by_index(k, same, index_file or index, contents)
        recall = search.measure_recall(k) if check_recall else None
    if recall is not None:
        say(f"Recall at {k}: {recall:.3f} of the neighbours that exact search finds.")

    answers = [
        list_neighbors(name, list(found.of(query)), files.names)
        for query, name in enumerate(query_files.names)
    ]
    if label_of:
        for query, answer in enumerate(answers):
            names = [files.names[row] for row in same[query]] + [query_files.paths[query].name]
            add_labels(answer, names, label_of)
    if collage_file is not None:
        from tripletkit.reporting.collages import draw_neighbors

        draw_neighbors(collage_file, answers, query_files, files)
        say(f"Drew {collage_file}.")
    result = NearestImages(encoder.distance, answers, recall)
    if as_json:
        show_json(result.to_dict())
    else:
        show_text(str(result))
