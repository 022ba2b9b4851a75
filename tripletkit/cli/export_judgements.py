"""`tripletkit export-judgements`: collected judgements as text files."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit.cli.console import say
from tripletkit.cli.options import OUTPUT_FOLDER, force_option, quiet_option


@click.command("export-judgements")
@click.argument("database", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    "folder",
    type=OUTPUT_FOLDER,
    required=True,
    metavar="DIR",
    help="Folder for train.txt and votes.csv; made if there is none.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="NAME",
    help="Leave a judge out. May be given several times.",
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
    from tripletkit.data.judgements import open_judgements
    from tripletkit.data.output_forms import TRIPLETS_FORM, csv_form
    from tripletkit.data.outputs import Outputs, open_output
    from tripletkit.data.triplet_files import write_triplets
    from tripletkit.errors import JudgementsError

    train, votes_file = folder / "train.txt", folder / "votes.csv"
    outputs = Outputs([database], overwrite=force)
    outputs.files_in(
        folder,
        {"train.txt": TRIPLETS_FORM, "votes.csv": csv_form("a file of votes", "votes_b,votes_c")},
    )
    judgements = open_judgements(database, exclude=exclude)
    if judgements.votes is None or judgements.is_random is None:
        raise JudgementsError(
            f"{database}: expected a database of judgements, got one of another program"
        )
    if random_share:
        judgements = judgements.take(judgements.is_random)
        if not len(judgements):
            raise JudgementsError(f"{database}: no question was drawn by chance")
    folder.mkdir(parents=True, exist_ok=True)
    triplets, votes = judgements.triplets, judgements.votes
    outputs.check_again()
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
