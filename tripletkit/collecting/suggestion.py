"""The questions to ask next of images that a model knows, without a database."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.choosing import (
    Committee,
    choose_questions,
    deal_question,
    draw_candidates,
    question_keys,
)

# How often a question that was asked already is drawn again before it is given up.
_DRAWS = 50


def suggest_at_random(
    n_images: int, n_questions: int, asked: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw questions that show every image as often as the others, and none that was asked.

    Args:
        n_images: at least three.
        n_questions: how many at most; fewer where nearly all were asked.
        asked: `(n, 3)` questions to leave out, whichever way round.
        rng: what decides.
    Returns:
        `(n_questions, 3)` int32.
    """
    times_shown = np.zeros(n_images, dtype=np.int64)
    known = set(question_keys(asked).tolist())
    rows = []
    for _ in range(n_questions):
        for _ in range(_DRAWS):
            row = deal_question(times_shown, rng)
            key = int(question_keys(row[None])[0])
            if key not in known:
                known.add(key)
                times_shown[row] += 1
                rows.append(row)
                break
    return np.array(rows, dtype=np.int32).reshape(-1, 3)


def suggest_by_model(
    members: Sequence[np.ndarray],
    distance: str,
    n_questions: int,
    way: str,
    asked: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Choose questions by a model's heads, no image in more than `defaults.MAX_PER_IMAGE`.

    Args:
        members: `(n_images, n_dims)` embeddings of each head.
        distance: by which they are compared.
        n_questions: how many at most.
        way: `margin` or `disagreement`.
        asked: `(n, 3)` questions to leave out, whichever way round.
        rng: what decides which candidates there are.
    Returns:
        `(n_questions, 3)` int32, the most wanted first.
    """
    images = np.arange(len(members[0]))
    candidates = draw_candidates(images, defaults.CHOICE_CANDIDATES, rng, asked)
    committee = Committee(members, distance, defaults.MARGIN / 2)
    return choose_questions(
        committee, candidates, n_questions, way, max_per_image=defaults.MAX_PER_IMAGE
    ).rows
