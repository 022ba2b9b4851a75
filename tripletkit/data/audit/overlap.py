"""What two triplet files have in common that a training and a test file should not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from tripletkit.data.audit.image_checks import (
    InspectedImages,
    look_alike_across,
    same_content_across,
)
from tripletkit.data.judgements import Judgements
from tripletkit.data.pair_graph import make_pair_graph
from tripletkit.data.questions import Tally, group_questions, show_names, tally
from tripletkit.data.triplets import Triplets


@dataclass(frozen=True)
class Overlap:
    """What a triplet file shares with another.

    Attributes:
        source: what the other file is called in messages.
        n_triplets: triplets of the other file.
        unreadable_lines: its lines that are not three names.
        shared_images: names in both.
        shared_pairs: pairs of images compared in both.
        shared_questions: questions in both, in either order of B and C.
        same_content: images of ours that the other file has under another name; `None`
            without an image folder.
        look_alike: pairs of an image of ours and one of theirs that look alike; likewise.
    """

    source: str
    n_triplets: int
    unreadable_lines: Tally
    shared_images: Tally
    shared_pairs: Tally
    shared_questions: Tally
    same_content: Tally | None
    look_alike: Tally | None

    def tallies(self) -> list[tuple[str, Tally]]:
        """Return everything counted here by its name; each is a fault if not 0."""
        return [
            (field.name, value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tally)
        ]


def find_overlap(
    ours: Triplets, other: Judgements, inspected: InspectedImages | None, n_examples: int
) -> Overlap:
    """Find what two triplet files share.

    Args:
        ours: our file, its names the first of the names inspected.
        other: the other file.
        inspected: the images of both files, if there is an image folder.
        n_examples: how many examples to give of each kind.
    """
    names, theirs = _over_names_of(ours, other.triplets)
    both_rows = np.concatenate([ours.rows, theirs.rows])
    graph = make_pair_graph(both_rows, len(names))
    questions = group_questions(both_rows, len(names))

    def shared(labels: np.ndarray, shown: Callable[[int, int], str]) -> Tally:
        in_both, our_rows, their_rows = _first_in_both(labels[: len(ours)], labels[len(ours) :])
        examples = (
            f"{ours.place(our_row)}: {shown(label, our_row)}, also {theirs.place(their_row)}"
            for label, our_row, their_row in zip(in_both, our_rows, their_rows, strict=True)
        )
        return tally(len(in_both), examples, n_examples)

    same_content = look_alike = None
    if inspected is not None:
        index_of = {name: index for index, name in enumerate(inspected.names)}
        our_names, their_names = (
            np.array([index_of[name] for name in triplets.names], dtype=np.int64)
            for triplets in (ours, other.triplets)
        )
        same_content = same_content_across(inspected, our_names, their_names, n_examples)
        look_alike = look_alike_across(inspected, our_names, their_names, n_examples)

    return Overlap(
        source=theirs.source,
        n_triplets=len(theirs),
        unreadable_lines=tally(len(other.problems), other.place_problems(), n_examples),
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


def _over_names_of(ours: Triplets, theirs: Triplets) -> tuple[list[str], Triplets]:
    """Return the names of both files, ours first, and theirs as rows over these names."""
    names = list(dict.fromkeys([*ours.names, *theirs.names]))
    index_of = {name: index for index, name in enumerate(names)}
    new_index = np.array([index_of[name] for name in theirs.names], dtype=np.int32)
    return names, replace(theirs, names=names, rows=new_index[theirs.rows])


def _first_in_both(
    ours: np.ndarray, theirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find labels that both have, in our order of appearance.

    Args:
        ours, theirs: `(n_rows, n_labels)` integers, the labels of each row.
    Returns:
        The shared labels, and for each the first row of ours and of theirs that has it.
    """
    our_labels, our_first = np.unique(ours, return_index=True)
    their_labels, their_first = np.unique(theirs, return_index=True)
    shared, at_ours, at_theirs = np.intersect1d(our_labels, their_labels, return_indices=True)
    our_rows = our_first[at_ours] // ours.shape[1]
    their_rows = their_first[at_theirs] // theirs.shape[1]
    order = np.argsort(our_rows, kind="stable")
    return shared[order], our_rows[order], their_rows[order]
