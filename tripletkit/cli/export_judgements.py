"""`tripletkit export-judgements`: collected judgements as text files."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit.cli.console import say
from tripletkit.cli.options import force_option, quiet_option


@click.command("export-judgements")
@click.argument("database", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder for train.txt and votes.csv; made if there is none.",
)
@click.option(
    "--exclude", multiple=True, metavar="NAME", help="Leave a judge out. May be given again."
)
@click.option(
    "--random-share",
    is_flag=True,
    help="Only questions drawn by chance: what a score may be computed on.",
)
@force_option
@quiet_option
def export_judgements(
    database: Path, folder: Path, exclude: tuple[str, ...], random_share: bool, force: bool
) -> None:
    """Write collected judgements as a triplet file and a file of votes.

    \b
    tripletkit export-judgements judgements.sqlite -o export/
    tripletkit export-judgements judgements.sqlite -o export/ --exclude ben
    tripletkit train export/train.txt photos/ --votes export/votes.csv

    A row is a question: anchor, the image that most judges chose, the other. Each judge has one
    vote; half a vote for each image if the judge could not tell.
    """
    from tripletkit.data.judgements import read_judgements
    from tripletkit.data.outputs import open_output
    from tripletkit.data.triplet_files import write_triplets
    from tripletkit.errors import JudgementsError, OutputError

    judgements = read_judgements(database, exclude)
    if random_share:
        judgements = judgements.take(judgements.is_random)
        if not len(judgements):
            raise JudgementsError(f"{database}: no question was drawn by chance")
    train, votes_file = folder / "train.txt", folder / "votes.csv"
    for path in (train, votes_file):
        if path.exists() and not force:
            raise OutputError(f"{path}: exists already; replace it with --force")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    triplets, votes = judgements.triplets, judgements.votes
    write_triplets(train, triplets.names, triplets.rows)
    with open_output(votes_file) as file:
        file.write("votes_b,votes_c\n")
        for pair in zip(votes.for_first, votes.for_second, strict=True):
            file.write(",".join(f"{vote:.10g}" for vote in pair) + "\n")
    say(
        f"Wrote {len(judgements):,} questions to {train} and {votes_file}: "
        f"{int(judgements.is_random.sum()):,} drawn by chance, "
        f"{int(votes.is_tie.sum()):,} tied."
    )
