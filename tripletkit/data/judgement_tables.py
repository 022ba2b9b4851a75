"""Tables as judgements: rows turned to integers, and what their columns say of the answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from tripletkit.data.columns import (
    FORMS,
    Roles,
    Wanted,
    find_roles,
    is_numbered,
    is_of_far,
    is_of_index,
    is_of_judge,
    may_answer,
    may_grade,
)
from tripletkit.data.tables import FileTable, are_texts, open_table, place_problems
from tripletkit.data.text_files import CONTROL, FileRecord, parse_number, shorten_line
from tripletkit.data.triplets import MAX_VOTES, Triplets, Votes
from tripletkit.errors import (
    AnswerFileError,
    DataWarning,
    TripletFileError,
    caution,
    describe_problems,
)

logger = logging.getLogger("tripletkit")

# Labels of a question: the first image is nearer, the second is, nobody can tell.
FIRST, SECOND, UNDECIDED = 1, 0, -1
_BAD = -2
# Which of three images is the odd one of every row, where the user says so.
_ODD_PLACES = {"first": 0, "second": 1, "last": 2}
_ODD_ONE = "odd one"
_ROW_OF_IMAGES = (("anchor", "positive", "negative"), ("a", "b", "c"), ("query", "first", "second"))

_TIES = frozenset(
    [
        "",
        *"tie tied ties equal equally same neither both none unsure unknown undecided".split(),
        *"skip skipped ? idk nan null na n/a - draw".split(),
        *("cant tell", "can't tell", "cannot tell", "can not tell", "cant-tell", "can't-tell"),
        *("not sure", "dont know", "don't know", "no answer", "no preference"),
    ]
)
# Words for the two images, and for three.
_OF_TWO = (
    *(("first", "second"), ("1st", "2nd"), ("left", "right"), ("l", "r"), ("b", "c")),
    *(("option 1", "option 2"), ("option a", "option b"), ("image 1", "image 2"), ("one", "two")),
    *(("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n")),
)
_OF_THREE = (
    *(("first", "second", "third"), ("1st", "2nd", "3rd"), ("one", "two", "three")),
    *(("image1", "image2", "image3"), ("image 1", "image 2", "image 3"), ("a", "b", "c")),
    *(("left", "middle", "right"), ("left", "center", "right")),
)
# A column in which so many rows are not understood is another kind of column.
_MOST = 0.5
# Headings of what tells rows apart; pandas writes its index below none.
_IDS = ("id", "index", "idx", "row", "row_id", "question", "question_id", "")
_AROUND_STEM = r".*[/\\]|\.\w+$"


# Of each row the place of the image that it names, of two or three the first is 0, or `UNDECIDED`;
# whether its answer is none of those that the others have; what stands for the first image.
_Choices = tuple[np.ndarray, np.ndarray, str]


def _read_choices(
    texts: np.ndarray, sides: Sequence[str], n_images: int, names: Sequence[np.ndarray] = ()
) -> _Choices | None:
    """Tell by the values of a column which image each row names: of two the nearer, of three the
    odd one. None if no reading fits; two that fit are a `ValueError`."""
    numbers, distinct = pd.factorize(pd.Series(texts, dtype=object), use_na_sentinel=False)
    values = [_plain(str(value)) for value in distinct]
    is_tie = np.array([value in _TIES for value in values], dtype=bool)
    if is_tie.all():
        raise ValueError("expected an answer in some row, got none")
    if names:
        is_named = np.stack([texts == each for each in names])
        is_bad = ~(is_named.any(axis=0) | is_tie[numbers])
        if is_bad.mean() < _MOST and is_named.any():
            places = np.where(is_named.any(axis=0), is_named.argmax(axis=0), UNDECIDED)
            return places.astype(np.int8), is_bad, "the name of the image"
    best: _Choices | None = None
    for reading, meaning in _readings(values, list(map(_plain, sides)), n_images):
        of_value = [
            UNDECIDED if tie else reading.get(value, _BAD)
            for value, tie in zip(values, is_tie, strict=True)
        ]
        places = np.array(of_value, dtype=np.int8)[numbers]
        is_bad = places == _BAD
        if is_bad.mean() < _MOST and (best is None or is_bad.sum() < best[1].sum()):
            best = np.where(is_bad, UNDECIDED, places).astype(np.int8), is_bad, meaning
    return best


def _describe_answers(texts: np.ndarray, n_images: int) -> str:
    """Say what answers may be, and what these are."""
    shown = ", ".join(shorten_line(text) for text in list(dict.fromkeys(texts.tolist()))[:5])
    if n_images == 3:
        return f"expected 1, 2 or 3, or the odd image's name, got {shown}"
    return (
        "expected 1 and 0, 1 and 2, 1 and -1, first and second, left and right, true and false, b "
        f"and c, or names of the two images, got {shown}"
    )


def _could_be_answers(texts: np.ndarray, *, with_numbers: bool) -> bool:
    """Return whether a column could say which image was chosen, or by numbers how much nearer."""
    values = {_plain(str(text)) for text in texts}
    told = values - _TIES
    if 1 <= len(told) <= 3:
        return len(values) > 1 and (len(texts) > len(values) or len(texts) > 3)
    if not with_numbers:
        return False
    numbers = [parse_number(value) for value in told]
    is_place = len(set(texts)) == len(texts) and all(number % 1 == 0 for number in numbers)
    return len(told) > 3 and all(number == number for number in numbers) and not is_place


def _are_choices(texts: np.ndarray, sides: Sequence[str]) -> bool:
    """Return whether all of a column's values are answers, or shares of people, and not alike."""
    values = sorted({_plain(str(text)) for text in texts} - _TIES)
    try:
        readings = _readings(values, list(map(_plain, sides)), 2)
    except ValueError:
        return True
    return len(values) > 1 and any(set(values) <= set(reading) for reading, _ in readings)


def _plain(value: str) -> str:
    return value.strip().lower().replace("_", " ").replace("\u2019", "'")


def _readings(
    values: Sequence[str], sides: Sequence[str], n_images: int
) -> list[tuple[dict[str, int], str]]:
    """Return which image each value may name, and what stands for the first one."""
    words: list[Sequence[str]] = list(_OF_TWO if n_images == 2 else _OF_THREE)
    shown = f"`{sides[0]}`" if sides else "the first image"
    if len(sides) == n_images == 2:
        words.insert(0, sides)
        if not set(sides) & {"b", "c"}:
            words.append(("a", "b"))
        if list(sides) == ["a", "b"]:
            words.remove(("b", "c"))
    elif len(sides) == n_images and not any(side.isdigit() for side in sides):
        words.insert(0, sides)
    found = [
        ({word: place for place, word in enumerate(each)}, f"{each[0]} means {shown}")
        for each in words
        if set(each) & set(values)
    ]
    numbers = {value: parse_number(value) for value in values}
    numbers = {value: number for value, number in numbers.items() if number == number}
    if numbers:
        of_numbers = _of_two if n_images == 2 else _of_three
        place_of, start = of_numbers(set(numbers.values()))
        reading = {text: place_of[n] for text, n in numbers.items() if n in place_of}
        found.append((reading, f"{start} means {shown}"))
    return found


def _of_two(numbers: set[float]) -> tuple[dict[float, int], int]:
    """Return the place that each number means, and the one that means the first."""
    kinds: list[dict[float, int]]
    kinds = [{1: 0, 0: 1}, {1: 0, 0: 1, 0.5: UNDECIDED}, {1: 0, 2: 1}, {1: 0, -1: 1}]
    for known in kinds:
        if numbers <= set(known):
            return known, 1
    if numbers <= {-1, 0, 1, 2}:
        other = 2 if 2 in numbers else -1
        raise ValueError(
            f"expected two numbers, got {', '.join(f'{n:g}' for n in sorted(numbers))}, which can "
            f"be read in two ways: 1 and {other} choose and 0 is a tie, or 1 and 0 choose and "
            f"{other} is a tie. Write first, second and tie"
        )
    if all(0 <= number <= 1 for number in numbers):
        raise ValueError(
            "expected two numbers, got shares; where it is the share of people who chose the "
            "first image, name it with `columns`, as share"
        )
    return {}, 1


def _of_three(numbers: set[float]) -> tuple[dict[float, int], int]:
    """Return the place of the odd image that each number means, and the one of the first."""
    if not numbers <= {0, 1, 2, 3} or numbers >= {0, 3}:
        raise ValueError(f"expected 1, 2 or 3, or the odd image's name, got {min(numbers):g}")
    if not numbers & {0, 3}:
        raise ValueError(
            "expected 3 or 0 in some row, got 1 and 2 alone, which leave open whether images are "
            "counted from 0 or from 1. Write first, second and third."
        )
    start = 0 if 0 in numbers else 1
    return {start + place: place for place in range(3)}, start


def open_rows(
    given: Path | BinaryIO | pd.DataFrame,
    wanted: Wanted,
    *,
    columns: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    with_problems: bool = False,
) -> _TableRows:
    """Return what a file or a table says, or refuse it, and log how it was understood."""
    columns = dict(columns or {})
    odd_place = _ODD_PLACES.get(columns.get("odd", ""))
    if odd_place is not None:
        del columns["odd"]
    form = FORMS[wanted]
    try:
        read = _TableRows(*open_table(given, wanted, columns))
        read.read(wanted, columns, odd_place, names)
    except TripletFileError as error:
        raise form.error(str(error)) from error
    problems = describe_problems(place_problems(read.problems, read.source))
    if problems and not with_problems:
        raise form.error(problems)
    if not len(read.table if read.triplets is None else read.triplets):
        expected = "rows below the heading" if read.table.columns else f"{form.expected} a line"
        expected += ", got none"
        if wanted == "triplets":
            expected = "lines of three image names, got no triplet at all"
        raise form.error(problems or f"{read.source}: expected {expected}")
    for note in read.notes:
        logger.info("%s: %s.", read.source, note)
    return read


@dataclass
class _TableRows:
    """What a table says and how it was understood; of trials two rows each, the odd image last."""

    table: FileTable
    record: FileRecord
    roles: Roles = field(init=False)
    triplets: Triplets | None = None
    labels: np.ndarray | None = None
    votes: Votes | None = None
    column: str = ""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.problems = dict(self.table.problems)

    @property
    def source(self) -> str:
        return self.table.source

    def read(
        self,
        wanted: Wanted,
        columns: Mapping[str, str],
        odd_place: int | None,
        names: Sequence[str] | None,
    ) -> None:
        """Fill in what the table says; `odd_place` of three images is the odd one of every row."""
        headings = self.table.headings
        if not headings:
            return
        try:
            self.roles = roles = _find_roles(self.table, wanted, columns, odd_place)
        except ValueError as error:
            raise TripletFileError(f"{self.source}:1: {error}") from error
        self.table, trials = _unfold_lists(self.table, roles)
        self.is_good = np.ones(len(self.table), dtype=bool)
        triplets = None
        if roles.names:
            triplets = replace(self._read_triplets(names), trials=trials)
            self.notes += _describe_columns(headings, roles)
            if wanted != "answers":
                self._check_doubtful()
        if roles.doubled:
            self._check_doubled()
        labels = votes = None
        if roles.votes is not None:
            votes = self._read_votes(roles.votes, is_said="votes_first" in columns)
        elif roles.share is not None:
            votes = self._read_shares(roles.share)
        elif odd_place is not None:
            labels = np.full(len(self.table), odd_place)
        elif roles.answer is not None and len(self.table):
            labels = self._read_labels(roles.answer, wanted, is_said="answer" in columns)
            self.column = self.table.columns[roles.answer].lower() if self.table.columns else ""
        kept = np.flatnonzero(self.is_good)
        self.votes = None if votes is None else votes.take(kept)
        self.labels = None if labels is None else labels[kept]
        if triplets is not None:
            self.triplets = triplets.take(kept)
            if len(kept) < len(triplets):
                used = Triplets.from_array(self.triplets.rows, triplets.names)
                self.triplets = replace(self.triplets, names=used.names, rows=used.rows)
            if roles.is_trial and self.labels is not None:
                self.triplets, note = _unfold_trials(self.triplets, self.labels)
                self.notes.append(note)
                self.labels = None
        ignored = [text or "(no name)" for n, text in enumerate(headings) if n not in roles.used]
        if ignored and wanted in ("triplets", "votes"):
            listed = ", ".join(f'"{column}"' for column in ignored[:10])
            more = f" and {len(ignored) - 10:,} more" if len(ignored) > 10 else ""
            caution(f"{self.source}: columns that are not read: {listed}{more}", DataWarning)

    @property
    def ids(self) -> tuple[str, ...] | None:
        """What a column says of which question each row is; None without such a column."""
        for place, heading in enumerate(self.table.columns):
            if heading.strip().lower() in _IDS and place not in self.roles.used:
                texts = tuple(self._texts(place))
                return texts if len(set(texts)) == len(texts) else None
        return None

    def _texts(self, place: int) -> np.ndarray:
        texts = [text.strip() for text in self.table.texts(place)]
        return np.array(texts, dtype=object).reshape(len(texts))

    def _numbers(self, place: int) -> np.ndarray:
        return np.array([parse_number(text) for text in self._texts(place)], dtype=np.float64)

    def _refuse(
        self,
        is_bad: np.ndarray,
        message: str | Callable[[int], str],
        shown: np.ndarray | None = None,
    ) -> None:
        """Note the rows that cannot be read, once each."""
        for row in np.flatnonzero(is_bad & self.is_good).tolist():
            said = message if isinstance(message, str) else message(row)
            got = "" if shown is None else f", got {shorten_line(shown[row])}"
            self.problems[int(self.table.lines[row])] = f"{said}{got}"
        self.is_good &= ~is_bad

    def _read_triplets(self, names: Sequence[str] | None) -> Triplets:
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
                _check_name(name)
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
                f'column "{self.table.headings[roles.names[column]]}": expected an image name as '
                f"text, got {cells[row, column]!r}. Read a table with dtype=str, so that 00123 "
                "stays text; give `names` where these are places in a list of names."
            )

        self._refuse(is_bad.reshape(-1, 3).max(axis=1), say)
        rows = numbers.reshape(-1, 3).astype(np.int32)
        return Triplets(list(found), rows, table.lines, table.source, roles.is_answered)

    def _names_of_numbers(self, cells: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return the names that integers stand for, counted from 0 or, if the last is, from 1."""
        numbers, texts = pd.factorize(pd.Series(cells.ravel(), dtype=object))
        values = np.array([parse_number(str(text)) for text in texts], dtype=np.float64)
        whole = values[values == np.floor(values)]
        start = int(len(whole) > 0 and whole.min() >= 1 and whole.max() == len(names))
        self.notes.append(f"numbers are places in the list of names, counted from {start}")
        values -= start
        is_known = (values == np.floor(values)) & (values >= 0) & (values < len(names))
        self._refuse(
            np.append(~is_known, True)[numbers].reshape(-1, 3).max(axis=1),
            lambda row: (
                f"expected places in the list of {len(names):,} names, got "
                f"{shorten_line(','.join(map(str, cells[row])))}"
            ),
        )
        known = np.array([*names, "x"], dtype=object)
        places = np.where(is_known, values, len(names)).astype(np.int64)
        return known[np.append(places, len(names))[numbers]].reshape(-1, 3)

    def _read_votes(self, places: tuple[int, int], *, is_said: bool) -> Votes:
        first, second = map(self._numbers, places)
        one, other = (self.table.headings[place] for place in places)
        is_open = not is_said and bool(self.roles.names) and is_numbered(one, self.roles.sides)
        if is_open and ({*first, *second} <= {0, 1} or {*first, *second} <= {1, 2}):
            raise TripletFileError(
                f'{self.source}: the columns "{one}" and "{other}" may be answers of two people. '
                f"If they count votes, use `columns` with votes_first={one},votes_second={other}."
            )
        most, least = np.maximum(first, second), np.minimum(first, second)
        self._refuse(
            ~((least >= 0) & (most <= MAX_VOTES)),
            f"expected two numbers of votes from 0 to {MAX_VOTES:,.0f}",
            self._texts(places[0]) + " " + self._texts(places[1]),
        )
        message = "expected at least one vote, got none; leave such a triplet out"
        self._refuse(most == 0, message)
        return Votes(first, second)

    def _read_shares(self, place: int) -> Votes:
        shares = self._numbers(place)
        is_bad = ~((shares >= 0) & (shares <= 1))
        self._refuse(is_bad, "expected a share from 0 to 1", self._texts(place))
        return Votes.of_shares(shares)

    def _read_labels(self, place: int, wanted: Wanted, *, is_said: bool) -> np.ndarray:
        """Return labels, or of trials the place of the odd image, and note what was understood."""
        roles, texts = self.roles, self._texts(place)
        n_images = 3 if roles.is_trial else 2
        named = [self._texts(each) for each in roles.names[-n_images:]]
        shown = "" if not self.table.columns else f'column "{self.table.headings[place]}": '
        sides = roles.sides or (() if named else ("b", "c"))
        try:
            read = _read_choices(texts, sides, n_images, named)
            heading = self.table.headings[place]
            is_index = bool(named) and n_images == 2 and is_of_index(heading) and not is_said
            if is_index and {*texts} <= {"0", "1"}:
                raise ValueError(
                    "expected first and second, got 0 and 1, which leave open whether places are "
                    f"meant, counted from 0. If 1 means the first image, use `columns` with "
                    f"answer={heading}; if 0 does, `swap` beside it"
                )
            if read is None and named:
                raise ValueError(_describe_answers(texts, n_images))
        except ValueError as error:
            hint = " Where it does not say which image was chosen, name the columns that count "
            hint = f".{hint}with `columns`." if named else ""
            raise TripletFileError(f"{self.table.source}: {shown}{error}{hint}") from error
        if read is None:
            self._refuse(~np.isin(texts, ("0", "1")), "expected 0 or 1", texts)
            return np.zeros(len(texts), dtype=np.int8)
        places, is_bad, meaning = read
        if named:
            expected = f"{shown}expected an answer as in other rows ({meaning})"
            self._refuse(is_bad, expected, texts)
        else:
            self._refuse(is_bad | (texts == ""), "expected 0 or 1", texts)
        note = f"answers from column `{self.table.headings[place]}`: {meaning}"
        labels = np.array([FIRST, SECOND, UNDECIDED], dtype=np.int8)[places]
        is_told = bool(named) and wanted != "answers"
        if not roles.is_trial:
            of_good = labels[self.is_good]
            if is_told:
                note += f"; {int((of_good == SECOND).sum()):,} of {len(of_good):,} rows turned"
            if n_tied := int((of_good == UNDECIDED).sum()):
                note += f"; {n_tied:,} undecided"
        if is_told or not set(texts) <= {"0", "1"}:
            self.notes.append(note)
        return places if roles.is_trial else labels

    def _check_doubled(self) -> None:
        """Refuse a winner or a loser that was not shown, by the columns that say what was."""
        chosen, shown = (
            [set(pair) for pair in zip(*map(self._texts, places), strict=True)]
            for places in (self.roles.names[1:], self.roles.doubled)
        )
        is_other = np.array([one != other for one, other in zip(chosen, shown, strict=True)])
        # Other columns may be about the same.
        if not is_other.all():
            message = "expected one of the two images that were shown as the nearer"
            self._refuse(is_other, message, self._texts(self.roles.names[1]))

    def _check_doubtful(self) -> None:
        """Refuse a column that may say which image was chosen, and is not understood."""
        headings, roles = self.table.headings, self.roles
        for place in roles.doubtful if len(self.table) else ():
            texts, heading = self._texts(place), headings[place]
            if roles.is_answered or may_answer(heading):
                with_numbers = may_grade(heading, roles.sides)
                is_doubtful = _could_be_answers(texts, with_numbers=with_numbers)
            else:
                is_doubtful = is_of_judge(heading) and _are_choices(texts, roles.sides)
            if not is_doubtful and not self._is_name_of_either(texts):
                continue
            values = ", ".join(map(shorten_line, list(dict.fromkeys(texts.tolist()))[:3]))
            others = ("positive", "negative") if roles.is_answered else ("first", "second")
            those = ",".join(
                f"{field}={headings[column]}"
                for field, column in zip(("anchor", *others), roles.names, strict=True)
            )
            raise TripletFileError(
                f'{self.table.source}: the column "{heading}" ({values}) may say which '
                "image was chosen, and it is not clear how. If it does, use `columns` with "
                f"answer={heading}{' and `swap`' * is_of_far(heading)}; if it does not, name with "
                f"`columns` those that count: {those}."
            )

    def _is_name_of_either(self, texts: np.ndarray) -> bool:
        """Return whether a column names one of the two images in most rows, folder left out."""
        stem, first, second = (
            pd.Series(column[:1000]).str.replace(_AROUND_STEM, "", regex=True)
            for column in (texts, *map(self._texts, self.roles.names[1:3]))
        )
        return bool(((stem == first) | (stem == second)).mean() >= _MOST)


def _find_roles(
    table: FileTable, wanted: Wanted, columns: Mapping[str, str], odd_place: int | None
) -> Roles:
    headings: Sequence[str] = table.headings
    if odd_place is not None:
        # As if a column said it.
        headings, columns = [*headings, _ODD_ONE], {**columns, "odd": _ODD_ONE}
    if columns or table.columns:
        roles = find_roles(headings, wanted, columns, table.has_files)
    else:
        roles = find_roles(FORMS[wanted].headless.get(len(headings), ()), wanted)
    if roles is not None:
        return roles
    if wanted == "triplets":
        raise TripletFileError(
            f"{table.source}: expected a table with the columns anchor, positive, negative or "
            f"others that are known, got {', '.join(headings)}. Say with `columns` which hold "
            "the images, such as anchor=...,positive=...,negative=..., or of trials odd=..."
        )
    hint = ""
    if wanted == "answers" and find_roles(headings, "truth"):
        hint = ". It seems to be a truth file; the answers come before the truth"
    shown = shorten_line(",".join(headings))
    raise ValueError(f"expected {FORMS[wanted].expected}, got {shown}{hint}")


def _check_name(name: str) -> None:
    """Refuse a name that no image can have; raises `ValueError`."""
    if not name:
        raise ValueError("expected an image name, got an empty one")
    if control := CONTROL.search(name):
        code = f"U+{ord(control.group()):04X}"
        raise ValueError(f"expected an image name, got one with the control character {code}")


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
    cells = {place: table.cells[place] for place in roles.names}
    if all(map(are_texts, cells.values())):
        return table, None
    if any(isinstance(cell, Mapping) for column in cells.values() for cell in column):
        return table, None  # which has no order; refused as no name
    frame = pd.DataFrame(cells)
    for place in roles.names:
        frame = frame.explode([place])
    rows = frame.index.to_numpy()
    unfolded = [column[rows] for column in table.cells]
    for place in roles.names:
        unfolded[place] = frame[place].to_numpy(dtype=object)
    trials = rows + 1 if len(rows) > len(table) else None
    return replace(table, cells=tuple(unfolded), lines=table.lines[rows]), trials


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


def labels_of_array(given: Any, source: str) -> np.ndarray:
    """Return `(n_triplets,)` int8 of answers that are given as an array."""
    values = np.asarray(given)
    if values.ndim != 1 or not len(values):
        shown = f"{values.dtype} of the shape {values.shape}"
        raise AnswerFileError(f"{source}: expected 1 or 0 for each triplet, got {shown}")
    if values.dtype.kind in "biuf" and np.isin(values, (0, 1)).all():
        return values.astype(np.int8)
    texts = np.where(pd.isna(values), "nan", values.astype(str)).astype(object)
    try:
        found = _read_choices(texts, ("b", "c"), 2)
    except ValueError as error:
        raise AnswerFileError(f"{source}: {error}") from error
    if found is None or found[1].any():
        raise AnswerFileError(f"{source}: {_describe_answers(texts, 2)}")
    return np.array([FIRST, SECOND, UNDECIDED], dtype=np.int8)[found[0]]
