"""The share of collected judgements that chance drew: what scores may be computed on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from tripletkit.data.judgements import find_questions, read_judgements
from tripletkit.data.triplets import Triplets
from tripletkit.data.votes import Votes
from tripletkit.errors import AnswerFileError
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.belonging import check_same_length

logger = logging.getLogger("tripletkit")


def take_random_share(
    answers: Answers, triplets: Triplets | None, database: Path
) -> tuple[Answers, np.ndarray, Votes]:
    """Return the answers to questions of the random share, what most judges said, and the votes.

    Answers that do not hold their questions are taken for those of `predict` on the database.
    """
    judgements = read_judgements(database).decided()
    asked = answers.triplets or triplets
    if asked is None:
        check_same_length(answers, len(judgements), str(database))
        asked = judgements.triplets
    answers = replace(answers, triplets=asked)
    found, is_turned = find_questions(asked, judgements)
    is_scored = (found >= 0) & judgements.is_random[found]
    if not is_scored.any():
        raise AnswerFileError(
            f"{answers.source}: expected answers to questions that {database} drew by chance, "
            "got none. `tripletkit predict` answers those of the database."
        )
    logger.info(
        "Scored on the random share alone: %s of %s answers. Questions that a model chose are "
        "those it found hard: a score on them would be too low.",
        f"{int(is_scored.sum()):,}",
        f"{len(answers):,}",
    )
    labels = (~is_turned[is_scored]).astype(np.int8)
    votes = judgements.votes.take(found[is_scored]).turn(is_turned[is_scored])
    return answers.take(is_scored), labels, votes
