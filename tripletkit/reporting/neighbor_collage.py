"""A collage of queries and their neighbors, a row for each query."""

from __future__ import annotations

from typing import Any

from tripletkit.data.outputs import OutputFile
from tripletkit.features.collection import NamedFiles
from tripletkit.reporting.collages import Tile, draw_grid, write_image


def draw_neighbors(
    output: OutputFile, answers: list[dict[str, Any]], query_files: NamedFiles, files: NamedFiles
) -> None:
    """Draw the answers that `search.collection.list_neighbors` gives."""
    path_of = dict(zip(files.names, files.paths, strict=True))
    rows = []
    for answer, path in zip(answers, query_files.paths, strict=True):
        row = [Tile(path, (path.name, answer.get("label") or ""))]
        row += [
            Tile(
                path_of[neighbor["name"]],
                (neighbor["name"], f"{neighbor['distance']:.4f}"),
                neighbor.get("same_label"),
            )
            for neighbor in answer["neighbors"]
        ]
        rows.append(row)
    n_columns = max(map(len, rows))
    headings = ["query", *map(str, range(1, n_columns))]
    write_image(output, draw_grid(rows, headings, gap_after_first=True))
