"""`tripletkit score`: accuracy of an answer file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import say, show_json, show_text, warn
from tripletkit.cli.options import INPUT_FILE, input_source, json_option, quiet_option
from tripletkit.cli.votes import check_votes_options, make_votes_options

if TYPE_CHECKING:
    import numpy as np

    from tripletkit.data.triplets import Triplets
    from tripletkit.data.votes import Votes
    from tripletkit.evaluation.answers import Answers
    from tripletkit.evaluation.scoring import Score

triplets_option = click.option(
    "--triplets",
    "triplets_file",
    type=INPUT_FILE,
    help="The triplet file that was answered; needed where the answers do not hold a, b, c.",
)

ties_option = click.option(
    "--ties",
    type=click.Choice(["answer", "error", "half"]),
    default="answer",
    show_default=True,
    help="Count a row whose two images are equally near as the 0 that it answers, as wrong, or as "
    "half right; the last two need margins.",
)


@click.command()
@click.argument("predictions", type=INPUT_FILE)
@click.argument("truth", type=INPUT_FILE, required=False)
@triplets_option
@click.option("--unique", is_flag=True, help="Count rows that repeat an earlier one only once.")
@ties_option
@make_votes_options("--triplets")
@json_option
@quiet_option
def score(
    predictions: Path,
    truth: Path | None,
    triplets_file: Path | None,
    unique: bool,
    ties: str,
    votes_file: Path | None,
    fourth_column: str | None,
    as_json: bool,
) -> None:
    """Print the accuracy of an answer file, with its uncertainty.

    TRUTH is one 0 or 1 a line, or a CSV with a column label, truth or prediction, or a database of
    collected judgements, of which the questions drawn by chance are scored. Without it
    every first image is taken for the nearer one, as in a training file; with votes, what most
    people said is the truth, and questions on which they are tied are left out of the accuracy.
    What counts is the answer that stands in the file, so that a CSV and labels of the same answers
    score the same; see --ties.

    \b
    tripletkit score preds.csv truth.csv
    tripletkit score answers.txt truth.csv --triplets test.txt --json
    tripletkit score preds.csv --votes votes.csv
    tripletkit score preds.csv judgements.sqlite
    """
    import numpy as np

    from tripletkit.data.judgement_files import is_judgements
    from tripletkit.evaluation.answers import (
        check_not_exchanged,
        check_same_length,
        check_same_questions,
        read_answers,
        read_truth,
    )
    from tripletkit.evaluation.scoring import score_answers
    from tripletkit.evaluation.vote_scoring import score_votes, take_majority

    check_votes_options(votes_file, fourth_column)
    if fourth_column is not None and triplets_file is None:
        raise click.UsageError("--fourth-column needs --triplets, which has the column.")
    answers = read_answers(input_source(predictions))
    triplets, votes = _read_questions(triplets_file, votes_file, fourth_column)
    if unique and votes is not None:
        raise click.UsageError("--unique excludes votes: a row that repeats another has its own.")
    rows = answers.triplets.rows if answers.triplets else None
    if triplets is not None:
        check_same_questions(answers, triplets)
        rows = triplets.rows
    if unique and rows is None:
        raise click.UsageError(
            f"--unique needs to know the triplets, and {answers.source} does not hold them. "
            "Add --triplets FILE."
        )
    by_votes = labels = None
    of_truth = None if truth is None else str(truth)
    if truth is not None and is_judgements(truth):
        if votes is not None:
            raise click.UsageError(f"{truth} holds votes itself: it excludes other votes.")
        answers, labels, votes = _take_random_share(answers, triplets, truth)
        rows = answers.triplets.rows
        by_votes = score_votes(answers, votes, rows=rows, ties=ties)
    elif votes is not None:
        check_same_length(answers, len(votes), str(votes_file or triplets_file))
        by_votes = score_votes(answers, votes, rows=rows, ties=ties)
    if labels is not None:
        pass
    elif truth is not None:
        read = read_truth(input_source(truth))
        check_not_exchanged(answers, read)
        check_same_length(answers, len(read), read.source)
        labels, of_truth = read.labels, read.source
    elif votes is not None:
        warn("no truth file: taking what most people said for the truth")
        labels, is_decided = take_majority(votes, str(votes_file or triplets_file))
        answers, rows = answers.take(is_decided), None if rows is None else rows[is_decided]
    else:
        if triplets is not None:
            triplets.check_answered()
        warn("no truth file: taking every first image for the nearer one (truth all 1)")
        labels = np.ones(len(answers), dtype=np.int8)
    result = score_answers(answers, labels, rows=rows, ties=ties, unique=unique)
    _warn_of_ties(result)
    from tripletkit.texts.scores import describe_score

    if as_json:
        about = {"truth": of_truth}
        by_votes = {} if by_votes is None else {"votes": by_votes.to_json()}
        show_json(about | result.to_json() | by_votes)
    else:
        show_text(describe_score(result, by_votes))


def _warn_of_ties(score: Score) -> None:
    n_silent = (score.n_ties or 0) + (score.n_undecidable or 0)
    if n_silent and score.ties == "answer":
        warn(
            f"{n_silent:,} of {score.n:,} rows tell the two images not apart; they answer 0, and "
            "count as right where the truth is 0"
        )


def _take_random_share(
    answers: Answers, triplets: Triplets | None, database: Path
) -> tuple[Answers, np.ndarray, Votes]:
    """Return the answers to questions of the random share, what most judges said, and the votes.

    Answers that do not hold their questions are taken for those of `predict` on the database.
    """
    from dataclasses import replace

    import numpy as np

    from tripletkit.data.judgements import find_questions, read_judgements
    from tripletkit.errors import AnswerFileError
    from tripletkit.evaluation.answers import check_same_length

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
    say(
        f"Scored on the random share alone: {int(is_scored.sum()):,} of {len(answers):,} answers. "
        "Questions that a model chose are those it found hard, and would slander it."
    )
    labels = (~is_turned[is_scored]).astype(np.int8)
    votes = judgements.votes.take(found[is_scored]).turn(is_turned[is_scored])
    return answers.take(is_scored), labels, votes


def _read_questions(
    triplets_file: Path | None, votes_file: Path | None, fourth_column: str | None
) -> tuple[Triplets | None, Votes | None]:
    """Return the questions, where a file holds them, and the votes on them, where there are any."""
    from tripletkit.data.judgements import read_triplets_with_votes
    from tripletkit.data.triplet_files import read_triplets
    from tripletkit.data.vote_files import read_triplets_with_shares, read_votes

    if fourth_column is not None:
        return read_triplets_with_shares(input_source(triplets_file))
    if votes_file is None:
        if triplets_file is None:
            return None, None
        return read_triplets_with_votes(input_source(triplets_file))
    triplets = None if triplets_file is None else read_triplets(input_source(triplets_file))
    read = read_votes(input_source(votes_file))
    if triplets is None:
        return read.triplets, read.votes
    read.check_questions(triplets)
    return triplets, read.votes
