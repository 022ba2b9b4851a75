"""Tables as judgements: rows turned to integers, and what their columns say of the answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from tripletkit.data.columns import (
    FIRST,
    HEADLESS,
    SECOND,
    UNDECIDED,
    Roles,
    Wanted,
    could_be_answers,
    describe_answers,
    find_answers,
    find_roles,
    read_choices,
    says_nothing,
)
from tripletkit.data.tables import (
    EXPECTED,
    FileTable,
    LineProblem,
    are_texts,
    open_table,
    place_problems,
)
from tripletkit.data.text_files import FileRecord, check_name, parse_number, shorten_line
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import MAX_VOTES, Votes
from tripletkit.errors import (
    AnswerFileError,
    DataWarning,
    TripletFileError,
    caution,
    describe_problems,
)

# Which of three images is the odd one of every row, where the user says so.
_ODD_PLACES = {"first": 0, "second": 1, "last": 2}
_ODD_ONE = "odd one"
_ROW_OF_IMAGES = (("anchor", "positive", "negative"), ("a", "b", "c"), ("query", "first", "second"))


@dataclass(frozen=True)
class _ReadRows:
    """What a table says, row by row.

    Attributes:
        triplets: anchor, first and second image; of trials two rows each, the odd image last;
            None where the table does not hold them.
        labels: `(n_triplets,)` int8, see `Truth`; None where no column says it.
        notes: what was understood, a sentence each.
        column: the heading over the answers, in lower case; empty without.
    """

    table: FileTable
    triplets: Triplets | None = None
    labels: np.ndarray | None = None
    votes: Votes | None = None
    problems: tuple[LineProblem, ...] = ()
    notes: tuple[str, ...] = ()
    column: str = ""

    @property
    def source(self) -> str:
        return self.table.source


def open_rows(
    given: Path | BinaryIO | pd.DataFrame,
    wanted: Wanted,
    *,
    columns: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    with_problems: bool = False,
) -> tuple[_ReadRows, FileRecord]:
    """Return what a file or a table says, and the record of it.

    Raises:
        TripletFileError, AnswerFileError: if it cannot be read as what is wanted,
            with the first ten problems and their number.
    """
    columns = dict(columns or {})
    odd_place = _ODD_PLACES.get(columns.get("odd", ""))
    if odd_place is not None:
        del columns["odd"]
    error_class = TripletFileError if wanted in ("triplets", "votes") else AnswerFileError
    try:
        table, record = open_table(given, wanted, columns)
        read = _read_rows(table, wanted, columns, odd_place, names)
    except TripletFileError as error:
        raise error_class(str(error)) from error
    problems = describe_problems(list(place_problems(read.problems, table.source)))
    if problems and not with_problems:
        raise error_class(problems)
    if not len(table if read.triplets is None else read.triplets):
        expected = "rows below the heading" if table.columns else f"{EXPECTED[wanted]} a line"
        expected += ", got none"
        if wanted == "triplets":
            expected = "lines of three image names, got no triplet at all"
        raise error_class(problems or f"{table.source}: expected {expected}")
    return read, record


def _read_rows(
    table: FileTable,
    wanted: Wanted,
    columns: Mapping[str, str],
    odd_place: int | None,
    names: Sequence[str] | None,
) -> _ReadRows:
    """Return what a table says; `odd_place` of three images is the odd one of every row.

    Raises:
        TripletFileError: if the headings say nothing of it, or leave a choice, or if a column may
            say what was chosen and is not understood.
    """
    headings = table.columns or tuple(map(str, range(1, len(table.cells) + 1)))
    if not headings:
        return _ReadRows(table, problems=tuple(table.problems))
    try:
        roles = _find_roles(table, headings, wanted, columns, odd_place)
    except ValueError as error:
        raise TripletFileError(f"{table.source}:1: {error}") from error
    table, of_row = _unfold_lists(table, roles)
    reading = _Reading(
        table, headings, roles, list(table.problems), np.ones(len(table), dtype=bool)
    )
    triplets = None
    if roles.names:
        triplets = reading.triplets(names)
        if wanted != "answers":
            _check_other_columns(reading)
    if roles.doubled:
        # Winner and loser are the two that were shown, unless other columns are about the same.
        chosen, shown = (
            [set(pair) for pair in zip(*map(reading.texts, places), strict=True)]
            for places in (roles.names[1:], roles.doubled)
        )
        is_other = np.array([one != other for one, other in zip(chosen, shown, strict=True)])
        if not is_other.all():
            message = "expected one of the two images that were shown as the nearer"
            reading.refuse(is_other, message, reading.texts(roles.names[1]))
    labels = votes = None
    notes = [] if triplets is None else _describe_columns(headings, roles)
    if roles.votes is not None:
        votes = reading.votes(roles.votes)
    elif roles.share is not None:
        votes = reading.shares(roles.share)
    elif odd_place is not None:
        labels = np.full(len(table), odd_place)
    elif roles.answer is not None and len(table):
        labels, said = reading.answers(roles.answer, is_judged=wanted != "answers")
        notes += said
    kept = np.flatnonzero(reading.is_good)
    labels = None if labels is None else labels[kept]
    if triplets is not None:
        triplets = _over_used_names(triplets, kept)
        triplets = replace(triplets, trials=None if of_row is None else of_row[kept])
        if roles.is_trial and labels is not None:
            triplets, note = _unfold_trials(triplets, labels)
            notes.append(note)
            labels = None
    ignored = [text or "(no name)" for n, text in enumerate(headings) if n not in roles.used]
    if ignored and wanted in ("triplets", "votes"):
        listed = ", ".join(f'"{column}"' for column in ignored[:10])
        more = f" and {len(ignored) - 10:,} more" if len(ignored) > 10 else ""
        caution(f"{table.source}: columns that are not read: {listed}{more}", DataWarning)
    has_heading = table.columns and roles.answer is not None and odd_place is None
    return _ReadRows(
        table,
        triplets,
        labels,
        None if votes is None else votes.take(kept),
        tuple(sorted(reading.problems, key=lambda problem: problem.line)),
        tuple(notes),
        table.columns[roles.answer or 0].lower() if has_heading else "",
    )


def _find_roles(
    table: FileTable,
    headings: Sequence[str],
    wanted: Wanted,
    columns: Mapping[str, str],
    odd_place: int | None,
) -> Roles:
    def is_file(place: int) -> bool:
        cells = [cell for column in table.cells[place : place + 1] for cell in column[:20]]
        texts = [cell for cell in cells if isinstance(cell, str)]
        return bool(texts) and all("." in text or "/" in text for text in texts)

    if odd_place is not None:
        # As if a column said it.
        headings, columns = [*headings, _ODD_ONE], {**columns, "odd": _ODD_ONE}
    if columns or table.columns:
        roles = find_roles(headings, wanted, columns, is_file)
    else:
        roles = find_roles(HEADLESS[wanted].get(len(headings), ()), wanted)
    if roles is not None:
        return roles
    if wanted == "triplets":
        raise TripletFileError(
            f"{table.source}: expected a table with the columns anchor, positive, negative or "
            f"others that are known, got {', '.join(headings)}. Say with `columns` which hold "
            "the images, such as anchor=...,positive=...,negative=..."
        )
    hint = ""
    if wanted == "answers" and find_answers(headings, set()):
        hint = ". It seems to be a truth file; the answers come before the truth"
    raise ValueError(f"expected {EXPECTED[wanted]}, got {shorten_line(','.join(headings))}{hint}")


@dataclass
class _Reading:
    """A table while it is read: the rows that are good so far, and what is wrong with others."""

    table: FileTable
    headings: Sequence[str]
    roles: Roles
    problems: list[LineProblem]
    is_good: np.ndarray

    def texts(self, place: int) -> np.ndarray:
        texts = [text.strip() for text in self.table.texts(place)]
        return np.array(texts, dtype=object).reshape(len(texts))

    def numbers(self, place: int) -> np.ndarray:
        return np.array([parse_number(text) for text in self.texts(place)], dtype=np.float64)

    def refuse(
        self,
        is_bad: np.ndarray,
        message: str | Callable[[int], str],
        shown: np.ndarray | None = None,
    ) -> None:
        """Note the rows that cannot be read, once each."""
        for row in np.flatnonzero(is_bad & self.is_good).tolist():
            said = message if isinstance(message, str) else message(row)
            got = "" if shown is None else f", got {shorten_line(shown[row])}"
            self.problems.append(LineProblem(int(self.table.lines[row]), f"{said}{got}"))
        self.is_good &= ~is_bad

    def triplets(self, names: Sequence[str] | None) -> Triplets:
        """Return the images of all rows; of bad ones any."""
        table, roles = self.table, self.roles
        # Names are numbered from the anchor on, whatever the order of the columns.
        cells = np.stack([table.cells[place] for place in roles.names], axis=1)
        if names is not None:
            cells = self._names_of_numbers(cells, names)
        flat = cells.ravel()
        is_text = np.ones(len(flat), dtype=bool)
        if not are_texts(flat):
            is_text = np.array([isinstance(cell, str) for cell in flat], dtype=bool)
            flat = np.where(is_text, flat, "x")
        numbers, found = pd.factorize(flat)
        reasons = {}
        for number, name in enumerate(found):
            try:
                check_name(name)
            except ValueError as error:
                reasons[number] = str(error)
        is_bad = ~is_text
        if reasons:
            is_bad |= np.isin(numbers, list(reasons))

        def say(row: int) -> str:
            column = int(is_bad[3 * row : 3 * row + 3].argmax())
            if is_text[3 * row + column]:
                shown = shorten_line(",".join(map(str, cells[row])))
                return f"{reasons[numbers[3 * row + column]]} in {shown}"
            return (
                f'column "{self.headings[roles.names[column]]}": expected an image name as '
                f"text, got {cells[row, column]!r}. Read a table with dtype=str, so that 00123 "
                "stays text; give `names` where these are places in a list of names."
            )

        self.refuse(is_bad.reshape(-1, 3).max(axis=1), say)
        rows = numbers.reshape(-1, 3).astype(np.int32)
        return Triplets(list(found), rows, table.lines, table.source, roles.is_answered)

    def _names_of_numbers(self, cells: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return the names that integers stand for, counted from 0 or, if the last is, from 1."""
        numbers, texts = pd.factorize(pd.Series(cells.ravel(), dtype=object))
        values = np.array([parse_number(str(text)) for text in texts], dtype=np.float64)
        whole = values[values == np.floor(values)]
        values -= 1 if len(whole) and whole.min() >= 1 and whole.max() == len(names) else 0
        is_known = (values == np.floor(values)) & (values >= 0) & (values < len(names))
        self.refuse(
            np.append(~is_known, True)[numbers].reshape(-1, 3).max(axis=1),
            lambda row: (
                f"expected places in the list of {len(names):,} names, got "
                f"{shorten_line(','.join(map(str, cells[row])))}"
            ),
        )
        known = np.array([*names, "x"], dtype=object)
        places = np.where(is_known, values, len(names)).astype(np.int64)
        return known[np.append(places, len(names))[numbers]].reshape(-1, 3)

    def votes(self, places: tuple[int, int]) -> Votes:
        first, second = map(self.numbers, places)
        most, least = np.maximum(first, second), np.minimum(first, second)
        self.refuse(
            ~((least >= 0) & (most <= MAX_VOTES)),
            f"expected two numbers of votes from 0 to {MAX_VOTES:,.0f}",
            self.texts(places[0]) + " " + self.texts(places[1]),
        )
        message = "expected at least one vote, got none; leave such a triplet out"
        self.refuse(most == 0, message)
        return Votes(first, second)

    def shares(self, place: int) -> Votes:
        shares = self.numbers(place)
        is_bad = ~((shares >= 0) & (shares <= 1))
        self.refuse(is_bad, "expected a share from 0 to 1", self.texts(place))
        return Votes.of_shares(shares)

    def answers(self, place: int, *, is_judged: bool) -> tuple[np.ndarray, list[str]]:
        """Return labels, or of trials the place of the odd image, and what was understood."""
        roles, texts = self.roles, self.texts(place)
        n_images = 3 if roles.is_trial else 2
        named = [self.texts(each) for each in roles.names[-n_images:]]
        shown = "" if not self.table.columns else f'column "{self.headings[place]}": '
        sides = roles.sides or (() if named else ("b", "c"))
        try:
            read = read_choices(texts, sides, n_images, named)
            if read is None and named:
                raise ValueError(describe_answers(texts, n_images))
        except ValueError as error:
            hint = " Where it does not say which image was chosen, name the columns that count "
            hint = f".{hint}with `columns`." if named else ""
            raise TripletFileError(f"{self.table.source}: {shown}{error}{hint}") from error
        if read is None:
            self.refuse(~np.isin(texts, ("0", "1")), "expected 0 or 1", texts)
            return np.zeros(len(texts), dtype=np.int8), []
        if named:
            expected = f"{shown}expected an answer as in other rows ({read.meaning})"
            self.refuse(read.is_bad, expected, texts)
        else:
            self.refuse(read.is_bad | (texts == ""), "expected 0 or 1", texts)
        note = f"answers from column `{self.headings[place]}`: {read.meaning}"
        if roles.is_trial:
            return read.places, [note]
        labels = np.array([FIRST, SECOND, UNDECIDED], dtype=np.int8)[read.places]
        if not (named and is_judged):
            return labels, [] if set(texts) <= {"0", "1"} else [note]
        n_turned = int((labels[self.is_good] == SECOND).sum())
        note += f"; {n_turned:,} of {int(self.is_good.sum()):,} rows turned"
        if n_tied := int((labels[self.is_good] == UNDECIDED).sum()):
            note += f"; {n_tied:,} undecided"
        return labels, [note]


def _check_other_columns(reading: _Reading) -> None:
    """Refuse a column that may say which image was chosen, and is not understood."""
    roles, table, headings = reading.roles, reading.table, reading.headings
    if roles.is_chosen or not len(table):
        return
    is_told = roles.is_answered is True
    named = find_answers(headings, roles.used) if is_told and not roles.tells_answers else []
    for place, heading in enumerate(headings):
        if place in roles.used or says_nothing(heading) or (is_told and place not in named):
            continue
        first, second = (reading.texts(each) for each in roles.names[1:3])
        texts = reading.texts(place)
        is_name = bool(((texts == first) | (texts == second)).all())
        if not is_name and not could_be_answers(texts):
            continue
        values = ", ".join(shorten_line(text) for text in list(dict.fromkeys(texts.tolist()))[:3])
        three = ("anchor", "positive", "negative") if is_told else ("anchor", "first", "second")
        those = ",".join(
            f"{field}={headings[column]}" for field, column in zip(three, roles.names, strict=True)
        )
        raise TripletFileError(
            f'{table.source}: the column "{heading}" ({values}) may say which image was chosen, '
            f"and it is not clear how. If it does, use `columns` with answer={heading}; if it does "
            f"not, name with `columns` those that count: {those}."
        )


def _describe_columns(headings: Sequence[str], roles: Roles) -> list[str]:
    texts = [headings[place].strip() for place in roles.names]
    plain = [text.lower() for text in texts]
    if tuple(plain) in _ROW_OF_IMAGES or all(text.isdigit() for text in plain):
        return []
    if roles.is_trial:
        shown = ", ".join(f"`{text}`" for text in texts)
        return [f"three images of a trial from columns {shown}"]
    is_turned = roles.is_answered and not roles.tells_answers
    what = ("anchor", "nearer", "other") if is_turned else ("anchor", "first", "second")
    pairs = zip(what, texts, strict=True)
    return [", ".join(f"{word} image from column `{text}`" for word, text in pairs)]


def _unfold_lists(table: FileTable, roles: Roles) -> tuple[FileTable, np.ndarray | None]:
    """Return a row for each pair of several nearer and several other images, and its trial."""
    several = (list, tuple, np.ndarray)
    cells = [table.cells[place] for place in roles.names]
    if all(map(are_texts, cells)) or not any(
        isinstance(cell, several) for column in cells for cell in column
    ):
        return table, None
    rows = [
        (row, combination)
        for row, values in enumerate(zip(*cells, strict=True))
        for combination in itertools.product(
            *(each if isinstance(each, several) else [each] for each in values)
        )
    ]
    picked = np.array([row for row, _ in rows], dtype=np.int64)
    unfolded = [column[picked] for column in table.cells]
    for number, place in enumerate(roles.names):
        unfolded[place] = np.array([each[number] for _, each in rows], dtype=object)
    return replace(table, cells=tuple(unfolded), lines=table.lines[picked]), picked + 1


def _over_used_names(triplets: Triplets, kept: np.ndarray) -> Triplets:
    """Return some rows over the names that they have."""
    if len(kept) == len(triplets):
        return triplets
    # In the order of the names, which is that of their first appearance in the file.
    used = np.unique(triplets.rows[kept])
    rows = np.searchsorted(used, triplets.rows[kept]).astype(np.int32)
    names = [triplets.names[index] for index in used]
    return replace(triplets, names=names, rows=rows, lines=triplets.lines[kept])


def _unfold_trials(triplets: Triplets, odd: np.ndarray) -> tuple[Triplets, str]:
    """Return both triplets that each trial with an odd image implies, and a sentence about them."""
    decided = np.flatnonzero(odd != UNDECIDED)
    others = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[odd[decided]]
    turned = np.take_along_axis(triplets.rows[decided], others, axis=1)
    both = np.stack([turned, turned[:, [1, 0, 2]]], axis=1).reshape(-1, 3)
    note = f"{len(decided):,} trials of three images, two triplets each"
    if n_open := len(odd) - len(decided):
        note += f"; {n_open:,} trials without an odd image left out"
    trials = np.repeat(np.arange(1, len(decided) + 1), 2)
    lines = np.repeat(triplets.lines[decided], 2)
    return replace(triplets, rows=both, lines=lines, is_answered=True, trials=trials), note
