"""Tables as judgements: rows turned to integers, and what their columns say of the answers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tripletkit.data.answer_values import (
    UNDECIDED,
    AnswerColumn,
    could_be_answers,
    read_answer_values,
    read_odd_values,
)
from tripletkit.data.columns import Roles, find_answers, find_roles, says_nothing
from tripletkit.data.tables import FileTable, LineProblem
from tripletkit.data.text_files import check_name, parse_number, shorten_line
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import MAX_VOTES, Votes
from tripletkit.errors import TripletFileError

ODD_PLACES = {"first": 0, "second": 1, "last": 2}
_ROW_OF_IMAGES = (("anchor", "positive", "negative"), ("a", "b", "c"), ("query", "first", "second"))


@dataclass(frozen=True)
class ReadRows:
    """What a file says, row by row.

    Attributes:
        triplets: anchor, first and second image; of trials two rows each, the odd image last.
        labels: `(n_triplets,)` int8, see `Truth`; None where no column says it.
        votes: None where no columns say it.
        problems: lines that could not be read.
        ignored: columns that are not read.
        notes: what was understood, a sentence each.
    """

    triplets: Triplets
    labels: np.ndarray | None = None
    votes: Votes | None = None
    problems: tuple[LineProblem, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_rows(
    table: FileTable,
    columns: Mapping[str, str] | None = None,
    odd_place: int | None = None,
    names: Sequence[str] | None = None,
    *,
    in_file_order: bool = True,
) -> ReadRows | None:
    """Return what a table says; None if its headings say nothing of judgements.

    Args:
        table: the table.
        columns: see `find_roles`.
        odd_place: which of three images is the odd one of every row, from 0.
        names: that integers are indices of.
        in_file_order: number the images as they stand in a row, and not from the anchor on.
    Raises:
        ValueError: if the headings leave a choice.
        TripletFileError: if a column may say what was chosen and is not understood.
    """
    headings = table.columns or tuple(map(str, range(1, len(table.cells) + 1)))
    roles = _find_roles(table, headings, columns, odd_place)
    if roles is None:
        return None
    table, of_row = _unfold_lists(table, roles)
    places = sorted(roles.names) if in_file_order else list(roles.names)
    problems = list(table.problems)
    found, numbers, is_good = _index(table, headings, places, names, problems)
    of_place = {place: numbers[:, column] for column, place in enumerate(places)}
    images = np.stack([of_place[place] for place in roles.names], axis=1)
    state = _Reading(table, headings, roles, images, found, is_good, problems)
    _check_other_columns(state)
    labels, votes, notes = state.read_answers(odd_place)
    if (note := _describe_columns(headings, roles)) is not None:
        notes.insert(0, note)
    kept = np.flatnonzero(state.is_good)
    triplets = Triplets(
        found,
        images[kept].astype(np.int32),
        table.lines[kept],
        table.source,
        roles.is_answered,
        None if of_row is None else of_row[kept],
    )
    if labels is not None:
        labels = labels[kept]
    if roles.is_trial:
        triplets, note = _unfold(triplets, labels)
        notes.append(note)
        labels = None
    used = roles.used
    ignored = tuple(text or "(no name)" for place, text in enumerate(headings) if place not in used)
    return ReadRows(
        triplets,
        labels,
        None if votes is None else votes.take(kept),
        tuple(sorted(state.problems, key=lambda problem: problem.line)),
        ignored,
        tuple(notes),
    )


def _find_roles(
    table: FileTable,
    headings: Sequence[str],
    columns: Mapping[str, str] | None,
    odd_place: int | None,
) -> Roles | None:
    def is_file(place: int) -> bool:
        cells = [cell for cell in table.cells[place][:20] if isinstance(cell, str)]
        return bool(cells) and all("." in cell or "/" in cell for cell in cells)

    roles = find_roles(headings, columns, is_file)
    if roles is None and not table.columns and len(headings) == 3:
        roles = Roles((0, 1, 2))
    if odd_place is None or (roles is not None and roles.is_trial):
        return roles
    if roles is None and len(headings) == 3:
        roles = Roles((0, 1, 2))
    return roles and replace(roles, is_trial=True, is_answered=True, is_chosen=True)


@dataclass
class _Reading:
    """A table while its answers are read."""

    table: FileTable
    headings: Sequence[str]
    roles: Roles
    images: np.ndarray
    names: list[str]
    is_good: np.ndarray
    problems: list[LineProblem]

    def read_answers(
        self, odd_place: int | None
    ) -> tuple[np.ndarray | None, Votes | None, list[str]]:
        """Return labels or votes, if there are any, and what was understood."""
        roles = self.roles
        if roles.doubled:
            self._check_doubled()
        if roles.votes is not None:
            return None, self._read_votes(), []
        if roles.share is not None:
            return None, self._read_shares(), []
        if roles.answer is None:
            if roles.is_trial:
                place = ODD_PLACES["last"] if odd_place is None else odd_place
                return np.full(len(self.images), place, dtype=np.int8), None, []
            return None, None, []
        heading = self.headings[roles.answer]
        texts = self._texts(roles.answer)
        named = self._names_of_rows()
        try:
            if roles.is_trial:
                answers = read_odd_values(texts, roles.sides, named)
            else:
                answers = read_answer_values(texts, roles.sides, (named[1], named[2]))
        except ValueError as error:
            raise TripletFileError(
                f'{self.table.source}: column "{heading}": {error}. Where it does not say which '
                "image was chosen, name the columns that count with `columns`."
            ) from error
        self._refuse(answers.is_bad, texts, f'column "{heading}": expected {_expected(answers)}')
        note = f"answers from column `{heading}`: {answers.meaning}"
        if not roles.is_trial:
            n_turned = int((answers.labels[self.is_good] == 0).sum())
            note += f"; {n_turned:,} of {int(self.is_good.sum()):,} rows turned"
            if n_tied := int((answers.labels[self.is_good] == UNDECIDED).sum()):
                note += f"; {n_tied:,} undecided"
        return answers.labels, None, [note]

    def _texts(self, place: int) -> np.ndarray:
        texts = [text.strip() for text in self.table.texts(place)]
        return np.array(texts, dtype=object).reshape(len(texts))

    def _names_of_rows(self) -> list[np.ndarray]:
        """Return the texts of the three images' columns, as an answer would repeat them."""
        return [self._texts(place) for place in self.roles.names]

    def _check_doubled(self) -> None:
        """Refuse rows whose chosen image is none of the two that were shown."""
        near, far = (self._texts(place) for place in self.roles.names[1:])
        first, second = (self._texts(place) for place in self.roles.doubled)
        fits = ((near == first) & (far == second)) | ((near == second) & (far == first))
        shown = self._texts(self.roles.names[1])
        if not fits.any():
            # Other columns about the same: numbers beside names, or words.
            return
        self._refuse(~fits, shown, "expected one of the two images that were shown as the nearer")

    def _read_votes(self) -> Votes:
        pair = [np.array([parse_number(text) for text in self._texts(p)]) for p in self.roles.votes]
        both = np.stack(pair, axis=1)
        shown = np.array(
            [f"{a} {b}" for a, b in zip(*map(self._texts, self.roles.votes), strict=True)],
            dtype=object,
        )
        is_number = ((both >= 0) & (both <= MAX_VOTES)).all(axis=1)
        self._refuse(~is_number, shown, f"expected two numbers of votes from 0 to {MAX_VOTES:,.0f}")
        is_empty = is_number & ~both.any(axis=1)
        self._refuse(
            is_empty, None, "expected at least one vote, got none; leave such a triplet out"
        )
        return Votes(both[:, 0].copy(), both[:, 1].copy())

    def _read_shares(self) -> Votes:
        texts = self._texts(self.roles.share)
        shares = np.array([parse_number(text) for text in texts], dtype=np.float64)
        self._refuse(~((shares >= 0) & (shares <= 1)), texts, "expected a share from 0 to 1")
        return Votes.of_shares(shares)

    def _refuse(self, is_bad: np.ndarray, texts: np.ndarray | None, message: str) -> None:
        """Note the rows that cannot be read, once each."""
        for row in np.flatnonzero(is_bad & self.is_good):
            got = "" if texts is None else f", got {shorten_line(texts[row])}"
            self.problems.append(LineProblem(int(self.table.lines[row]), f"{message}{got}"))
        self.is_good &= ~is_bad


def _expected(answers: AnswerColumn) -> str:
    return f"an answer as in other rows ({answers.meaning})"


def _index(
    table: FileTable,
    headings: Sequence[str],
    places: Sequence[int],
    names: Sequence[str] | None,
    problems: list[LineProblem],
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the distinct names, `(n_rows, 3)` indices into them, and which rows are good."""
    cells = np.stack([table.cells[place] for place in places], axis=1).reshape(len(table), 3)
    if names is not None:
        return _index_numbers(table, cells, names, problems)
    is_good = np.ones(len(table), dtype=bool)
    is_text = np.array([isinstance(cell, str) for cell in cells.flat], dtype=bool).reshape(-1, 3)
    for row, column in np.argwhere(~is_text):
        problems.append(
            LineProblem(
                int(table.lines[row]),
                f'column "{headings[places[column]]}": expected an image name as text, got '
                f"{cells[row, column]!r}. Read a table with dtype=str, so that 00123 stays text; "
                "give `names` where these are places in a list of names.",
            )
        )
    is_good &= is_text.all(axis=1)
    numbers, found = pd.factorize(np.where(is_text, cells, "").ravel())
    numbers = numbers.reshape(-1, 3)
    for number, name in enumerate(found):
        try:
            check_name(name)
        except ValueError as error:
            for row in np.flatnonzero((numbers == number).any(axis=1) & is_good):
                problems.append(
                    LineProblem(int(table.lines[row]), f"{error} in {_shown(cells[row])}")
                )
            is_good &= ~(numbers == number).any(axis=1)
    if not is_good.all():
        kept, used = pd.factorize(numbers[is_good].ravel())
        numbers = np.zeros_like(numbers)
        numbers[is_good] = kept.reshape(-1, 3)
        found = found[used]
    return list(found), numbers, is_good


def _index_numbers(
    table: FileTable, cells: np.ndarray, names: Sequence[str], problems: list[LineProblem]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names that integers stand for."""
    numbers, texts = pd.factorize(pd.Series(cells.ravel(), dtype=object))
    values = np.array([parse_number(str(text)) for text in texts], dtype=np.float64)
    is_whole = values == np.floor(values)
    start = (
        1
        if is_whole.any() and values[is_whole].min() >= 1 and values[is_whole].max() == len(names)
        else 0
    )
    values = values - start
    is_known = is_whole & (values >= 0) & (values < len(names))
    good_cells = np.append(is_known, False)[numbers].reshape(-1, 3)
    for row in np.flatnonzero(~good_cells.all(axis=1)):
        wrong = cells[row][~good_cells[row]][0]
        problems.append(
            LineProblem(
                int(table.lines[row]),
                f"expected places in the list of {len(names):,} names, from 0 to "
                f"{len(names) - 1:,}, got {shorten_line(str(wrong))}",
            )
        )
    is_good = good_cells.all(axis=1)
    places = np.append(values, -1)[numbers].reshape(-1, 3)
    kept, used = pd.factorize(places[is_good].astype(np.int64).ravel())
    found = np.zeros((len(table), 3), dtype=np.int64)
    found[is_good] = kept.reshape(-1, 3)
    return [str(names[place]) for place in used], found, is_good


def _check_other_columns(reading: _Reading) -> None:
    """Refuse a column that may say which image was chosen, and is not understood."""
    roles, table, headings = reading.roles, reading.table, reading.headings
    if roles.is_chosen or not len(table):
        return
    is_told = roles.is_answered is True
    named = find_answers(headings, roles.used) if is_told else []
    first, second = (reading._texts(place) for place in roles.names[1:])
    for place, heading in enumerate(headings):
        if place in roles.used or says_nothing(heading):
            continue
        if is_told and (place not in named or roles.answer is not None or roles.votes):
            continue
        texts = reading._texts(place)
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


def _describe_columns(headings: Sequence[str], roles: Roles) -> str | None:
    texts = [headings[place].strip() for place in roles.names]
    plain = [text.lower() for text in texts]
    if tuple(plain) in _ROW_OF_IMAGES or set(plain) == {"1", "2", "3"}:
        return None
    shown = ", ".join(f"`{text}`" for text in texts)
    if roles.is_trial:
        return f"three images of a trial from columns {shown}"
    what = (
        ("anchor", "nearer", "other")
        if roles.is_answered and not _asks(roles)
        else (
            "anchor",
            "first",
            "second",
        )
    )
    return ", ".join(
        f"{word} image from column `{text}`" for word, text in zip(what, texts, strict=True)
    )


def _asks(roles: Roles) -> bool:
    return roles.answer is not None or roles.votes is not None or roles.share is not None


def _unfold_lists(table: FileTable, roles: Roles) -> tuple[FileTable, np.ndarray | None]:
    """Return a row for each pair of several nearer and several other images, and its trial."""
    cells = [table.cells[place] for place in roles.names]
    is_list = [[isinstance(cell, list | tuple | np.ndarray) for cell in each] for each in cells]
    if not any(map(any, is_list)):
        return table, None
    rows: list[int] = []
    texts: list[tuple] = []
    for row, values in enumerate(zip(*cells, strict=True)):
        several = [list(v) if isinstance(v, list | tuple | np.ndarray) else [v] for v in values]
        for combination in itertools.product(*several):
            rows.append(row)
            texts.append(combination)
    picked = np.array(rows, dtype=np.int64)
    unfolded = [each[picked] for each in table.cells]
    for place, column in zip(roles.names, zip(*texts, strict=True), strict=True):
        unfolded[place] = np.array(column, dtype=object)
    return replace(table, cells=tuple(unfolded), lines=table.lines[picked]), picked + 1


def _unfold(triplets: Triplets, odd: np.ndarray) -> tuple[Triplets, str]:
    """Return both triplets that each trial implies, and a sentence about them."""
    decided = np.flatnonzero(odd != UNDECIDED)
    n_open = len(odd) - len(decided)
    rows, odd = triplets.rows[decided], odd[decided]
    others = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[odd]
    turned = np.take_along_axis(rows, others, axis=1)
    both = np.stack([turned, turned[:, [1, 0, 2]]], axis=1).reshape(-1, 3)
    lines = np.repeat(triplets.lines[decided], 2)
    note = f"{len(decided):,} trials of three images, two triplets each"
    if n_open:
        note += f"; {n_open:,} trials without an odd image left out"
    trials = np.repeat(np.arange(1, len(decided) + 1), 2)
    return replace(triplets, rows=both, lines=lines, is_answered=True, trials=trials), note


def _shown(cells: np.ndarray) -> str:
    return shorten_line(",".join(map(str, cells)))


def unfold_trials(triplets: Triplets, odd_place: int) -> tuple[Triplets, str]:
    """Return both triplets that each row of three images implies, and a sentence about them.

    Args:
        triplets: as they stand in a file without heading.
        odd_place: which of the three is the odd one, from 0.
    """
    return _unfold(triplets, np.full(len(triplets), odd_place))


def index_places(triplets: Triplets, names: Sequence[str]) -> tuple[Triplets, list[LineProblem]]:
    """Return triplets whose names are places in a list, over the names there; and bad lines."""
    cells = np.array(triplets.names, dtype=object)[triplets.rows]
    table = FileTable((), (), triplets.lines, triplets.source)
    problems: list[LineProblem] = []
    found, rows, is_good = _index_numbers(table, cells, names, problems)
    kept = triplets.take(is_good)
    return replace(kept, names=found, rows=rows[is_good].astype(np.int32)), problems
