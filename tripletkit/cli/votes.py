"""Votes on triplets on the command line: options that `train` and `score` share."""

from __future__ import annotations

from collections.abc import Callable

import click

from tripletkit.cli.options import INPUT_FILE, group_options


def make_votes_options(triplets: str) -> Callable[[Callable], Callable]:
    """Return `--votes` and `--fourth-column` for a command.

    Args:
        triplets: how the command calls the triplet file that the votes are on.
    """
    return group_options(
        click.option(
            "--votes",
            "votes_file",
            type=INPUT_FILE,
            help=f"How many people said B and how many C, a row for each row of {triplets} in "
            "order: two numbers, or a,b,c,votes_b,votes_c.",
        ),
        click.option(
            "--fourth-column",
            type=click.Choice(["share"]),
            help=f"{triplets} has a fourth column: the share of people who said B, 0 to 1.",
        ),
    )
