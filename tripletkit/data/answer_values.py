"""What people write for "the first image", "the second" and "cannot tell"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tripletkit.data.text_files import parse_number, shorten_line

# Labels of a question: the first image is nearer, the second is, nobody can tell.
FIRST, SECOND, UNDECIDED = 1, 0, -1

_TIES = frozenset(
    [
        "",
        *"tie tied ties equal equally same neither both none unsure unknown undecided".split(),
        *"skip skipped ? idk nan null na n/a - draw".split(),
        *("cant tell", "can't tell", "cannot tell", "can not tell", "cant-tell", "can't-tell"),
        *("not sure", "dont know", "don't know", "no answer", "no preference"),
    ]
)
_WORDS = (
    ("first", "second"),
    ("1st", "2nd"),
    ("left", "right"),
    ("l", "r"),
    ("b", "c"),
    ("option 1", "option 2"),
    ("option a", "option b"),
    ("image 1", "image 2"),
    ("one", "two"),
)
_TRUTHS = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"))
_PLACES = (
    ("first", "1st", "one", "image1", "image 1"),
    (
        "second",
        "2nd",
        "two",
        "image2",
        "image 2",
    ),
    ("third", "3rd", "three", "image3", "image 3"),
)
# A column in which so many rows are not understood is another kind of column.
_MOST = 0.5


@dataclass(frozen=True)
class AnswerColumn:
    """The answers of a column.

    Attributes:
        labels: `(n_rows,)` int8: 1, 0 or -1; of trials, the place of the odd one, 0 to 2, or -1.
        is_bad: `(n_rows,)` bool: the row's answer is none of those that the others have.
        meaning: what stands for the first image, such as "1 means `b`".
    """

    labels: np.ndarray
    is_bad: np.ndarray
    meaning: str


def read_answer_values(
    texts: np.ndarray, sides: Sequence[str], names: tuple[np.ndarray, np.ndarray] | None = None
) -> AnswerColumn:
    """Tell by the values of a column which of two images each row chose.

    Args:
        texts: `(n_rows,)` objects.
        sides: the words of the two images' columns.
        names: of the first and the second image, where they are known.
    Raises:
        ValueError: if no reading fits, or two do.
    """
    numbers, distinct = pd.factorize(pd.Series(texts, dtype=object), use_na_sentinel=False)
    values = [_plain(str(value)) for value in distinct]
    is_tie = np.array([value in _TIES for value in values], dtype=bool)
    if is_tie.all():
        raise ValueError("expected an answer in some row, got none")
    best: AnswerColumn | None = None
    if names is not None:
        is_first, is_second = (texts == each for each in names)
        labels = np.where(is_first, FIRST, np.where(is_second, SECOND, UNDECIDED)).astype(np.int8)
        is_bad = ~(is_first | is_second | is_tie[numbers])
        if is_bad.mean() < _MOST and (is_first | is_second).any():
            return AnswerColumn(labels, is_bad, "the name of the image that was chosen")
    shown = sides[0] if sides else "the first image"
    for reading, meaning in _readings(values, sides, shown):
        of_value = np.array(
            [
                UNDECIDED if tie else reading.get(value, -2)
                for value, tie in zip(values, is_tie, strict=True)
            ],
            dtype=np.int8,
        )
        labels = of_value[numbers]
        is_bad = labels == -2
        if is_bad.mean() < _MOST and (best is None or is_bad.sum() < best.is_bad.sum()):
            best = AnswerColumn(
                np.where(is_bad, UNDECIDED, labels).astype(np.int8), is_bad, meaning
            )
    if best is None:
        shown = ", ".join(shorten_line(str(value)) for value in distinct[:5])
        raise ValueError(
            "expected 1 and 0, 1 and 2, 1 and -1, first and second, left and right, true and "
            f"false, b and c, or names of the two images, got {shown}"
        )
    return best


def read_odd_values(
    texts: np.ndarray, sides: Sequence[str], names: Sequence[np.ndarray]
) -> AnswerColumn:
    """Tell by the values of a column which of three images is the odd one.

    Args:
        texts: `(n_rows,)` objects.
        sides: the words of the three images' columns.
        names: `(n_rows,)` each, of the three images.
    Raises:
        ValueError: if no reading fits, or two do.
    """
    is_named = np.stack([texts == each for each in names])
    plain = np.array([_plain(str(text)) for text in texts], dtype=object)
    is_tie = np.array([text in _TIES for text in plain], dtype=bool)
    is_bad = ~(is_named.any(axis=0) | is_tie)
    if is_bad.mean() < _MOST and is_named.any():
        labels = np.where(is_named.any(axis=0), is_named.argmax(axis=0), UNDECIDED)
        return AnswerColumn(labels.astype(np.int8), is_bad, "the name of the odd image")
    place_of = {word: place for place, words in enumerate(_PLACES) for word in words}
    place_of |= {_plain(side): place for place, side in enumerate(sides) if not side.isdigit()}
    for word, place in (("left", 0), ("middle", 1), ("center", 1), ("right", 2)):
        place_of.setdefault(word, place)
    numbers = {value: parse_number(value) for value in set(plain[~is_tie])}
    whole = {number for number in numbers.values() if number == number}
    meaning = "the place of the odd image"
    if whole:
        if not whole <= {0, 1, 2, 3} or {0, 3} <= whole:
            raise ValueError(f"expected 1, 2 or 3, or the odd image's name, got {min(numbers)!r}")
        if not whole & {0, 3}:
            raise ValueError(
                "expected 3 or 0 in some row, got 1 and 2 alone, which leave open whether images "
                "are counted from 0 or from 1. Write first, second and third."
            )
        start = 0 if 0 in whole else 1
        place_of |= {
            text: int(number) - start for text, number in numbers.items() if number == number
        }
        meaning = f"the place of the odd image, counted from {start}"
    elif not set(plain[~is_tie]) & set(place_of) and {"a", "b", "c"} >= set(plain[~is_tie]):
        place_of |= {"a": 0, "b": 1, "c": 2}
    labels = np.array([place_of.get(text, UNDECIDED) for text in plain], dtype=np.int8)
    is_bad = (labels == UNDECIDED) & ~is_tie
    if is_bad.mean() >= _MOST:
        raise ValueError(
            "expected 1, 2 or 3, or the odd image's name, got "
            f"{shorten_line(str(texts[is_bad][0]))}"
        )
    return AnswerColumn(labels, is_bad, meaning)


def could_be_answers(texts: np.ndarray) -> bool:
    """Return whether a column of few distinct values could say which of two images was chosen."""
    values = {_plain(str(text)) for text in texts}
    return 2 <= len(values) <= 3 and (len(texts) > len(values) or len(texts) > 3)


def _plain(value: str) -> str:
    return value.strip().lower().replace("_", " ").replace("\u2019", "'")


def _readings(
    values: Sequence[str], sides: Sequence[str], shown: str
) -> list[tuple[dict[str, int], str]]:
    """Return what each value may mean, and what stands for the first image."""
    found: list[tuple[dict[str, int], str]] = []
    pairs = [*_WORDS, *_TRUTHS]
    words = [_plain(side) for side in sides]
    if len(words) == 2:
        pairs.insert(0, (words[0], words[1]))
        if words != ["b", "c"] and not set(words) & {"b", "c"}:
            pairs.append(("a", "b"))
        if words == ["a", "b"]:
            pairs.remove(("b", "c"))
    for first, second in pairs:
        if first in values or second in values:
            found.append(({first: FIRST, second: SECOND}, f"{first} means `{shown}`"))
    numbers = {value: parse_number(value) for value in values}
    numbers = {value: number for value, number in numbers.items() if number == number}
    distinct = set(numbers.values())
    by_number: dict[float, int] | None = None
    if not distinct:
        return found
    if distinct <= {0, 1}:
        by_number = {1: FIRST, 0: SECOND}
    elif distinct <= {0, 0.5, 1}:
        by_number = {1: FIRST, 0: SECOND, 0.5: UNDECIDED}
    elif distinct <= {1, 2}:
        by_number = {1: FIRST, 2: SECOND}
    elif distinct <= {-1, 1}:
        by_number = {1: FIRST, -1: SECOND}
    elif distinct <= {-1, 0, 1, 2}:
        other = 2 if 2 in distinct else -1
        raise ValueError(
            f"expected two numbers, got {', '.join(f'{n:g}' for n in sorted(distinct))}, which can "
            f"be read in two ways: 1 and {other} choose and 0 is a tie, or 1 and 0 choose and "
            f"{other} is a tie. Write first, second and tie"
        )
    elif all(0 <= number <= 1 for number in distinct):
        raise ValueError(
            "expected two numbers, got shares; where it is the share of people who chose the "
            "first image, name it with `columns`, as share"
        )
    if by_number is not None:
        reading = {text: by_number[number] for text, number in numbers.items()}
        found.append((reading, f"1 means `{shown}`"))
    return found
