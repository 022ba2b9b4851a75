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
    help="Folder for the files; made if there is none.",
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
    """Write collected judgements as files for other tools.

    \b
    tripletkit export-judgements judgements.sqlite -o export/
    tripletkit export-judgements judgements.sqlite -o export/ --exclude ben
    tripletkit train export/train.txt photos/ --votes export/votes.csv

    A row of train.txt is a question: anchor, the image that most judges chose, the other; the
    same row of votes.csv has the votes. questions.csv has all questions, also those on which as
    many chose the one image as the other, or nobody could tell (undecided), and which of them
    were drawn by chance and for how many they then stand. answers.csv has every answer with its
    judge, time and side.
    """
    import pandas as pd

    from tripletkit.data.judgement_files import read_answers_given
    from tripletkit.data.judgements import open_judgements
    from tripletkit.data.output_forms import TRIPLETS_FORM, csv_form
    from tripletkit.data.outputs import Outputs, open_output
    from tripletkit.data.triplet_files import write_triplets
    from tripletkit.errors import JudgementsError

    outputs = Outputs([database], overwrite=force)
    outputs.files_in(
        folder,
        {
            "train.txt": TRIPLETS_FORM,
            "votes.csv": csv_form("a file of votes", "votes_b,votes_c"),
            "questions.csv": csv_form("questions with votes", "a,b,c,votes_b"),
            "answers.csv": csv_form("the judges' answers", "judge,screen"),
        },
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
    answers = read_answers_given(database, exclude)
    folder.mkdir(parents=True, exist_ok=True)
    outputs.check_again()
    triplets, votes = judgements.triplets, judgements.votes
    questions = triplets.to_frame().assign(
        votes_b=votes.for_first,
        votes_c=votes.for_second,
        undecided=votes.is_tie.astype(int),
        random=judgements.is_random.astype(int),
        weight=judgements.weights,
    )
    is_decided = ~votes.is_tie
    write_triplets(folder / "train.txt", triplets.names, triplets.rows[is_decided])
    tables = {
        "votes.csv": questions.loc[is_decided, ["votes_b", "votes_c"]],
        "questions.csv": questions,
        "answers.csv": pd.DataFrame([answer.to_dict() for answer in answers]),
    }
    for name, table in tables.items():
        with open_output(folder / name) as file:
            table.to_csv(file, index=False, float_format="%.10g", lineterminator="\n")
    say(
        f"Wrote {int(is_decided.sum()):,} questions to {folder / 'train.txt'}; questions.csv has "
        f"{len(judgements):,}, {int(votes.is_tie.sum()):,} of them undecided and "
        f"{int(judgements.is_random.sum()):,} drawn by chance."
    )
