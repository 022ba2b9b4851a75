"""Answer files and truth files: read, check, write.

An answer file is what a model says of a triplet file, one answer a row. It has two forms: a
CSV with the heading `a,b,c,prediction,margin`, and one 0 or 1 a line. A truth file is one 0 or
1 a line, or a CSV with a column of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, get_args

import numpy as np
import pandas as pd

from tripletkit.data.csv_columns import Field, read_columns, read_heading
from tripletkit.data.names import quote_csv_field
from tripletkit.data.output_forms import LABELS_FORM, any_form, csv_form
from tripletkit.data.outputs import Destination, Outputs, open_output
from tripletkit.data.text_files import parse_number, shorten_line
from tripletkit.data.triplets import Triplets
from tripletkit.data.truth import LABELS, TRUTH_COLUMNS, is_csv, read_answer_text, read_labels
from tripletkit.errors import AnswerFileError
from tripletkit.evaluation.decimals import WIDTH, format_decimals
from tripletkit.results import Result, Section, show_head

AnswerFormat = Literal["csv", "labels"]

NAME_COLUMNS = ("a", "b", "c")
COLUMNS = (*NAME_COLUMNS, "prediction", "margin")
ANSWERS_FORM = any_form(
    "a file of answers",
    csv_form("answers with their margins", ",".join(COLUMNS) + "\n"),
    LABELS_FORM,
)

# Without them, `float` takes nothing that is not a plain number.
_ODD_IN_NUMBERS = re.compile(r"[^0-9.eE+-]")
_CHUNK_ROWS = 1 << 16
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, repr=False)
class Answers(Result):
    """Answers to triplets, in the order of their file.

    Attributes:
        predictions: `(n_triplets,)` int8, 1 where the first image is called the nearer one.
        margins: `(n_triplets,)` float64, d(anchor, second) - d(anchor, first); NaN where an
            image could not be read. None if the file has no margins.
        triplets: the questions, or None if the file does not hold them.
        source: what to call the file in messages.
        column: the heading over the predictions; empty without one.
    """

    predictions: np.ndarray
    margins: np.ndarray | None
    triplets: Triplets | None
    source: str
    column: str = ""

    def __len__(self) -> int:
        return len(self.predictions)

    def to_dict(self) -> dict[str, Any]:
        """Return the columns of an answer file as JSON takes them."""
        columns: dict[str, Any] = self.to_frame().to_dict("list")
        return columns

    def _summary(self) -> str:
        silent = int((self.is_tie | self.is_undecidable).sum())
        told = f", {silent:,} do not tell the two images apart" if silent else ""
        return f"{len(self):,} answers, {int(self.predictions.sum()):,} of them 1{told}"

    def _sections(self) -> list[Section]:
        return [[self._summary(), show_head(self.take(np.arange(min(5, len(self)))).to_frame())]]

    @classmethod
    def from_margins(cls, margins: np.ndarray, triplets: Triplets, source: str) -> Answers:
        """Answer by the sign of margins: 1 if positive, 0 if negative, a tie or not known.

        Args:
            margins: `(n_triplets,)` floats, NaN where an image could not be read.
        """
        return cls((margins > 0).astype(np.int8), margins, triplets, source)

    def write(
        self,
        destination: str | Path | TextIO,
        form: AnswerFormat = "csv",
        *,
        overwrite: bool = False,
    ) -> None:
        """Write an answer file, whole or not at all.

        Args:
            destination, form: see `write_answers`.
            overwrite: replace an answer file that is there; nothing else ever is. Defaults to
                `False`.
        Raises:
            AnswerFileError: if the form needs what the answers do not hold.
            OutputError: if the path cannot be written, or would replace something it may not.
        """
        if isinstance(destination, str | Path):
            door = Outputs(overwrite=overwrite)
            destination = door.file(Path(destination), ANSWERS_FORM)
        write_answers(destination, self, form)

    def to_frame(self) -> pd.DataFrame:
        """Return a table with the columns of an answer file, as far as they are known."""
        columns = {"prediction": self.predictions}
        if self.margins is not None:
            columns["margin"] = self.margins
        answers = pd.DataFrame(columns)
        return answers if self.triplets is None else self.triplets.to_frame().join(answers)

    def take(self, rows: np.ndarray) -> Answers:
        """Return the rows that a mask or an index array picks."""
        margins = None if self.margins is None else self.margins[rows]
        triplets = None if self.triplets is None else self.triplets.take(rows)
        return replace(self, predictions=self.predictions[rows], margins=margins, triplets=triplets)

    @property
    def is_tie(self) -> np.ndarray:
        """`(n_triplets,)` bool: both images are equally near; False without margins."""
        return np.zeros(len(self), bool) if self.margins is None else self.margins == 0

    @property
    def is_undecidable(self) -> np.ndarray:
        """`(n_triplets,)` bool: an image could not be read; False without margins."""
        return np.zeros(len(self), bool) if self.margins is None else np.isnan(self.margins)


def read_answers(source: Path | BinaryIO, name: str | None = None) -> Answers:
    """Read an answer file of either form.

    A CSV needs the column `prediction`; `margin`, and `a`, `b`, `c` together, may be missing.
    Other columns are passed over. What guards a name from being taken for a formula is taken off
    (see `data.names`), so that names are those of the triplets that were answered.

    Args:
        source: a path, or an open binary file such as standard input.
        name: what to call it in messages. Defaults to the path as given.
    Raises:
        AnswerFileError: if it is no such file. The message holds the first ten problems as
            `file:line: expected ..., got ...` and their number.
    """
    text, name = read_answer_text(source, name)
    if not is_csv(text):
        column, labels = read_labels(text, name)
        return Answers(labels, None, None, name, column)
    heading = read_heading(text)
    if "prediction" not in heading:
        hint = ""
        if set(heading) & set(TRUTH_COLUMNS):
            hint = ". It seems to be a truth file; the answers come before the truth"
        raise AnswerFileError(
            f"{name}:1: expected the heading {','.join(COLUMNS)}, "
            f"got {shorten_line(','.join(heading))}{hint}"
        )
    fields = {"prediction": LABELS}
    if "margin" in heading:
        fields["margin"] = _MARGINS
    names = _Names()
    if has_names := set(NAME_COLUMNS) <= set(heading):
        fields |= dict.fromkeys(NAME_COLUMNS, Field("an image name", names.convert))
    columns = read_columns(text, name, fields)
    triplets = None
    if has_names:
        rows = np.stack([columns[column] for column in NAME_COLUMNS], axis=1)
        triplets = Triplets(list(names.index_of), rows, columns["line"], name)
    return Answers(columns["prediction"], columns.get("margin"), triplets, name, "prediction")


def write_answers(
    destination: Destination | TextIO, answers: Answers, form: AnswerFormat = "csv"
) -> None:
    """Write an answer file, in pieces; a path gets the whole file or nothing.

    Margins are written as the shortest decimals that read back as the same float32.

    Args:
        destination: a path, or an open text stream in UTF-8 that does not translate line ends.
        answers: in the order in which the questions were asked; a NaN among the margins leaves
            the field empty.
        form: `"csv"` for all columns, which needs questions and margins; `"labels"` for one 0 or
            1 a line.
    Raises:
        AnswerFileError: if the form is another, or needs what the answers do not hold.
        OutputError: if the path cannot be written.
    """
    if form not in get_args(AnswerFormat):
        raise AnswerFileError(
            f"expected one of the forms {', '.join(get_args(AnswerFormat))}, got {form!r}"
        )
    if form == "csv" and (answers.triplets is None or answers.margins is None):
        raise AnswerFileError(
            f"{answers.source}: expected answers with their questions and margins for the form "
            'csv, got predictions alone. Write them with the form "labels".'
        )
    if isinstance(destination, Destination):
        with open_output(destination) as file:
            write_answers(file, answers, form)
        return
    if form == "csv":
        pieces = _csv_pieces(answers.triplets, answers.predictions, answers.margins)
    else:
        pieces = _label_pieces(answers.predictions)
    for piece in pieces:
        destination.write(piece)


def _label_pieces(predictions: np.ndarray) -> Iterator[str]:
    for start in range(0, len(predictions), _CHUNK_BYTES):
        chunk = predictions[start : start + _CHUNK_BYTES]
        text = np.full((len(chunk), 2), ord("\n"), dtype=np.uint8)
        text[:, 0] = ord("0") + chunk
        yield text.tobytes().decode("ascii")


def _csv_pieces(triplets: Triplets, predictions: np.ndarray, margins: np.ndarray) -> Iterator[str]:
    """Yield lines made as fixed-width bytes whose unused places (NUL) are then taken out."""
    yield ",".join(COLUMNS) + "\n"
    names = np.array([f"{quote_csv_field(name)},".encode() for name in triplets.names], dtype=bytes)
    names_width = 3 * names.dtype.itemsize
    n_columns = names_width + 2 + WIDTH + 1
    n_rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // n_columns))
    for start in range(0, len(triplets), n_rows):
        chunk = slice(start, start + n_rows)
        rows = triplets.rows[chunk]
        text = np.empty((len(rows), n_columns), dtype=np.uint8)
        text[:, :names_width] = names[rows].view(np.uint8).reshape(-1, names_width)
        text[:, names_width] = ord("0") + predictions[chunk]
        text[:, names_width + 1] = ord(",")
        text[:, names_width + 2 : -1] = format_decimals(margins[chunk])
        text[:, -1] = ord("\n")
        yield text[text != 0].tobytes().decode()


def _to_margins(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    is_empty = np.fromiter((not text for text in texts), bool, len(texts))
    if _ODD_IN_NUMBERS.search("".join(texts)):
        margins = np.fromiter(map(parse_number, texts), np.float64, len(texts))
    else:
        margins = np.fromiter(map(_to_float, texts), np.float64, len(texts))
    return margins, ~is_empty & ~np.isfinite(margins)


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


class _Names:
    """Distinct names by their index, and the conversion of a column of names to indices."""

    def __init__(self) -> None:
        self.index_of: dict[str, int] = {}

    def convert(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        index_of = self.index_of
        indices = [index_of.setdefault(text, len(index_of)) for text in texts]
        indices = np.array(indices, dtype=np.int32)
        return indices, indices == index_of.get("", -1)


_MARGINS = Field("a number or nothing as margin", _to_margins)
