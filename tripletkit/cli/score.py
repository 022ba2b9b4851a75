"""`tripletkit score`: accuracy of an answer file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import say, show_json
from tripletkit.cli.options import INPUT_FILE, input_source, json_option, quiet_option, seed_option
from tripletkit.cli.tables import align_columns, show_count

if TYPE_CHECKING:
    from tripletkit.evaluation.intervals import Interval
    from tripletkit.evaluation.scoring import Score, Slice

triplets_option = click.option(
    "--triplets",
    "triplets_file",
    type=INPUT_FILE,
    help="The triplet file that was answered; needed where the answers do not hold a, b, c.",
)

ties_option = click.option(
    "--ties",
    type=click.Choice(["error", "half"]),
    default="error",
    show_default=True,
    help="Count a row whose two pictures are equally near as wrong, or as half right.",
)


@click.command()
@click.argument("predictions", type=INPUT_FILE)
@click.argument("truth", type=INPUT_FILE, required=False)
@triplets_option
@click.option("--unique", is_flag=True, help="Count rows that repeat an earlier one only once.")
@ties_option
@seed_option
@json_option
@quiet_option
def score(
    predictions: Path,
    truth: Path | None,
    triplets_file: Path | None,
    unique: bool,
    ties: str,
    seed: int,
    as_json: bool,
) -> None:
    """Print the accuracy of an answer file, with its uncertainty.

    TRUTH is one 0 or 1 a line, or a CSV with a column label, truth or prediction. Without it
    every first picture is taken for the nearer one, as in a training file.

    \b
    tripletkit score preds.csv truth.csv
    tripletkit score answers.txt truth.csv --triplets test.txt --json
    """
    import numpy as np

    from tripletkit.data.triplets import read_triplets
    from tripletkit.evaluation.answers import (
        check_same_length,
        check_same_questions,
        read_answers,
        read_truth,
    )
    from tripletkit.evaluation.scoring import score_answers

    answers = read_answers(input_source(predictions))
    rows = answers.triplets.rows if answers.triplets else None
    if triplets_file is not None:
        triplets = read_triplets(input_source(triplets_file))
        check_same_questions(answers, triplets)
        rows = triplets.rows
    if unique and rows is None:
        raise click.UsageError(
            f"--unique needs to know the triplets, and {answers.source} does not hold them. "
            "Add --triplets FILE."
        )
    if truth is None:
        say("No truth file: taking every first picture for the nearer one (truth all 1).")
        labels = np.ones(len(answers), dtype=np.int8)
    else:
        read = read_truth(input_source(truth))
        check_same_length(answers, len(read), read.source)
        labels = read.labels
    result = score_answers(answers, labels, rows=rows, ties=ties, unique=unique, seed=seed)
    if as_json:
        show_json(result.to_json())
    else:
        click.echo(describe_score(result))


def describe_score(score: Score) -> str:
    """Return the score as lines of text."""
    lines = [
        [
            "accuracy",
            f"{score.accuracy:.4f}",
            f"{show_count(score.n_correct)} of {score.n:,} right",
        ],
        ["95% interval", describe_interval(score.wilson), "Wilson, rows taken as independent"],
    ]
    lines.append(_describe_bootstrap(score))
    for label, n, n_correct in (
        ("1", score.n_ones, score.n_ones_correct),
        ("0", score.n_zeros, score.n_zeros_correct),
    ):
        share = f"{n_correct / n:.4f}" if n else "-"
        lines.append([f"truth {label}", share, _describe_right(n_correct, n)])
    lines.append(["answers 1", f"{score.share_of_ones:.4f}", "share of ones among the answers"])
    lines += _describe_counts(score)
    parts = [align_columns(lines)]
    for title, slices in (
        ("by size of the margin", score.by_margin),
        ("by rows with the same anchor", score.by_anchor_frequency),
    ):
        if len(slices) > 1:
            parts.append(f"accuracy {title}\n{_describe_slices(slices)}")
    return "\n\n".join(parts)


def describe_interval(interval: Interval) -> str:
    """Return the two ends with the digits that an accuracy is given."""
    return f"{interval.low:.4f} to {interval.high:.4f}"


def _describe_right(n_correct: float, n: int) -> str:
    return f"{show_count(n_correct)} of {n:,} right"


def _describe_bootstrap(score: Score) -> list[str]:
    if score.bootstrap is not None:
        return ["95% interval", describe_interval(score.bootstrap), "bootstrap, pictures resampled"]
    if score.n_repeats is None:
        reason = "needs the triplets (--triplets FILE)"
    else:
        reason = "all rows are alike, or all share a picture"
    return ["95% interval", "-", f"bootstrap, pictures resampled: {reason}"]


def _describe_counts(score: Score) -> list[list[str]]:
    if score.n_ties is None:
        lines = [["ties", "-", "not known: the answers have no margins"]]
    else:
        lines = [
            ["ties", f"{score.n_ties:,}", "both pictures equally near"],
            ["undecidable", f"{score.n_undecidable:,}", "no margin; counted as wrong"],
        ]
    if score.n_repeats:
        counted = "left out" if score.is_unique else "counted again (--unique leaves them out)"
        lines.append(["repeats", f"{score.n_repeats:,}", f"equal an earlier row; {counted}"])
    if score.n_mirrored:
        broken = f"also asked as (A, C, B); {score.n_mirrored_broken:,} answered inconsistently"
        lines.append(["mirrored", f"{score.n_mirrored:,}", broken])
    return lines


def _describe_slices(slices: list[Slice]) -> str:
    rows = [
        [f"  {part.low:.4g}", "to", f"{part.high:.4g}", f"{part.accuracy:.4f}", f"{part.n:,} rows"]
        for part in slices
    ]
    return align_columns(rows, right=[0, 2, 4])
