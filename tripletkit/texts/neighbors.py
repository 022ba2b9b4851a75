"""Neighbors of queries as a table of text."""

from __future__ import annotations

from typing import Any

from tripletkit.texts.tables import align_columns


def describe_neighbors(answers: list[dict[str, Any]], *, with_labels: bool) -> str:
    """Return a row for each neighbor of each query."""
    heading = ["query", "rank", "name", "distance"]
    rows = [[*heading, "label", "same"] if with_labels else heading]
    for answer in answers:
        for neighbor in answer["neighbors"]:
            row = [
                answer["query"],
                str(neighbor["rank"]),
                neighbor["name"],
                f"{neighbor['distance']:.4f}",
            ]
            if with_labels:
                same = {True: "yes", False: "no", None: ""}[neighbor["same_label"]]
                row += [neighbor["label"] or "", same]
            rows.append(row)
    return align_columns(rows, right=[1, 3])
