"""What the columns of a table of judgements are, by their headings in the words that people use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
_SHARES = frozenset(["share"])
# Columns that say nothing of the answer, whatever is in them.
_ABOUT = frozenset(
    "rater annotator worker user subject judge participant person observer respondent split fold "
    "part partition subset session trial block screen page row line number position order time "
    "date datetime timestamp created received duration rt latency ms seconds age sex gender "
    "country language device browser dataset source comment note notes batch task version sampler "
    "sample puid margin seed votes vote count".split()
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# By the names of `columns`: what a column is.
FIELDS = (
    "anchor",
    "positive",
    "negative",
    "first",
    "second",
    "answer",
    "votes_first",
    "votes_second",
    "share",
    "image1",
    "image2",
    "image3",
    "odd",
)


def split_words(heading: str) -> list[str]:
    """Return the words of a heading, in lower case: `leftPath`, `left_path` -> left, path."""
    return [word.lower() for word in _WORD.findall(heading)]


@dataclass(frozen=True)
class Roles:
    """Which column is what, by its place in the table.

    Attributes:
        names: anchor, first and second image; of trials the three images.
        is_answered: the first of the two is the nearer one; None where the words leave it open.
        answer: what says which image was chosen, or which is odd.
        votes: how many people chose the first, and the second.
        share: how many chose the first, of all.
        is_trial: three images of which one is odd.
        sides: the words of the two images' columns, as answers may have them.
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
        found = {*self.names, *self.doubled, *(self.votes or ())}
        return found | {place for place in (self.answer, self.share) if place is not None}


@dataclass(frozen=True)
class _Headings:
    """The headings of a table by their words.

    Attributes:
        texts: the headings.
        is_file: whether the cells of a column look like names of files.
    """

    texts: Sequence[str]
    is_file: Callable[[int], bool]
    by_word: dict[str, list[int]] = field(default_factory=dict)
    nouns: list[frozenset[str]] = field(default_factory=list)

    @classmethod
    def of(cls, texts: Sequence[str], is_file: Callable[[int], bool]) -> _Headings:
        found = cls(texts, is_file)
        for place, text in enumerate(texts):
            words = split_words(text)
            rest = [word for word in words if word not in _NOUNS]
            found.nouns.append(frozenset(words) & _NOUNS)
            for word in dict.fromkeys(("_".join(words), "_".join(rest))):
                if word:
                    found.by_word.setdefault(word, []).append(place)
        return found

    def among(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if word in self.by_word]

    def columns(self, words: Sequence[str]) -> tuple[int, ...]:
        """Return one column for each word, alike in what they say of the image.

        Raises:
            ValueError: if a column is there twice.
        """
        kinds = {self.nouns[place] for place in self.by_word[words[0]]}
        whole = [
            {word: [p for p in self.by_word[word] if self.nouns[p] == kind] for word in words}
            for kind in kinds
        ]
        whole = [found for found in whole if all(found.values())]
        if not whole:
            whole = [{word: self.by_word[word][:1] for word in words}]
        # `head` may be a number where `head_object` is the name of the file.
        best = max(
            whole,
            key=lambda found: (
                sum(self.is_file(found[word][0]) for word in words),
                -sum(len(self.texts[found[word][0]]) for word in words),
            ),
        )
        for places in best.values():
            if len(places) > 1:
                raise ValueError(
                    f'expected each column once, got "{self.texts[places[0]]}" several times'
                )
        return tuple(places[0] for places in best.values())

    def votes(self, sides: Sequence[str]) -> tuple[int, int] | None:
        """Return the columns that count votes for two sides."""
        found = []
        for side in sides:
            places = [
                place
                for place, text in enumerate(self.texts)
                if (words := set(split_words(text))) & _VOTES and words - _VOTES - _NOUNS == {side}
            ]
            if len(places) > 1:
                raise ValueError(
                    f'expected each column once, got "{self.texts[places[0]]}" several times'
                )
            found += places
        return (found[0], found[1]) if len(found) == 2 else None


def find_roles(
    headings: Sequence[str],
    columns: Mapping[str, str] | None = None,
    is_file: Callable[[int], bool] = lambda place: False,
) -> Roles | None:
    """Tell which columns of a table hold judgements.

    Args:
        headings: of its columns; numbers from 1 where it has none.
        columns: `FIELDS` -> heading, as the user says; what is left out is told by the headings.
        is_file: whether the cells of a column look like names of files.
    Returns:
        None if the headings say nothing of judgements.
    Raises:
        ValueError: if they leave a choice, or there is no such column.
    """
    if columns is not None:
        return _chosen_roles(headings, columns, is_file)
    found = _Headings.of(headings, is_file)
    roles = _trial_roles(found) or _triplet_roles(found)
    if roles is None or roles.is_trial:
        return roles
    return _with_answers(roles, found)


def _trial_roles(found: _Headings) -> Roles | None:
    odd = found.among(_ODD)
    if not odd:
        return None
    for images in _TRIALS:
        if len(found.among(images)) == 3:
            (answer,) = found.columns(odd[:1])
            return Roles(
                found.columns(images), True, answer=answer, is_trial=True, sides=tuple(images)
            )
    if (roles := _triplet_roles(found)) is not None and roles.is_answered is not True:
        (answer,) = found.columns(odd[:1])
        return replace(roles, is_answered=True, answer=answer, is_trial=True, sides=())
    return None


def _triplet_roles(found: _Headings) -> Roles | None:
    """Return the columns of the three images."""
    anchors = found.among(_ANCHOR)
    if not anchors:
        if len(found.among("abc")) < 3:
            return None
        return Roles(found.columns("abc"), sides=("b", "c"))
    if len(anchors) > 1:
        raise ValueError(f"expected one column for the anchor, got {' and '.join(anchors)}")
    if len(found.among("abc")) == 3:
        raise ValueError(
            f"expected the columns of one kind of heading, got those of several: "
            f"{', '.join(found.texts)}"
        )
    pairs = [pair for pair in _SIDES if len(found.among(pair)) == 2]
    near, far = found.among(_NEAR), found.among(_FAR)
    if near and far:
        if len(near) > 1 or len(far) > 1:
            raise ValueError(
                f"expected one column for the nearer image and one for the other, got "
                f"{', '.join([*near, *far])}"
            )
        names = found.columns((*anchors, *near, *far))
        doubled = found.columns((*anchors, *pairs[0]))[1:] if pairs else ()
        return Roles(names, True, sides=(*near, *far), doubled=doubled)
    if not pairs:
        return None
    if len(pairs) > 1:
        raise ValueError(
            "expected two columns to choose from, got "
            + " and ".join(", ".join(pair) for pair in pairs)
        )
    # "first" may be the nearer one; left and right say nothing of that.
    is_open = pairs[0] == ("first", "second") and anchors == ["anchor"]
    return Roles(found.columns((*anchors, *pairs[0])), None if is_open else False, sides=pairs[0])


def _with_answers(roles: Roles, found: _Headings) -> Roles:
    """Return the roles with the columns that say which image was chosen."""
    for sides in (roles.sides, *_SIDES):
        votes = found.votes(sides)
        if votes is not None and not set(votes) & set(roles.names):
            return replace(roles, is_answered=True, votes=votes)
    taken = set(roles.names)
    shares = [p for word in _SHARES for p in found.by_word.get(word, ()) if p not in taken]
    if shares:
        if len(shares) > 1:
            raise ValueError('expected each column once, got "share" several times')
        return replace(roles, is_answered=True, share=shares[0])
    if roles.is_answered:
        return roles
    answers = find_answers(found.texts, taken)
    if len(answers) > 1:
        shown = ", ".join(f'"{found.texts[place]}"' for place in answers)
        raise ValueError(
            f"expected one column that says which image was chosen, got {shown}; say which with "
            f"`columns`, such as answer={found.texts[answers[0]]}"
        )
    return replace(roles, is_answered=True, answer=answers[0]) if answers else roles


def find_answers(headings: Sequence[str], taken: set[int]) -> list[int]:
    """Return the columns whose headings say that they hold answers; of people, if there are any."""
    for words in (_ANSWERS, _PREDICTIONS):
        found = []
        for place, heading in enumerate(headings):
            parts = split_words(heading)
            rest = [part for part in parts if part not in _NOUNS]
            if place not in taken and {"_".join(parts), "_".join(rest)} & set(words):
                found.append(place)
        # A label, a truth and a prediction may stand side by side; the first is meant.
        first = [p for p in found if headings[p].strip().lower() in ("label", "truth")]
        if first or found:
            return first[:1] or found
    return []


def says_nothing(heading: str) -> bool:
    """Return whether a column by that heading is about the row and not about its answer."""
    words = split_words(heading)
    return bool(set(words) & _ABOUT) or (bool(words) and set(words) <= _NOUNS)


def read_field(field: str) -> str:
    """Return the name of a field of `columns`, whichever word is used for it.

    Raises:
        ValueError: if there is no such field.
    """
    word = "_".join(split_words(field))
    for known in FIELDS:
        if word.replace("_", "") == known.replace("_", ""):
            return known
    for names, known in (
        (_ANCHOR, "anchor"),
        (_NEAR, "positive"),
        (_FAR, "negative"),
        (_ODD, "odd"),
        ([*_ANSWERS, *_PREDICTIONS], "answer"),
    ):
        if word in names:
            return known
    for pair in _SIDES[:4]:
        if word in pair:
            return ("first", "second")[pair.index(word)]
    parts = set(split_words(field))
    for pair in _SIDES:
        if parts & _VOTES and parts - _VOTES and parts - _VOTES <= set(pair):
            return ("votes_first", "votes_second")[pair.index(*(parts - _VOTES))]
    raise ValueError(f"expected one of {', '.join(FIELDS)}, got {field!r}")


def _chosen_roles(
    headings: Sequence[str], columns: Mapping[str, str], is_file: Callable[[int], bool]
) -> Roles | None:
    """Return the roles that the user says; others as the headings have them."""
    places = {read_field(name): _find(headings, text) for name, text in columns.items()}
    twice = [text for text in columns.values() if list(columns.values()).count(text) > 1]
    if twice:
        raise ValueError(f"expected a column for each of `columns`, got {twice[0]!r} twice")
    of_trial = [places[name] for name in ("image1", "image2", "image3") if name in places]
    pair = ("positive", "negative") if "positive" in places else ("first", "second")
    of_triplet = [places[name] for name in ("anchor", *pair) if name in places]
    usual = None
    if len(of_trial) < 3 and len(of_triplet) < 3:
        # Those that are left out are found among the other headings.
        others = [
            text if place not in places.values() else "" for place, text in enumerate(headings)
        ]
        stand_ins = {
            "anchor": "anchor",
            "positive": "positive",
            "negative": "negative",
            "first": "first",
            "second": "second",
        }
        for name, word in stand_ins.items():
            if name in places:
                others[places[name]] = word
        usual = find_roles(others, None, is_file)
        if usual is None:
            missing = [name for name in ("anchor", *pair) if name not in places]
            raise ValueError(f"expected columns for {', '.join(missing)} too in `columns`")
    if usual is not None:
        roles = replace(usual, is_chosen=True)
    elif len(of_trial) == 3:
        roles = Roles(tuple(of_trial), True, is_trial=True, is_chosen=True)
    else:
        roles = Roles(
            tuple(of_triplet),
            pair[0] == "positive",
            sides=tuple(headings[place].strip().lower() for place in of_triplet[1:]),
            is_chosen=True,
        )
    if "answer" in places or "odd" in places:
        answer = places.get("odd", places.get("answer"))
        roles = replace(
            roles,
            answer=answer,
            votes=None,
            share=None,
            is_answered=True,
            is_trial=roles.is_trial or "odd" in places,
        )
    if "votes_first" in places and "votes_second" in places:
        votes = (places["votes_first"], places["votes_second"])
        roles = replace(roles, answer=None, votes=votes, share=None, is_answered=True)
    if "share" in places:
        roles = replace(roles, answer=None, votes=None, share=places["share"], is_answered=True)
    return roles


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
