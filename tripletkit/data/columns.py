"""What the columns of a table of judgements are, and what their values say: the words of people."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from tripletkit.data.text_files import parse_number, shorten_line

# What a table is read as: judgements or questions; how many people said what; which image is the
# nearer one, as people say or as a model does; which class each image is of.
Wanted = Literal["triplets", "votes", "truth", "answers", "labels"]
# Number of columns -> what they are called where there is no heading.
HEADLESS: dict[Wanted, dict[int, tuple[str, ...]]] = {
    "triplets": {3: ("a", "b", "c")},
    "votes": {2: ("votes_b", "votes_c"), 5: ("a", "b", "c", "votes_b", "votes_c")},
    "truth": {1: ("label",)},
    "answers": {1: ("prediction",)},
    "labels": {},
}

# What is asked for beside the images themselves; headings such as `left_path` or `image_a`.
_NOUNS = frozenset(
    "path paths image images img imgs pic picture photo file files filename filepath fname name "
    "names id ids idx index uri object stimulus stim item sample option opt candidate cand choice "
    "alternative alt comparison comp test text example exemplar".split()
)
_VOTES = frozenset("vote votes voted count counts n num wins".split())
_ANCHOR = "anchor query reference ref head probe center centre target pivot base".split()
_NEAR = (
    "positive pos near nearer nearest close closer closest winner similar sim more_similar "
    "most_similar preferred chosen match matching"
).split()
_FAR = (
    "negative neg far farther farthest further furthest loser dissimilar less_similar "
    "least_similar unpreferred rejected distant"
).split()
_SIDES = (
    ("first", "second"),
    ("left", "right"),
    ("1", "2"),
    ("one", "two"),
    ("0", "1"),
    ("a", "b"),
    ("b", "c"),
)
_TRIALS = (
    ("1", "2", "3"),
    ("a", "b", "c"),
    ("0", "1", "2"),
    ("i", "j", "k"),
    ("first", "second", "third"),
    ("one", "two", "three"),
    ("left", "middle", "right"),
    ("left", "center", "right"),
    ("left", "centre", "right"),
)
_ODD = "odd odd_one odd_one_out odd_out oddone oddoneout oddball outlier".split()
# What people said comes before what a model said.
_ANSWERS = (
    "label labels truth ground_truth groundtruth gt answer answers choice chosen winner win "
    "response judgement judgment selected selection pick picked decision preferred preference "
    "closer nearer more_similar most_similar similar closest nearest vote voted"
).split()
_PREDICTIONS = "prediction predictions predicted pred".split()
# Columns that say nothing of the answer, whatever is in them.
_ABOUT = frozenset(
    "rater annotator worker user subject judge participant person observer respondent split fold "
    "part partition subset session trial block screen page row line number position order time "
    "date datetime timestamp created received duration rt latency ms seconds age sex gender "
    "country language device browser dataset source comment note notes batch task version sampler "
    "sample puid margin seed votes vote count".split()
)
# Headings of the names of images and of their classes, the surest first.
_LABELS = {
    "name": "name file_name filename path file_path filepath image_path image_name image_file "
    "image_filename image img img_path img_name file image_id".split(),
    "label": "label class class_name label_name category category_name class_label identity pid "
    "person_id target y class_id label_id category_id id".split(),
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# By the names of `columns`: what a column is.
_FIELDS = (
    *("anchor", "positive", "negative", "first", "second", "answer", "votes_first"),
    *("votes_second", "share", "image1", "image2", "image3", "odd"),
)


# Words that say what a column is.
_KNOWN = frozenset(
    [*_ANCHOR, *_NEAR, *_FAR, *_ODD, *_ANSWERS, *_PREDICTIONS, "share"]
    + [word for sides in (*_SIDES, *_TRIALS) for word in sides]
)


def _split_words(heading: str) -> list[str]:
    """Return the words of a heading, in lower case: `leftPath`, `left_path` -> left, path."""
    return [word.lower() for word in _WORD.findall(heading)]


def _plain_forms(heading: str) -> set[str]:
    """Return a heading's words with and without those for what is asked of the image."""
    words = _split_words(heading)
    return {"_".join(words), "_".join(word for word in words if word not in _NOUNS)} - {""}


@dataclass(frozen=True)
class Roles:
    """Which column is what, by its place in the table.

    Attributes:
        names: anchor, first and second image; of trials the three images; empty without.
        is_answered: the first of the two is the nearer one; None where the words leave it open.
        answer: what says which image was chosen, or which is odd.
        votes, share: how many people chose the first, and the second; the first, of all.
        is_trial: three images of which one is odd.
        sides: the words of the images that are chosen from, as answers may have them.
        doubled: columns that name the two images once more.
        is_chosen: the user named the columns.
    """

    names: tuple[int, ...]
    is_answered: bool | None = None
    answer: int | None = None
    votes: tuple[int, int] | None = None
    share: int | None = None
    is_trial: bool = False
    sides: tuple[str, ...] = ()
    doubled: tuple[int, ...] = ()
    is_chosen: bool = False

    @property
    def used(self) -> set[int]:
        found = {*self.names, *self.doubled, *(self.votes or ()), self.answer, self.share}
        return {place for place in found if place is not None}

    @property
    def tells_answers(self) -> bool:
        return not self.answer == self.votes == self.share is None


class _Headings:
    """The headings of a table by their words; `is_file`: the cells look like names of files."""

    def __init__(self, texts: Sequence[str], is_file: Callable[[int], bool]) -> None:
        self.texts, self.is_file = texts, is_file
        self.words = [set(_split_words(text)) for text in texts]
        self.by_word: dict[str, list[int]] = {}
        for place, text in enumerate(texts):
            for word in _plain_forms(text):
                self.by_word.setdefault(word, []).append(place)

    def among(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if word in self.by_word]

    def columns(self, words: Sequence[str]) -> tuple[int, ...]:
        """Return one column for each word, alike in what they say of the image."""
        nouns = [words & _NOUNS for words in self.words]
        whole = [
            [[place for place in self.by_word[word] if nouns[place] == kind] for word in words]
            for kind in [nouns[place] for place in self.by_word[words[0]]]
        ]
        whole = [found for found in whole if all(found)]
        # `head` may be a number where `head_object` is the name of the file.
        best = max(
            whole or [[self.by_word[word][:1] for word in words]],
            key=lambda found: (
                sum(self.is_file(places[0]) for places in found),
                -sum(len(self.texts[places[0]]) for places in found),
            ),
        )
        return tuple(map(self.one, best))

    def one(self, places: Sequence[int]) -> int:
        if len(places) > 1:
            raise ValueError(
                f'expected each column once, got "{self.texts[places[0]]}" several times'
            )
        return places[0]

    def votes(self, sides: Sequence[str]) -> tuple[int, int] | None:
        """Return the columns that count votes for two sides."""
        found = [
            [n for n, words in enumerate(self.words) if words - _VOTES - _NOUNS == {side}]
            for side in sides
        ]
        found = [[place for place in places if self.words[place] & _VOTES] for places in found]
        return (self.one(found[0]), self.one(found[1])) if len(found) == 2 and all(found) else None


def find_roles(
    headings: Sequence[str],
    wanted: Wanted = "triplets",
    columns: Mapping[str, str] | None = None,
    is_file: Callable[[int], bool] = lambda place: False,
) -> Roles | None:
    """Tell which columns of a table hold what is wanted; None if the headings say nothing of it.

    Args:
        headings: numbers from 1 where the table has none.
        columns: `_FIELDS` -> heading, as the user says; what is left out is told by the headings.
    Raises:
        ValueError: if they leave a choice, or there is no such column.
    """
    if columns:
        return _chosen_roles(headings, wanted, columns, is_file)
    found = _Headings(headings, is_file)
    roles = _trial_roles(found) or _triplet_roles(found)
    if roles is not None:
        return roles if roles.is_trial else _with_answers(roles, found, wanted)
    if wanted == "triplets":
        return None
    roles = _with_answers(Roles((), sides=("b", "c")), found, wanted)
    if wanted == "votes" and sorted(map(str.lower, headings)) == ["b", "c"]:
        first, second = found.columns("bc")
        roles = replace(roles, votes=(first, second))
    return roles if roles.tells_answers else None


def _trial_roles(found: _Headings) -> Roles | None:
    odd = found.among(_ODD)
    if not odd:
        return None
    (answer,) = found.columns(odd[:1])
    for images in _TRIALS:
        if len(found.among(images)) == 3:
            return Roles(found.columns(images), True, answer, is_trial=True, sides=images)
    if (roles := _triplet_roles(found)) is not None and roles.is_answered is not True:
        return replace(roles, is_answered=True, answer=answer, is_trial=True, sides=())
    return None


def _triplet_roles(found: _Headings) -> Roles | None:
    """Return the columns of the three images."""
    anchors = found.among(_ANCHOR)
    has_letters = len(found.among("abc")) == 3
    if not anchors:
        return Roles(found.columns("abc"), sides=("b", "c")) if has_letters else None
    pairs = [pair for pair in _SIDES if len(found.among(pair)) == 2]
    near, far = found.among(_NEAR), found.among(_FAR)
    kinds = {
        "one column for the anchor": anchors,
        "the columns of one kind of heading": [*anchors, "a, b, c"] if has_letters else [],
        "one column for the nearer image and one for the other": near if far else [],
        "one column for the other image": far if near else [],
        "two columns to choose from": [] if near and far else list(map(", ".join, pairs)),
    }
    for expected, several in kinds.items():
        if len(several) > 1:
            raise ValueError(f"expected {expected}, got {' and '.join(several)}")
    if near and far:
        doubled = found.columns((*anchors, *pairs[0]))[1:] if pairs else ()
        names = found.columns((*anchors, *near, *far))
        return Roles(names, True, sides=(*near, *far), doubled=doubled)
    if not pairs:
        return None
    # "first" may be the nearer one; left and right say nothing of that.
    is_open = pairs[0] == ("first", "second") and anchors == ["anchor"]
    return Roles(found.columns((*anchors, *pairs[0])), None if is_open else False, sides=pairs[0])


def _with_answers(roles: Roles, found: _Headings, wanted: Wanted) -> Roles:
    """Return the roles with the columns that say which image was chosen."""
    if wanted != "answers":
        for sides in (roles.sides, *_SIDES):
            votes = found.votes(sides)
            if votes is not None and not set(votes) & set(roles.names):
                return replace(roles, is_answered=True, votes=votes)
        shares = [place for place in found.by_word.get("share", ()) if place not in roles.names]
        if shares:
            return replace(roles, is_answered=True, share=found.one(shares))
        if roles.is_answered:
            return roles
    answers = find_answers(found.texts, set(roles.names), wanted)
    if len(answers) > 1:
        shown = ", ".join(f'"{found.texts[place]}"' for place in answers)
        raise ValueError(
            f"expected one column that says which image was chosen, got {shown}; say which with "
            f"`columns`, such as answer={found.texts[answers[0]]}"
        )
    return replace(roles, is_answered=True, answer=answers[0]) if answers else roles


def find_answers(headings: Sequence[str], taken: set[int], wanted: Wanted = "truth") -> list[int]:
    """Return the columns whose headings say that they hold answers.

    Those of people, if there are any; of a file of a model's answers those of the model.
    """
    kinds = [_ANSWERS, _PREDICTIONS]
    for words in kinds[::-1] if wanted == "answers" else kinds:
        found = [
            place
            for place, heading in enumerate(headings)
            if place not in taken and _plain_forms(heading) & set(words)
        ]
        # A label, a truth and a prediction may stand side by side; the first is meant.
        first = [p for p in found if headings[p].strip().lower() in ("label", "truth")]
        if wanted == "answers" and len(headings) > 1:
            found, first = [place for place in found if place not in first], []
        if found:
            return first[:1] or found
    return []


def find_labels(
    headings: Sequence[str], columns: Mapping[str, str] | None = None
) -> tuple[int, int] | None:
    """Return the places of the columns of names and of labels; None unless there are both.

    Args:
        columns: `name` and `label` -> heading or place from 1, as the user says.
    """
    if unknown := sorted(set(columns or {}) - set(_LABELS)):
        raise ValueError(f"expected `columns` of name and label, got {unknown[0]}")
    words = [heading.strip().lower().replace(" ", "_") for heading in headings]
    found = []
    for role, known in _LABELS.items():
        if columns and role in columns:
            try:
                found.append(_find(headings, columns[role]))
            except ValueError:
                return None
        else:
            found += [words.index(each) for each in known if words.count(each) == 1][:1]
    return (found[0], found[1]) if len(found) == 2 else None


def says_nothing(heading: str) -> bool:
    """Return whether a column by that heading is about the row and not about its answer."""
    words = set(_split_words(heading))
    return bool(words & _ABOUT) or (bool(words) and words <= _NOUNS)


def _chosen_roles(
    headings: Sequence[str],
    wanted: Wanted,
    columns: Mapping[str, str],
    is_file: Callable[[int], bool],
) -> Roles | None:
    """Return the roles that the user says: as if the columns were called so."""
    for name in columns:
        if not (_plain_forms(name) & _KNOWN or set(_split_words(name)) & _VOTES):
            raise ValueError(f"expected one of {', '.join(_FIELDS)}, got {name!r}")
    places = {name: _find(headings, text) for name, text in columns.items()}
    if len(set(places.values())) < len(places):
        raise ValueError(f"expected a column for each of `columns`, got {dict(columns)}")
    named = [""] * len(headings)
    for name, place in places.items():
        named[place] = name
    roles = find_roles(named, wanted, None, is_file)
    if roles is None or not roles.names:
        # What is left out is told by the other headings, or without these by its place.
        others = iter("abc" if all(map(str.isdecimal, headings)) else ())
        mixed = [name or next(others, text) for name, text in zip(named, headings, strict=True)]
        roles = find_roles(mixed, wanted, None, is_file) or roles
    if roles is None:
        raise ValueError("expected columns for the anchor and for two images too in `columns`")
    if "odd" in columns and not roles.is_trial:
        raise ValueError("expected three images of which none is the nearer one beside `odd`")
    if answers := find_answers(list(places), set()):
        answer = places[list(places)[answers[0]]]
        if answer not in roles.names:
            roles = replace(roles, answer=answer, votes=None, share=None, is_answered=True)
    sides = tuple(headings[place].strip().lower() for place in roles.names[-len(roles.sides) :])
    return replace(
        roles,
        is_answered=bool(roles.is_answered),
        is_chosen=True,
        sides=sides if roles.sides and roles.names else (),
    )


def _find(headings: Sequence[str], wanted: str) -> int:
    """Return the place of the column that is called so, or has that number, from 1."""
    wanted = str(wanted).strip()
    exact = [place for place, text in enumerate(headings) if text.strip() == wanted]
    alike = [p for p, text in enumerate(headings) if text.strip().lower() == wanted.lower()]
    for found in (exact, alike):
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise ValueError(f'expected each column once, got "{wanted}" several times')
    if wanted.isdecimal() and 1 <= int(wanted) <= len(headings):
        return int(wanted) - 1
    shown = ", ".join(f'"{text}"' for text in headings[:20])
    raise ValueError(f'expected a column "{wanted}", there are {shown}')


# Rows below the first that are looked at to tell a heading from names.
N_COMPARED = 100
# Single letters are names of images as often as of columns.
_LETTERS = ["a", "b", "c"]
_TELLING = frozenset(
    "anchor positive negative pos neg query probe reference ref votes share prediction margin "
    "label truth rater annotator worker".split()
)
_USUAL = (_TELLING | _NOUNS).union(
    "row triplet trial target first second third left right similar dissimilar closer farther "
    "nearer further near far winner loser choice chosen other answer vote user subject".split()
)
_WORDLIKE = re.compile(r"[A-Za-z][A-Za-z0-9 _-]*")
# What names of images have and names of columns have not.
_FILE_SHAPES = (re.compile(r".*(\.\w+$|/)", re.DOTALL), re.compile("[0-9]"))


def are_letters(fields: Sequence[str]) -> bool:
    """Return whether fields are a, b and c, which images may be called as well as columns."""
    return sorted(field.strip().lower() for field in fields) == _LETTERS


def resembles_heading(fields: Sequence[str], following: Sequence[Sequence[str]]) -> bool:
    """Return whether a first row seems to name columns, in words that are not known.

    It does if none of its texts comes again below, and

    - one is a word that only columns have (`anchor`, `pos`, `rater`), or
    - two are words that columns often have (`image1`, `left`) and no text below is, or
    - all are plain words and every text below has an extension or a folder, or starts with a digit.
    """
    below = {text for row in following for text in row}
    if len({field.strip().lower() for field in fields}) < len(fields) or below & set(fields):
        return False
    words = [_words_of_columns(field) for field in fields]
    if any(each & _TELLING for each in words):
        return True
    if sum(map(bool, words)) >= 2 and below and not any(map(_words_of_columns, below)):
        return True
    return (
        bool(below)
        and all(map(_WORDLIKE.fullmatch, fields))
        and any(all(map(shape.match, below)) for shape in _FILE_SHAPES)
    )


def _words_of_columns(field: str) -> set[str]:
    """Return the words of a field that are all words of columns, numbers and letters left out."""
    if not _WORDLIKE.fullmatch(field):
        return set()
    words = {word for word in _split_words(field) if word.isalpha() and word not in _LETTERS}
    return words if words <= _USUAL else set()


# Labels of a question: the first image is nearer, the second is, nobody can tell.
FIRST, SECOND, UNDECIDED = 1, 0, -1
_BAD = -2

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


@dataclass(frozen=True)
class _Choices:
    """Which image each row of a column names.

    Attributes:
        places: `(n_rows,)` int8: of two or three images the first is 0; or `UNDECIDED`.
        is_bad: `(n_rows,)` bool: the row's answer is none of those that the others have.
        meaning: what stands for the first image, such as "1 means `b`".
    """

    places: np.ndarray
    is_bad: np.ndarray
    meaning: str


def read_choices(
    texts: np.ndarray, sides: Sequence[str], n_images: int, names: Sequence[np.ndarray] = ()
) -> _Choices | None:
    """Tell by the values of a column which image each row names; None if no reading fits.

    Args:
        n_images: two, of which the nearer one is named, or three, of which the odd one.
        names: `(n_rows,)` each, of the images, where they are known.
    Raises:
        ValueError: if two readings fit.
    """
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
            return _Choices(places.astype(np.int8), is_bad, "the name of the image")
    best: _Choices | None = None
    for reading, meaning in _readings(values, list(map(_plain, sides)), n_images):
        of_value = [
            UNDECIDED if tie else reading.get(value, _BAD)
            for value, tie in zip(values, is_tie, strict=True)
        ]
        places = np.array(of_value, dtype=np.int8)[numbers]
        is_bad = places == _BAD
        if is_bad.mean() < _MOST and (best is None or is_bad.sum() < best.is_bad.sum()):
            best = _Choices(np.where(is_bad, UNDECIDED, places).astype(np.int8), is_bad, meaning)
    return best


def describe_answers(texts: np.ndarray, n_images: int) -> str:
    """Say what answers may be, and what these are."""
    shown = ", ".join(shorten_line(text) for text in list(dict.fromkeys(texts.tolist()))[:5])
    if n_images == 3:
        return f"expected 1, 2 or 3, or the odd image's name, got {shown}"
    return (
        "expected 1 and 0, 1 and 2, 1 and -1, first and second, left and right, true and false, b "
        f"and c, or names of the two images, got {shown}"
    )


def could_be_answers(texts: np.ndarray) -> bool:
    """Return whether a column of few distinct values could say which of two images was chosen."""
    values = {_plain(str(text)) for text in texts}
    return 2 <= len(values) <= 3 and (len(texts) > len(values) or len(texts) > 3)


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
