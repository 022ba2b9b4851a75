"""Answer files: read, checked, written.

An answer file is what a model says of a triplet file, one answer a row. It has two forms: a CSV
with the heading `a,b,c,prediction,margin`, and one 0 or 1 a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, cast, get_args

import numpy as np
import pandas as pd

from tripletkit.data.judgement_tables import UNDECIDED, open_rows
from tripletkit.data.outputs import Destination, OutputForm, Outputs, as_one_run, open_output
from tripletkit.data.tables import FileTable, place_problems
from tripletkit.data.text_files import parse_number, quote_csv_field, shorten_line
from tripletkit.data.triplets import Triplets, Truth, describe_other_questions
from tripletkit.errors import AnswerFileError, DataWarning, caution, describe_problems
from tripletkit.registry import check_choice
from tripletkit.results import Result, Section, show_head

AnswerFormat = Literal["csv", "labels"]
TiePolicy = Literal["answer", "error", "half"]

_NAME_COLUMNS = ("a", "b", "c")
_COLUMNS = (*_NAME_COLUMNS, "prediction", "margin")
ANSWERS_FORM = OutputForm(
    "a file of answers as tripletkit wrote it",
    headings=(",".join(_COLUMNS) + "\n",),
    is_recorded=True,
)

# Smaller margins are written as 5e-06.
_SMALLEST_PLAIN = 1e-5
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
        ids: which question each row is, where a column says it; None without one.
    """

    predictions: np.ndarray
    margins: np.ndarray | None
    triplets: Triplets | None
    source: str
    column: str = ""
    ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.predictions)

    def to_dict(self) -> dict[str, Any]:
        """Return the columns of an answer file as JSON takes them."""
        return {str(name): values for name, values in self.to_frame().to_dict("list").items()}

    def _summary(self) -> str:
        silent = int((self.is_tie | self.is_undecidable).sum())
        told = f", {silent:,} do not tell the two images apart" if silent else ""
        return f"{len(self):,} answers, {int(self.predictions.sum()):,} of them 1{told}"

    def _sections(self) -> list[Section]:
        return [[self._summary(), show_head(self.take(np.arange(min(5, len(self)))).to_frame())]]

    @classmethod
    def from_margins(cls, margins: np.ndarray, triplets: Triplets, source: str) -> Answers:
        """Answer by the sign of margins: 1 if positive, 0 if negative, a tie or not known (NaN)."""
        return cls((margins > 0).astype(np.int8), margins, triplets, source)

    @as_one_run
    def write(
        self,
        destination: str | os.PathLike[str] | TextIO,
        form: AnswerFormat = "csv",
        *,
        overwrite: bool = False,
    ) -> None:
        """Write an answer file, whole or not at all.

        Args:
            destination: a path, or an open text stream in UTF-8 that does not translate line ends.
            form: `"csv"` for all columns, which needs questions and margins; `"labels"` for one 0
                or 1 a line.
            overwrite: replace an answer file that is there; nothing else ever is.
        Raises:
            AnswerFileError: if the form needs what the answers do not hold.
            OutputError: if the path cannot be written, or would replace something it may not.
        """
        if isinstance(destination, str | os.PathLike):
            self._write(Outputs(overwrite=overwrite).file(Path(destination), ANSWERS_FORM), form)
        else:
            self._write(destination, form)

    def _write(self, destination: Destination | TextIO, form: AnswerFormat) -> None:
        """Write to a permitted place, in pieces; an open stream must not translate line ends.

        Margins are written as the shortest decimals that read back as the same float32; a NaN
        leaves the field empty.
        """
        if form == "labels":
            pieces = _label_pieces(self.predictions)
        elif form != "csv":
            raise AnswerFileError(
                f"expected one of the forms {', '.join(get_args(AnswerFormat))}, got {form!r}"
            )
        elif self.triplets is None or self.margins is None:
            raise AnswerFileError(
                f"{self.source}: expected answers with their questions and margins for the form "
                'csv, got predictions alone. Write them with the form "labels".'
            )
        else:
            pieces = _csv_pieces(self.triplets, self.predictions, self.margins)
        opened = open_output(destination) if isinstance(destination, Destination) else None
        with opened or nullcontext(cast(TextIO, destination)) as file:
            file.writelines(pieces)

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
        return Answers(self.predictions[rows], margins, triplets, self.source, self.column)

    @property
    def is_tie(self) -> np.ndarray:
        """`(n_triplets,)` bool: both images are equally near; False without margins."""
        return np.zeros(len(self), bool) if self.margins is None else self.margins == 0

    @property
    def is_undecidable(self) -> np.ndarray:
        """`(n_triplets,)` bool: an image could not be read; False without margins."""
        return np.zeros(len(self), bool) if self.margins is None else np.isnan(self.margins)

    def credit(self, truth: np.ndarray, ties: TiePolicy = "answer") -> np.ndarray:
        """Return what each row earns, `(n_triplets,)` float64: 1 if right, 0 if wrong.

        The answer counts which stands in the file, whatever its margin. A tie, or a row with an
        image that could not be read, stands there as 0, and is right where the truth is 0, as in
        every competition that such a file is handed in to. So the same answers earn the same as a
        CSV and as labels, which do not show ties. A model that tells nothing apart earns the share
        of zeros; the number of ties, told apart, gives it away.

        Where there are margins, `"error"` and `"half"` judge ties more strictly: as wrong, or as
        half right, as a coin would be. Rows without a margin are wrong then.

        Args:
            truth: `(n_triplets,)` 1 where the first image is the nearer one, else 0.
            ties: see `score`.
        Raises:
            AnswerFileError: if ties are to be told from other answers, and there are no margins.
        """
        check_choice("ties", ties, get_args(TiePolicy))
        credit = (self.predictions == truth).astype(np.float64)
        if ties == "answer":
            return credit
        if self.margins is None:
            raise AnswerFileError(
                f"{self.source}: expected margins, which tell ties from other answers, got labels "
                "alone. Count ties as the answers that they are (`ties=answer`)."
            )
        credit[self.is_tie] = 0.5 if ties == "half" else 0
        credit[self.is_undecidable] = 0
        return credit

    def _check_length(self, n_expected: int, source: str) -> None:
        """Refuse answers that cannot belong to a file because their numbers differ."""
        if len(self) != n_expected:
            raise AnswerFileError(
                f"{self.source}: expected {n_expected:,} answers, one for each row of {source}, "
                f"got {len(self):,}. Do both belong to the same triplets?"
            )

    def _check_questions(self, triplets: Triplets) -> None:
        """Refuse answers to other questions, or to the same in another order, as far as known."""
        self._check_length(len(triplets), triplets.source)
        asked = self.triplets
        if asked is not None and (problems := describe_other_questions(asked, triplets)):
            raise AnswerFileError(problems)

    def _check_truth(self, truth: Truth) -> None:
        """Refuse a truth of other questions, and one that was given in the answers' place.

        Where headings leave doubt, a `DataWarning` says what is taken for what.
        """
        seems_true = self.column in ("label", "truth")
        if seems_true and truth.column == "prediction":
            raise AnswerFileError(
                f"{self.source}: expected answers, got the column {self.column} of a truth "
                f"file, and {truth.source} has the column prediction of an answer file. Give the "
                "answers first, then the truth."
            )
        if truth.column == "prediction":
            caution(
                f"{truth.source}: has no column label or truth; its answers (prediction) are taken "
                "for the truth",
                DataWarning,
            )
        elif seems_true and not truth.column:
            caution(
                f"{self.source}: has the column {self.column} of a truth file, and is taken "
                f"for answers; {truth.source} is taken for the truth",
                DataWarning,
            )
        self._check_length(len(truth), truth.source)
        if self.ids and truth.ids and self.ids != truth.ids and {*self.ids} == {*truth.ids}:
            ids = next(p for p in zip(self.ids, truth.ids, strict=True) if p[0] != p[1])
            raise AnswerFileError(
                f"{self.source}: expected the order of {truth.source}, got the row of "
                f"{shorten_line(ids[0])} where that has {shorten_line(ids[1])}. Sort both alike."
            )
        if truth.triplets is not None:
            self._check_questions(truth.triplets)


@as_one_run
def read_answers(source: str | os.PathLike[str] | BinaryIO) -> Answers:
    """Read an answer file: a CSV with the column prediction, or one 0 or 1 a line.

    Args:
        source: a path, or an open binary file. Of a CSV the columns `margin`, and `a`, `b`, `c`
            together, may be missing; others are passed over.
    Returns:
        `Answers`, with the questions and margins that the file holds.
    Raises:
        AnswerFileError: if it is no such file, with the first ten problems and their number.
    """
    given = Path(source) if isinstance(source, str | os.PathLike) else source
    read = open_rows(given, "answers")
    if read.labels is None:
        raise AnswerFileError(f"{read.source}: expected answers, got none")
    table = read.table
    for line in table.lines[read.labels == UNDECIDED]:
        raise AnswerFileError(f"{read.source}:{line}: expected 0 or 1, got no decision")
    headings = [column.lower() for column in table.columns]
    margins = None
    if "margin" in headings:
        margins = _read_margins(table, headings.index("margin"))
    return Answers(read.labels, margins, read.triplets, read.source, read.column, read.ids)


def _read_margins(table: FileTable, column: int) -> np.ndarray:
    """Return `(n_rows,)` float64, NaN where there is none."""
    texts = table.texts(column)
    margins = np.array([parse_number(text) for text in texts], dtype=np.float64)
    problems = {
        int(table.lines[row]): f"expected a number or nothing as margin, got "
        f"{shorten_line(texts[row])}"
        for row in np.flatnonzero(~np.isfinite(margins) & (texts != ""))
    }
    if problems:
        raise AnswerFileError(describe_problems(place_problems(problems, table.source)))
    return margins


def _label_pieces(predictions: np.ndarray) -> Iterator[str]:
    for start in range(0, len(predictions), _CHUNK_BYTES):
        chunk = predictions[start : start + _CHUNK_BYTES]
        text = np.full((len(chunk), 2), ord("\n"), dtype=np.uint8)
        text[:, 0] = ord("0") + chunk
        yield text.tobytes().decode("ascii")


def _csv_pieces(triplets: Triplets, predictions: np.ndarray, margins: np.ndarray) -> Iterator[str]:
    yield ",".join(_COLUMNS) + "\n"
    names = np.array([quote_csv_field(name) for name in triplets.names], dtype=object)
    for start in range(0, len(triplets), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        columns = (
            *names[triplets.rows[chunk]].T.tolist(),
            predictions[chunk].tolist(),
            _shortest_decimals(margins[chunk]),
        )
        lines = [f"{a},{b},{c},{p},{margin}\n" for a, b, c, p, margin in zip(*columns, strict=True)]
        yield "".join(lines)


def _shortest_decimals(margins: np.ndarray) -> list[str]:
    """Return the shortest decimals that read back as the same float32; nothing for NaN."""
    values = np.asarray(margins, dtype=np.float32)
    texts = values.astype("U16").astype(object)
    size = np.abs(values)
    # NumPy writes these as 5e-05.
    for place in np.flatnonzero((size >= _SMALLEST_PLAIN) & (size < 1e-4)):
        texts[place] = np.format_float_positional(values[place], unique=True, trim="0")
    texts[np.isnan(values)] = ""
    texts[values == 0] = "0.0"
    return texts.tolist()
