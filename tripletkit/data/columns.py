"""What the columns of a table of judgements are, told by their headings: the words of people."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from tripletkit.data.text_files import parse_number
from tripletkit.errors import AnswerFileError, LabelFileError, TripletFileError

# What a table is read as: judgements or questions; how many people said what; which image is the
# nearer one, as people say or as a model does; which class each image is of.
Wanted = Literal["triplets", "votes", "truth", "answers", "labels"]


class _Form(NamedTuple):
    expected: str  # of a line, for messages
    error: type[TripletFileError | AnswerFileError | LabelFileError]
    headless: dict[int, tuple[str, ...]]  # number of columns -> what they are called


FORMS: dict[Wanted, _Form] = {
    "triplets": _Form("3 image names", TripletFileError, {3: ("a", "b", "c")}),
    "votes": _Form(
        "two numbers of votes, or three names and two numbers, or a heading with votes_b and "
        "votes_c",
        TripletFileError,
        {2: ("votes_b", "votes_c"), 5: ("a", "b", "c", "votes_b", "votes_c")},
    ),
    "truth": _Form(
        "a heading with one of the columns label, truth, prediction",
        AnswerFileError,
        {1: ("label",)},
    ),
    "answers": _Form("the heading a,b,c,prediction,margin", AnswerFileError, {1: ("prediction",)}),
    "labels": _Form("a heading with the columns name and label", LabelFileError, {}),
}

# What is asked for beside the images themselves; headings such as `left_path` or `image_a`.
_NOUNS = frozenset(
    "path paths image images img imgs pic picture photo file files filename filepath fname name "
    "names id ids idx index uri object stimulus stim item sample option opt candidate cand choice "
    "alternative alt comparison comp test text example exemplar".split()
)
_VOTES = frozenset("vote votes voted wins".split())
# Counts of votes where no column says which image was chosen; else of anything.
_COUNTS = frozenset("count counts n num for".split())
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
_FIRST = {"0", "1", "one"}
_IMAGES = frozenset(_ANCHOR).union(*_SIDES, *_TRIALS)
_ODD = "odd odd_one odd_one_out odd_out oddone oddoneout oddball outlier".split()
# What people said comes before what a model said.
_ANSWERS = (
    "label labels truth ground_truth groundtruth gt answer answers choice chosen winner win "
    "response judgement judgment selected selection pick picked decision preferred preference "
    "closer nearer more_similar most_similar similar closest nearest vote voted"
).split()
_PREDICTIONS = "prediction predictions predicted pred".split()
_ANSWER_WORDS = {"option", "alternative"}.union(*(w.split("_") for w in _ANSWERS + _PREDICTIONS))
_ANSWER_WORDS -= {"more", "most", "ground", "similar"}
_GRADES = {"rating", "likert", "slider", "scale"}
# Columns about the people, the time and what else belongs to a row, which say nothing of the answer
# where no word of an answer stands beside: `worker`, but not `worker_choice`.
_MEASURES = frozenset(
    "time date datetime timestamp created received duration rt latency ms seconds count n".split()
)
_ABOUT = _MEASURES.union(
    "rater annotator worker user subject judge participant person observer respondent "
    "split fold part partition subset session trial block screen page row line number position "
    "order age sex gender country language device browser dataset source comment note notes batch "
    "task version sampler sample puid margin seed confidence weight difficulty".split()
)
# Headings of the names of images and of their classes, the surest first.
_LABELS = {
    "name": "name file_name filename path file_path filepath image_path image_name image_file "
    "image_filename image img img_path img_name file image_id".split(),
    "label": "label class class_name label_name category category_name class_label identity pid "
    "person_id target y class_id label_id category_id id".split(),
}
# These are names of something else in a table of more columns, as a coordinate is.
_WEAK_LABELS = ("y", "id")
# By the names of `columns`: what a column is.
_FIELDS = (
    *("anchor", "positive", "negative", "first", "second", "answer", "votes_first"),
    *("votes_second", "share", "image1", "image2", "image3", "odd"),
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Rows below the first that are looked at to tell a heading from names.
N_COMPARED = 100
# Single letters are names of images as often as of columns.
_LETTERS = ["a", "b", "c"]
_CLEAR = ({"anchor", "positive", "negative"}, {"query", "first", "second"})
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


def _split_words(heading: str) -> list[str]:
    """Return the words of a heading, in lower case: `leftPath`, `left_path` -> left, path."""
    return [word.lower() for word in _WORD.findall(heading)]


def _plain_forms(heading: str) -> set[str]:
    """Return a heading's words with and without those for what is asked of the image."""
    words = _split_words(heading)
    return {"_".join(words), "_".join(word for word in words if word not in _NOUNS)} - {""}


@dataclass(frozen=True)
class Roles:
    """Which column is what, by its place in the table."""

    names: tuple[int, ...]  # anchor, first and second image; the images of a trial; that of a label
    is_answered: bool | None = None  # the first is the nearer one; None where words leave it open
    answer: int | None = None  # which image was chosen, or is odd; the class
    votes: tuple[int, int] | None = None
    share: int | None = None  # of people who chose the first
    is_trial: bool = False  # three images of which one is odd
    sides: tuple[str, ...] = ()  # words of the images to choose from, as answers may have them
    doubled: tuple[int, ...] = ()  # name the two images once more
    doubtful: tuple[int, ...] = ()  # may say what was chosen, and are none of these

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

    def votes(self, sides: Sequence[str], *, with_counts: bool) -> tuple[int, int] | None:
        """Return the columns that count votes for two sides, and for no third image."""
        kinds = _VOTES | _COUNTS if with_counts else _VOTES
        of_side: dict[str, list[int]] = {}
        for place, words in enumerate(self.words):
            side = words - _VOTES - _COUNTS - _NOUNS
            if len(side) == 1 and words & kinds:
                of_side.setdefault(side.pop(), []).append(place)
        if len(sides) != 2 or not all(side in of_side for side in sides):
            return None
        if third := sorted((set(of_side) - set(sides)) & _IMAGES):
            shown = self.texts[of_side[third[0]][0]]
            raise ValueError(_choose_votes(shown))
        return self.one(of_side[sides[0]]), self.one(of_side[sides[1]])


def find_roles(
    headings: Sequence[str],
    wanted: Wanted = "triplets",
    columns: Mapping[str, str] | None = None,
    is_file: Callable[[int], bool] = lambda place: False,
) -> Roles | None:
    """Tell which columns hold what is wanted, as the user or the headings say; None if they do not.

    `columns` are headings or numbers from 1. `ValueError` if a choice is left open or one is
    missing.
    """
    if wanted == "labels":
        return _label_roles(headings, columns or {}, is_file)
    if columns:
        return _chosen_roles(headings, wanted, columns, is_file)
    found = _Headings(headings, is_file)
    roles = _trial_roles(found) or _triplet_roles(found)
    if roles is not None:
        roles = roles if roles.is_trial else _with_answers(roles, found, wanted)
        return replace(roles, doubtful=_find_doubtful(headings, roles))
    if wanted == "triplets":
        return None
    roles = _with_answers(Roles((), sides=("b", "c")), found, wanted)
    if wanted == "votes" and sorted(map(str.lower, headings)) == ["b", "c"]:
        first, second = found.columns("bc")
        roles = replace(roles, votes=(first, second))
    return roles if roles.tells_answers else None


def _label_roles(
    headings: Sequence[str], columns: Mapping[str, str], is_file: Callable[[int], bool]
) -> Roles | None:
    if unknown := sorted(set(columns) - set(_LABELS)):
        raise ValueError(f"expected `columns` of name and label, got {unknown[0]}")
    words = [heading.strip().lower().replace(" ", "_") for heading in headings]
    found = []
    for role, known in _LABELS.items():
        if role in columns:
            try:
                found.append(_find(headings, columns[role]))
            except ValueError:
                return None
        else:
            is_alone = sum(word not in ("", "split") for word in words) == 2
            usual = [each for each in known if is_alone or each not in _WEAK_LABELS]
            places = [words.index(each) for each in usual if words.count(each) == 1]
            # `name` may be that of what is shown, where `filename` is the image's.
            found += sorted(places, key=lambda place: role == "name" and not is_file(place))[:1]
    return Roles((found[0],), answer=found[1]) if len(found) == 2 else None


def _trial_roles(found: _Headings) -> Roles | None:
    odd = found.among(_ODD)
    if not odd:
        return None
    (answer,) = found.columns(odd[:1])
    if others := _find_answers(found.texts, {answer}):
        raise ValueError(_choose_one(found.texts, [answer, *others], "odd"))
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
    answers = [] if roles.is_answered else _find_answers(found.texts, set(roles.names), wanted)
    if wanted != "answers":
        for sides in (roles.sides, *_SIDES):
            votes = found.votes(sides, with_counts=not answers)
            # Beside left and right and a choice, 1 and 2 may be raters.
            is_open = bool(roles.names and answers) and sides != roles.sides and sides[0] in _FIRST
            if votes is None or set(votes) & set(roles.names) or is_open:
                continue
            if roles.names and (sides, roles.sides) == (("a", "b"), ("b", "c")):
                raise ValueError(_choose_votes(found.texts[votes[0]]))
            return replace(roles, is_answered=True, votes=votes)
        shares = [place for place in found.by_word.get("share", ()) if place not in roles.names]
        if shares:
            return replace(roles, is_answered=True, share=found.one(shares))
        if roles.is_answered:
            return roles
    if len(answers) > 1:
        raise ValueError(_choose_one(found.texts, answers, "answer"))
    return replace(roles, is_answered=True, answer=answers[0]) if answers else roles


def _choose_votes(heading: str) -> str:
    return (
        f'expected votes for two images, got "{heading}" too; say with `columns` which count, as '
        "votes_first and votes_second"
    )


def _choose_one(headings: Sequence[str], places: Sequence[int], field: str) -> str:
    shown = ", ".join(f'"{headings[place]}"' for place in places)
    what = "is odd" if field == "odd" else "was chosen"
    return (
        f"expected one column that says which image {what}, got {shown}; say which with "
        f"`columns`, such as {field}={headings[places[0]]}"
    )


def _find_answers(headings: Sequence[str], taken: set[int], wanted: Wanted = "truth") -> list[int]:
    """Return the columns whose headings say that they hold answers, of people before a model's."""
    kinds = [_ANSWERS, _PREDICTIONS]
    for words in kinds[::-1] if wanted == "answers" else kinds:
        found = [
            place
            for place, heading in enumerate(headings)
            if place not in taken and _plain_forms(heading) & set(words)
        ]
        # A label and a truth may stand side by side, and a prediction; the first is meant.
        first = [p for p in found if headings[p].strip().lower() in ("label", "truth")]
        if wanted == "answers" and len(headings) > 1:
            found, first = [place for place in found if place not in first], []
        if found:
            return first[:1] if len(first) == len(found) else found
    return []


def _find_doubtful(headings: Sequence[str], roles: Roles) -> tuple[int, ...]:
    """Return the columns that may say which image was chosen, and that no role was found for."""
    if roles.tells_answers:
        return ()
    bare = [set(_split_words(heading)) - _NOUNS for heading in headings]
    # `winner` beside `winner_object` is about the same image.
    known = [bare[place] for place in roles.names if bare[place]]
    is_answered = roles.is_answered is True
    places = _find_answers(headings, roles.used) if is_answered else range(len(headings))
    return tuple(place for place in places if place not in roles.used and bare[place] not in known)


def may_answer(heading: str) -> bool:
    """Return whether a heading leaves room for an answer: not one about the row, without a word."""
    words = set(_split_words(heading))
    # pandas writes an index below no heading, and reads it as `Unnamed: 0`.
    if heading.strip() in ("", "Unnamed: 0") or words & (_MEASURES | {"anchor", "query"}):
        return False
    return bool(words & _ANSWER_WORDS) or not (words & _ABOUT or (words and words <= _NOUNS))


def may_grade(heading: str, sides: Sequence[str]) -> bool:
    """Return whether numbers below a heading may say how much nearer one of two images is."""
    return bool(set(_split_words(heading)) & (_ANSWER_WORDS | _GRADES | {*sides}))


def is_of_judge(heading: str) -> bool:
    """Return whether a heading may stand above what somebody answered: `judge`, `rater 1`."""
    return bool(re.fullmatch(r"judge|(judge|rater|annotator)\W*_?\d+", heading.strip().lower()))


def is_numbered(heading: str, sides: Sequence[str]) -> bool:
    """Return whether votes are called by a number, where the images are not."""
    return not _FIRST & {*sides} and bool(_FIRST & set(_split_words(heading)))


def is_of_far(heading: str) -> bool:
    """Return whether a heading says that the other image is meant, not the nearer."""
    return bool(_plain_forms(heading) & set(_FAR))


def is_of_index(heading: str) -> bool:
    """Return whether a heading says that numbers are places: `winner_idx`."""
    return bool({"idx", "index", "id"} & set(_split_words(heading)))


def _chosen_roles(
    headings: Sequence[str],
    wanted: Wanted,
    columns: Mapping[str, str],
    is_file: Callable[[int], bool],
) -> Roles | None:
    """Return the roles that the user says: as if the columns were called so."""
    if unknown := [name for name in columns if name not in _FIELDS]:
        raise ValueError(f"expected one of {', '.join(_FIELDS)}, got {unknown[0]!r}")
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
        if {"answer", "odd"} & set(columns):
            for place in _find_answers(headings, set(places.values())):
                mixed[place] = ""
        roles = find_roles(mixed, wanted, None, is_file) or roles
    if roles is None:
        raise ValueError("expected columns for the anchor and for two images too in `columns`")
    if "odd" in columns and not roles.is_trial:
        raise ValueError("expected three images of which none is the nearer one beside `odd`")
    if answers := _find_answers(list(places), set()):
        answer = places[list(places)[answers[0]]]
        if answer not in roles.names:
            roles = replace(roles, answer=answer, votes=None, share=None, is_answered=True)
    sides = tuple(headings[place].strip().lower() for place in roles.names[-len(roles.sides) :])
    return replace(
        roles,
        is_answered=bool(roles.is_answered),
        sides=sides if roles.sides and roles.names else (),
        doubtful=(),
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


def is_heading(
    fields: Sequence[str],
    below: Iterable[Sequence[str]],
    wanted: Wanted = "triplets",
    columns: Mapping[str, str] | None = None,
    *,
    with_letters: bool = False,
) -> bool:
    """Tell whether a first row names known columns; `with_letters` also where they are a, b, c."""
    are_letters = sorted(field.strip().lower() for field in fields) == _LETTERS
    if are_letters and not with_letters:
        return False
    if columns and not all(str(text).isdecimal() for text in columns.values()):
        known = {field.lower() for field in fields}
        return any(str(text).strip().lower() in known for text in columns.values())
    # Images called a, b and c beside a number are a row.
    may_be_row = wanted == "votes" or (bool(columns) and wanted != "labels")
    if may_be_row and not math.isnan(parse_number(fields[-1])):
        return False
    if find_roles(fields, wanted) is None:
        return False
    # Names of images come again below; those of columns hardly do, but for single letters.
    words = {field.lower() for field in fields}
    if wanted == "labels" or columns or len(fields) != 3 or are_letters or words in _CLEAR:
        return True
    return not {text for row in below for text in row} & set(fields)


def resembles_heading(fields: Sequence[str], following: Iterable[Sequence[str]]) -> bool:
    """Return whether a first row seems to name columns, in words that are not known.

    None of its texts comes again below, and one is a word that only columns have (`anchor`,
    `rater`), or two are words that columns often have (`image1`, `left`) and no text below is, or
    all are plain words and every text below has an extension or a folder, or starts with a digit.
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
