"""Everything about a triplet file that can be told without a model.

All of it works on integer rows: a file of five million triplets takes a minute.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.data.audit.image_checks import ImageChecks, InspectedImages
from tripletkit.data.images import Images
from tripletkit.data.judgements import Judgements
from tripletkit.data.questions import PairGraph, Questions, Tally, show_names
from tripletkit.data.triplets import Triplets
from tripletkit.progress import Progress, no_progress
from tripletkit.results import Result, Section, Table

# A random split can be solved by remembering names when at least this share of the triplets has a
# pair that recurs, and at most that share of recurring pairs has both roles.
_MEMORABLE_TRIPLETS_SHARE = 0.1
_PURE_PAIRS_SHARE = 0.25


@dataclass(frozen=True)
class _Usage:
    """How often images are named; every one of a row's three names counts."""

    n_anchors: int  # images that are an anchor somewhere
    minimum: int
    median: float
    maximum: int
    n_once: int  # images that are named once only
    most_used: list[str]  # the images named most, with how often


@dataclass(frozen=True)
class _CycleTally:
    """Knots of preferences that lead round in a circle, and the triplets inside them."""

    count: int
    n_triplets: int
    examples: list[str]


@dataclass(frozen=True)
class _PairSummary:
    """Which roles pairs of images play in judgements."""

    n_pairs: int  # distinct pairs, unordered
    n_near_only: int
    n_far_only: int
    both: Tally  # pairs that are near in one triplet and far in another
    n_recurring: int  # pairs in more than one distinct triplet
    memorable_share: float  # of distinct triplets, those that have a recurring pair
    is_memorable: bool  # remembering pairs is likely to solve a random validation split


@dataclass(frozen=True)
class _Components:
    """Parts of the graph whose nodes are pairs and whose edges are triplets."""

    count: int
    largest_pairs: int
    largest_triplets: int  # repeats counted once


@dataclass(frozen=True)
class _RepeatedJudgements:
    """How far several judgements of one question agree."""

    n_questions: int  # that were judged more than once
    n_judgements: int  # of these questions
    agreement: float  # chance that two judgements of one such question are the same
    # The share of the majority, above which no model can score: on these, and on all judgements.
    ceiling: float
    overall_ceiling: float


@dataclass(frozen=True)
class _Overlap:
    """What a triplet file shares with another."""

    source: str
    n_triplets: int  # of the other file
    unreadable_lines: Tally
    shared_images: Tally
    shared_pairs: Tally
    shared_questions: Tally  # in either order of B and C
    # Images of ours that the other file has under another name, and pairs of one of ours and one of
    # theirs that look alike; None without an image folder.
    same_content: Tally | None
    look_alike: Tally | None


@dataclass(frozen=True)
class _Finding:
    """One kind of fault that a strict audit fails on."""

    kind: str
    source: str
    count: int


@dataclass(frozen=True, repr=False)
class Audit(Result):
    """What is known about one triplet file, alone and against others.

    Of a file of questions (B and C in chance order) nothing can be said about contradictions,
    cycles, roles and judgements; these are `None` then.
    """

    source: str  # what the file is called in messages
    n_triplets: int  # lines that hold a triplet
    n_distinct: int  # of these, different name by name
    n_images: int  # distinct names
    unreadable_lines: Tally  # lines that are not three names
    repeated: Tally  # lines equal to an earlier one
    degenerate: Tally  # triplets that name one image twice; left out of all that follows
    mirrored: Tally  # questions that stand there both as A B C and as A C B
    contradictions: Tally | None  # the same, where column 2 is said to be the nearer
    # Per anchor, and over all compared distances; with contradicted questions set aside, so these
    # remain however those are resolved.
    anchor_cycles: _CycleTally | None
    distance_cycles: _CycleTally | None
    judgements: _RepeatedJudgements | None  # None also where no question was judged twice
    usage: _Usage
    pair_roles: _PairSummary | None
    components: _Components
    images: ImageChecks | None
    against: list[_Overlap]

    def findings(self) -> list[_Finding]:
        """Return the faults: what makes a score wrong, a run fail or a model learn nonsense.

        Repeats, odd but readable images, equal or similar images within the file, and
        mirrored questions of an unanswered file are worth knowing, and no faults.
        """
        parts: list[tuple[str, str, Any, str]] = [(self.source, "", self, _OWN_FINDINGS)]
        parts += [(self.source, "_images", self.images, _IMAGE_FINDINGS)] * bool(self.images)
        parts += [(overlap.source, "", overlap, _SHARED_FINDINGS) for overlap in self.against]
        return [
            _Finding(kind + suffix, source, found.count)
            for source, suffix, part, kinds in parts
            for kind in kinds.split()
            if (found := getattr(part, kind)) is not None and found.count
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it; the keys are the attributes, and `findings`."""
        findings = [asdict(finding) for finding in self.findings()]
        return asdict(self) | {"findings": findings}

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each finding: the columns kind, source and count."""
        found = map(asdict, self.findings())
        return pd.DataFrame(found, columns=["kind", "source", "count"])

    def _summary(self) -> str:
        n = len(self.findings())
        kinds = (
            f"{n} kinds of findings" if n > 1 else "one kind of findings" if n else "no findings"
        )
        return f"{self.n_triplets:,} triplets over {self.n_images:,} images, {kinds}"

    def _sections(self) -> list[Section]:
        shown = (_show_triplets, _show_names, _show_consistency, _show_pairs)
        parts = [show(self) for show in shown]
        parts += [_lines("Image files", *self.images.items())] if self.images else []
        parts += [_show_overlap(overlap) for overlap in self.against]
        lines = [_line(name, count, "!") for name, count in self._verdict()]
        return [*parts, ["Findings", *lines] if lines else ["No findings."]]

    def _verdict(self) -> list[tuple[str, int]]:
        """Return what each finding is called, with the file if it is another, and its count."""
        return [
            (
                _FINDING_NAMES[found.kind] + f" ({found.source})" * (found.source != self.source),
                found.count,
            )
            for found in self.findings()
        ]

    def _notebook_sections(self) -> list[Section]:
        found = [[name, f"{count:,}"] for name, count in self._verdict()]
        verdict: Table | str = "No findings."
        if found:
            verdict = Table(found, right=[1], has_heading=False, title="Findings")
        return [[f"{self.source}: {self._summary()}", verdict]]


def audit_triplets(
    judgements: Judgements,
    others: Sequence[Judgements] = (),
    images: Images | None = None,
    *,
    is_answered: bool = True,
    n_examples: int = defaults.AUDIT_EXAMPLES,
    progress: Progress = no_progress,
) -> Audit:
    """Audit a triplet file, and what it shares with others.

    Args:
        others: files that should have nothing in common with it, such as the test file.
        images: of all these files; without them none is looked at.
        is_answered: the second column is the nearer one.
    """
    if is_answered:
        judgements = judgements.decided()
    triplets = judgements.triplets
    degenerate = triplets.is_degenerate()
    every = Questions.of(triplets.rows, len(triplets.names))
    proper, questions = triplets, every
    if degenerate.any():
        proper = triplets.take(~degenerate)
        questions = Questions.of(proper.rows, len(proper.names))
    distinct = proper.take(~questions.repeats())
    graph = PairGraph.of(distinct.rows, len(distinct.names))
    mirrored = _mirrored(proper, questions, n_examples)
    repeated = _repeated(triplets, every, n_examples)
    anchor_cycles = distance_cycles = None
    if is_answered:
        kept = proper.take(~questions.is_both_ways[questions.of_row])
        anchor_cycles = _tally_cycles(kept, n_examples, by_anchor=True)
        distance_cycles = _tally_cycles(kept, n_examples, by_anchor=False)
    inspected = None
    if images is not None:
        names = dict.fromkeys(chain(*(part.triplets.names for part in (judgements, *others))))
        inspected = InspectedImages.of(images.usable().find(list(names)), n_examples, progress)

    return Audit(
        source=triplets.source,
        n_triplets=len(triplets),
        n_distinct=len(triplets) - repeated.count,
        n_images=len(triplets.names),
        unreadable_lines=_unreadable(judgements, n_examples),
        repeated=repeated,
        degenerate=_tally_rows(
            triplets, np.flatnonzero(degenerate), lambda _: " names one image twice", n_examples
        ),
        mirrored=mirrored,
        contradictions=mirrored if is_answered else None,
        anchor_cycles=anchor_cycles,
        distance_cycles=distance_cycles,
        judgements=_compare_judgements(questions) if is_answered else None,
        usage=_usage(triplets, n_examples),
        pair_roles=_pair_roles(distinct, graph, n_examples) if is_answered else None,
        components=_components(graph),
        images=inspected.check(triplets.first_places()) if inspected else None,
        against=[_find_overlap(triplets, other, inspected, n_examples) for other in others],
    )


def _unreadable(judgements: Judgements, n_examples: int) -> Tally:
    return Tally.of(len(judgements.problems), judgements.place_problems(), n_examples)


def _tally_rows(
    triplets: Triplets, rows: np.ndarray, said: Callable[[int], str], n_examples: int
) -> Tally:
    """Tally rows, and say of the first of them what is the matter."""
    examples = (
        f"{triplets.place(row)}: {show_names(triplets.names, triplets.rows[row])}{said(row)}"
        for row in rows.tolist()
    )
    return Tally.of(len(rows), examples, n_examples)


def _repeated(triplets: Triplets, questions: Questions, n_examples: int) -> Tally:
    def said(row: int) -> str:
        first = np.flatnonzero(questions.directed == questions.directed[row])[0]
        return f" repeats line {triplets.lines[first]}"

    return _tally_rows(triplets, np.flatnonzero(questions.repeats()), said, n_examples)


def _mirrored(triplets: Triplets, questions: Questions, n_examples: int) -> Tally:
    def said(row: int) -> str:
        is_asked = questions.of_row == questions.of_row[row]
        other = np.flatnonzero(is_asked & questions.is_mirrored)[0]
        return f", the other way round in line {triplets.lines[other]}"

    first = ~pd.Series(questions.of_row).duplicated().to_numpy()
    rows = np.flatnonzero(first & questions.is_both_ways[questions.of_row])
    return _tally_rows(triplets, rows, said, n_examples)


def _tally_cycles(triplets: Triplets, n_examples: int, *, by_anchor: bool) -> _CycleTally:
    graph = PairGraph.of(triplets.rows, len(triplets.names), by_anchor=by_anchor)
    n_knots, inside, circles = graph.find_cycles(n_examples)
    examples = []
    for steps in circles:
        pairs = [f"({show_names(triplets.names, triplets.rows[row, :2])})" for row in steps]
        lines = ", ".join(str(triplets.lines[row]) for row in steps)
        circle = " < ".join([*pairs, pairs[0]])
        examples.append(f"{triplets.place(steps[0])}: {circle} by lines {lines}")
    return _CycleTally(n_knots, len(inside), examples)


def _usage(triplets: Triplets, n_examples: int) -> _Usage:
    n_uses = np.bincount(triplets.rows.ravel(), minlength=len(triplets.names))
    most = np.argsort(-n_uses, kind="stable")[:n_examples]
    return _Usage(
        n_anchors=len(np.unique(triplets.rows[:, 0])),
        minimum=int(n_uses.min()),
        median=float(np.median(n_uses)),
        maximum=int(n_uses.max()),
        n_once=int((n_uses == 1).sum()),
        most_used=[
            f"{show_names(triplets.names, [name])} ({n_uses[name]:,} times)" for name in most
        ],
    )


def _pair_roles(distinct: Triplets, graph: PairGraph, n_examples: int) -> _PairSummary:
    n_near, n_far = graph.roles()
    both, recurring = np.flatnonzero((n_near > 0) & (n_far > 0)), n_near + n_far > 1
    is_memorable_row = recurring[graph.near] | recurring[graph.far]
    memorable_share = float(is_memorable_row.mean()) if len(is_memorable_row) else 0.0
    n_recurring = int(recurring.sum())

    def examples() -> Iterator[str]:
        for pair in both:
            near = np.flatnonzero(graph.near == pair)[0]
            far = np.flatnonzero(graph.far == pair)[0]
            yield (
                f"{distinct.place(near)}: {show_names(distinct.names, graph.pairs[pair])} "
                f"are near here, far in line {distinct.lines[far]}"
            )

    return _PairSummary(
        n_pairs=len(graph.pairs),
        n_near_only=int((n_far == 0).sum()),
        n_far_only=int((n_near == 0).sum()),
        both=Tally.of(len(both), examples(), n_examples),
        n_recurring=n_recurring,
        memorable_share=memorable_share,
        is_memorable=memorable_share >= _MEMORABLE_TRIPLETS_SHARE
        and len(both) <= _PURE_PAIRS_SHARE * n_recurring,
    )


def _components(graph: PairGraph) -> _Components:
    n_pairs = np.bincount(graph.components)
    n_triplets = np.bincount(graph.component_of_rows())
    return _Components(len(n_pairs), int(n_pairs.max(initial=0)), int(n_triplets.max(initial=0)))


def _compare_judgements(questions: Questions) -> _RepeatedJudgements | None:
    """Measure the agreement of questions judged several times; none if there are none.

    Example:
        >>> rows = np.array([[0, 1, 2], [0, 1, 2], [0, 2, 1], [0, 1, 3]])
        >>> _compare_judgements(Questions.of(rows, 4)).ceiling  # two of three
        0.6666666666666667
    """
    n_each = questions.votes.sum(axis=1)
    is_several = n_each > 1
    if not is_several.any():
        return None
    votes, n_each = questions.votes[is_several], n_each[is_several]
    n_pairs = (n_each * (n_each - 1)).sum()
    n_agreeing = (votes * (votes - 1)).sum()
    n_lost = votes.min(axis=1).sum()
    return _RepeatedJudgements(
        n_questions=len(votes),
        n_judgements=int(n_each.sum()),
        agreement=float(n_agreeing / n_pairs),
        ceiling=float(1 - n_lost / n_each.sum()),
        overall_ceiling=float(1 - n_lost / len(questions.of_row)),
    )


def _find_overlap(
    ours: Triplets, other: Judgements, inspected: InspectedImages | None, n_examples: int
) -> _Overlap:
    """Find what two triplet files share; the images of both are those inspected, if any are."""
    names = list(dict.fromkeys([*ours.names, *other.triplets.names]))
    # Ours come first, so that their numbers stay.
    theirs = other.triplets.over(names)
    both_rows = np.concatenate([ours.rows, theirs.rows])
    graph = PairGraph.of(both_rows, len(names))
    questions = Questions.of(both_rows, len(names))

    def shared(labels: np.ndarray, shown: Callable[[int, int], str]) -> Tally:
        """Tally the labels, `(n_rows, n_labels)`, that rows of both have, in our order."""
        of_rows = np.repeat(np.arange(len(labels)), labels.shape[1])
        found = pd.DataFrame({"label": labels.ravel(), "row": of_rows})
        is_ours = found["row"] < len(ours)
        first = [part.drop_duplicates("label") for part in (found[is_ours], found[~is_ours])]
        in_both = first[0].merge(first[1], on="label")
        examples = (
            f"{ours.place(row)}: {shown(label, row)}, also {theirs.place(other - len(ours))}"
            for label, row, other in in_both.itertuples(index=False)
        )
        return Tally.of(len(in_both), examples, n_examples)

    same_content = look_alike = None
    if inspected is not None:
        index_of = {name: index for index, name in enumerate(inspected.names)}
        in_ours, in_theirs = (
            np.array([index_of[name] for name in triplets.names], dtype=np.int64)
            for triplets in (ours, other.triplets)
        )
        same_content = inspected.find_same_content(in_ours, in_theirs)
        look_alike = inspected.find_look_alikes(in_ours, in_theirs)
    return _Overlap(
        source=theirs.source,
        n_triplets=len(theirs),
        unreadable_lines=_unreadable(other, n_examples),
        shared_images=shared(both_rows, lambda name, _: show_names(names, [name])),
        shared_pairs=shared(
            np.stack([graph.near, graph.far], axis=1),
            lambda pair, _: show_names(names, graph.pairs[pair]),
        ),
        shared_questions=shared(
            questions.of_row[:, None], lambda _, row: show_names(names, ours.rows[row])
        ),
        same_content=same_content,
        look_alike=look_alike,
    )


# What is a fault, and what each is called in the last lines.
_OWN_FINDINGS = "unreadable_lines degenerate contradictions anchor_cycles distance_cycles"
_IMAGE_FINDINGS = "unlocated unreadable blank faint few_bits transparent"
_SHARED_FINDINGS = (
    "unreadable_lines shared_images shared_pairs shared_questions same_content look_alike"
)
_FINDING_NAMES = {
    "unreadable_lines": "lines that cannot be read",
    "degenerate": "triplets that name one image twice",
    "contradictions": "contradicted questions",
    "anchor_cycles": "cycles of one anchor",
    "distance_cycles": "cycles over all distances",
    "unlocated_images": "names without exactly one image",
    "unreadable_images": "images that cannot be decoded",
    "blank_images": "images of one colour",
    "faint_images": "images nearly black or white",
    "few_bits_images": "16-bit images with few bits used",
    "transparent_images": "images white on transparent ground",
    "shared_images": "images shared",
    "shared_pairs": "pairs shared",
    "shared_questions": "questions shared",
    "same_content": "images shared under another name",
    "look_alike": "pairs of images that look alike",
}

_LABEL_WIDTH = 46
_NUMBER_WIDTH = 11
_TEXT_WIDTH = 88


def _show_triplets(audit: Audit) -> list[str]:
    return _lines(
        audit.source,
        ("lines that cannot be read", audit.unreadable_lines),
        ("triplets", audit.n_triplets),
        ("distinct", audit.n_distinct),
        ("repeats of an earlier line", audit.repeated, False),
        ("degenerate: one image named twice", audit.degenerate),
        "Degenerate triplets have no answer to learn; they are left out below."
        if audit.degenerate.count
        else None,
    )


def _show_names(audit: Audit) -> list[str]:
    usage = audit.usage
    return _lines(
        "Images by name",
        ("images", audit.n_images),
        ("anchors among them", usage.n_anchors),
        ("times named: fewest", usage.minimum),
        ("             median", usage.median),
        ("             most", usage.maximum),
        ("named once only", usage.n_once),
        f"Most named: {', '.join(usage.most_used)}." if usage.most_used else None,
    )


def _show_consistency(audit: Audit) -> list[str]:
    if audit.contradictions is None:
        return _lines("Consistency", ("asked both ways: A B C and A C B", audit.mirrored, False))
    found: list[_Item] = [
        ("contradictions: A B C and A C B", audit.contradictions),
        ("preferences in a circle at one anchor", audit.anchor_cycles),
        ("circles over all compared distances", audit.distance_cycles),
        "Contradictions cannot both be right, and the distances of a circle (B before C, C "
        "before D, D before B) cannot all hold, whatever the model. Look at the lines named, "
        "or accept them as noise. If B and C are in chance order here, so that this is a "
        "file of questions, nothing is wrong: pass `unanswered=True`."
        if audit.contradictions.count or (audit.distance_cycles and audit.distance_cycles.count)
        else None,
    ]
    if (judged := audit.judgements) is not None:
        found += [
            ("questions judged several times", judged.n_questions),
            ("  judgements of these", judged.n_judgements),
            ("  agreement of two of them", f"{judged.agreement:.1%}"),
            ("  best accuracy anyone can have on these", f"{judged.ceiling:.1%}"),
            ("  and on the whole file", f"{judged.overall_ceiling:.1%}"),
            "Where judges disagree, the most that an answerer can get right is the majority: "
            "read every accuracy against this ceiling, not against 100%."
            if judged.ceiling < 1
            else None,
        ]
    return _lines("Consistency", *found)


def _show_pairs(audit: Audit) -> list[str]:
    components, roles = audit.components, audit.pair_roles
    found: list[_Item] = [
        ("components (pairs linked by triplets)", components.count),
        ("  pairs in the largest", components.largest_pairs),
        ("  triplets in the largest", components.largest_triplets),
    ]
    if roles:
        found[:0] = [
            ("pairs of images compared", roles.n_pairs),
            ("  always near", roles.n_near_only),
            ("  always far", roles.n_far_only),
            ("  near in one triplet, far in another", roles.both, False),
            ("  in more than one triplet", roles.n_recurring),
            ("triplets with such a pair", f"{roles.memorable_share:.1%}"),
        ]
    if roles and roles.is_memorable:
        both = f"only {roles.both.count:,} are" if roles.both.count else "none is"
        found.append(
            f"Of {roles.n_recurring:,} pairs that recur, {both} near in one triplet and far in "
            "another. So a random validation split can be solved by remembering the names of "
            "pairs, without looking at an image, and its score means little. Split with "
            "`tripletkit split` by image (no image in common) or by component (no pair in common, "
            "keeps every triplet)."
        )
    return _lines("Pairs", *found)


def _show_overlap(overlap: _Overlap) -> list[str]:
    advice = None
    if overlap.shared_pairs.count:
        advice = (
            "Pairs in both can be answered from memory: do not take a score on one file after "
            "training on the other for a measure of how new images will do."
        )
    elif overlap.shared_images.count:
        advice = (
            "No pair is shared, so nothing can be answered by remembering pairs; but the score "
            "says how known images do in new questions, not how new images will do."
        )
    return _lines(
        f"Shared with {overlap.source}",
        ("its triplets", overlap.n_triplets),
        ("its lines that cannot be read", overlap.unreadable_lines),
        ("images in both", overlap.shared_images),
        ("pairs in both", overlap.shared_pairs),
        ("questions in both", overlap.shared_questions),
        ("same content under another name", overlap.same_content),
        ("pairs of images that look alike", overlap.look_alike),
        advice,
    )


def _line(label: str, shown: float | str, mark: str = " ") -> str:
    number = shown if isinstance(shown, str) else f"{shown:,.10g}"
    return f"  {mark} {label:<{_LABEL_WIDTH}}{number:>{_NUMBER_WIDTH}}"


# A sentence; or a label and what was counted, and whether that is a fault; nothing for None.
_Item = str | tuple[str, Any] | tuple[str, Any, bool] | None


def _lines(title: str, *items: _Item) -> list[str]:
    """Return the lines of a part of the text."""
    lines = [title]
    for item in items:
        if isinstance(item, str):
            blank = "    "
            lines += textwrap.wrap(item, _TEXT_WIDTH, initial_indent=blank, subsequent_indent=blank)
        if item is None or isinstance(item, str) or item[1] is None:
            continue
        label, found, is_fault = item if len(item) == 3 else (*item, True)
        if not isinstance(found, Tally | _CycleTally):
            lines.append(_line(label, found))
            continue
        lines.append(_line(label, found.count, "!" if is_fault and found.count else " "))
        if isinstance(found, _CycleTally) and found.count:
            lines.append(_line("  triplets inside them", found.n_triplets))
        lines += [f"        {example}" for example in found.examples]
        if found.examples and found.count > len(found.examples):
            lines.append("        ...")
    return lines
