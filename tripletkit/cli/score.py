"""`tripletkit score`: accuracy of an answer file."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit.cli.console import show_json, show_text, warn
from tripletkit.cli.options import INPUT_FILE, input_source, json_option, quiet_option
from tripletkit.cli.votes import make_votes_options

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
    from tripletkit.data.judgements import read_questions
    from tripletkit.data.truth import open_truth
    from tripletkit.evaluation.answer_checks import (
        check_not_exchanged,
        check_same_length,
        check_same_questions,
    )
    from tripletkit.evaluation.answers import read_answers
    from tripletkit.evaluation.pooled import take_random_share
    from tripletkit.evaluation.scoring import score_answers, warn_of_ties
    from tripletkit.evaluation.vote_scoring import ScoredAnswers, score_votes, take_majority

    if fourth_column is not None and triplets_file is None and votes_file is None:
        raise click.UsageError("--fourth-column needs --triplets, which has the column.")
    answers = read_answers(input_source(predictions))
    triplets, votes = read_questions(
        triplets_file and input_source(triplets_file),
        votes_file and input_source(votes_file),
        fourth_column,
    )
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
    by_votes = labels = weights = None
    of_truth = None if truth is None else str(truth)
    if truth is not None and is_judgements(truth):
        if votes is not None:
            raise click.UsageError(f"{truth} holds votes itself: it excludes other votes.")
        answers, labels, votes, weights = take_random_share(answers, triplets, truth)
        rows = answers.triplets.rows
        by_votes = score_votes(answers, votes, rows=rows, ties=ties, weights=weights)
    elif votes is not None:
        check_same_length(answers, len(votes), str(votes_file or triplets_file))
        by_votes = score_votes(answers, votes, rows=rows, ties=ties)
    if labels is not None:
        pass
    elif truth is not None:
        read = open_truth(input_source(truth))[0]
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
    result = score_answers(answers, labels, rows=rows, ties=ties, unique=unique, weights=weights)
    warn_of_ties(result)
    scored = ScoredAnswers.of(result, of_truth, by_votes)
    if as_json:
        show_json(scored.to_dict())
    else:
        show_text(str(scored))
