"""Judgements from bytes in memory, under the name of a file."""

from __future__ import annotations

import io

import tripletkit as tk
from tripletkit import Judgements
from tripletkit.data.judgements import open_truth


class NamedBytes(io.BytesIO):
    """An open file that has a name."""

    def __init__(self, data, name):
        super().__init__(data.encode() if isinstance(data, str) else data)
        self.name = name


def open_text(data, name="t.csv", **options) -> Judgements:
    return tk.read_judgements(NamedBytes(data, name), **options)


def read_triplets(source, name=None):
    """Return the rows of a path, or of an open file under another name."""
    return tk.read_judgements(_named(source, name)).triplets


def rows_of(triplets):
    """Return the names of each row."""
    return [tuple(triplets.names[index] for index in row) for row in triplets.rows]


def _named(source, name):
    return source if name is None else NamedBytes(source.read(), name)


def read_truth(source, name=None):
    return open_truth(_named(source, name))[0]


def read_labels(data, name="labels.csv", **options):
    """Return the labels of a text, or of an open file."""
    data = data.read() if hasattr(data, "read") else data
    return tk.read_labels(NamedBytes(data, name), **options)


def read_answers(source, name=None):
    return tk.read_answers(_named(source, name))
