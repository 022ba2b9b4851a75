import signal
import sys
from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import command, say, section, takes
from tripletkit.cli.options import backbone_option, weights_option
from tripletkit.cli.parameters import INPUT_FOLDER, JUDGEMENTS, NAMED_FILE, OUTPUT_FILE, WholeRange

_ASK_WAYS = ("auto", "random", "margin", "disagreement")


@command()
@click.argument("images", type=INPUT_FOLDER, required=False)
@click.option(
    "--db",
    "database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("judgements.sqlite"),
    help="Database of the judgements; made if it is not there, continued if it is.",
)
@click.option(
    "--import",
    "answer_files",
    type=JUDGEMENTS,
    multiple=True,
    metavar="ANSWERS",
    help="Add the answers that an offline page saved, or judgements of images in any other form, "
    "and stop. May be given several times.",
)
@section(
    "Questions",
    click.option(
        "-n",
        "--questions",
        type=WholeRange(1),
        help="Questions, or grids, for each judge.  [default: the study's quota, or "
        f"{defaults.QUESTIONS_PER_JUDGE}]",
    ),
    click.option(
        "--screen",
        type=click.Choice(["question", "grid"]),
        default="question",
        help="Which of two images is more like the anchor, or which of several are.",
    ),
    click.option(
        "--of",
        "grid_of",
        type=WholeRange(3, 24),
        default=defaults.GRID_OF,
        help="Images of a grid.",
    ),
    click.option(
        "--pick",
        "grid_pick",
        type=WholeRange(1, 23),
        default=defaults.GRID_PICK,
        help="Images to pick from a grid at most.",
    ),
    click.option(
        "--ask",
        type=click.Choice(_ASK_WAYS),
        default="auto",
        help="How questions are chosen after the first "
        f"{defaults.FIRST_RANDOM} answers: at random, where a model is least sure, or where "
        f"several models contradict each other; auto means {defaults.AUTO_ASK}.",
    ),
    click.option(
        "--stop",
        type=click.Choice(["auto"]),
        help="End the study when more answers would bring too little, by its stop_points.",
    ),
    backbone_option("Backbone of the model that chooses questions.", default=defaults.BACKBONE),
    weights_option,
)
@section(
    "Judges",
    click.option(
        "--judge",
        "judge",
        multiple=True,
        metavar="NAME",
        help="Print a link for this judge alone. May be given several times.  [default: one link "
        "for everybody, where each gives a name]",
    ),
    click.option(
        "--study",
        type=NAMED_FILE,
        help="What is said to judges: language, instructions, consent, practice and more; see "
        "docs/study.md.  [default: study.toml beside the database, which is made at the first "
        "start]",
    ),
    click.option(
        "--overlap",
        type=WholeRange(1),
        default=1,
        metavar="N",
        help="Ask each question of N judges.",
    ),
)
@section(
    "Server",
    click.option("--host", default="127.0.0.1", help="Address to listen at."),
    click.option(
        "--port",
        type=WholeRange(0, 65535),
        default=8765,
        help="Port to listen at; 0 takes any that is free.",
    ),
    click.option(
        "--url",
        default="",
        show_default=False,
        metavar="https://...",
        help="Where a proxy serves the pages to others. Links name it, and cookies go to it alone.",
    ),
    click.option("--no-browser", is_flag=True, help="Do not open the browser."),
)
@click.option(
    "--offline",
    "offline_page",
    type=OUTPUT_FILE,
    metavar="PAGE.html",
    help="Write a page that works without a server, for the judge named by --judge, and stop.",
)
@takes("overwrite", "cache", "judgements")
def collect(
    images: Path | None,
    database: Path,
    no_browser: bool,
    offline_page: Path | None,
    answer_files: tuple[Any, ...],
    overwrite: bool,
    **settings: Any,
) -> None:
    """Collect judgements of a folder of images on a page in the browser.

    \b
    tripletkit collect photos/ --judge anna --judge ben
    tripletkit collect photos/ --db shapes.sqlite -n 300 --overlap 3
    tripletkit collect photos/ --screen grid --of 8 --pick 3
    tripletkit collect photos/ --judge carla --offline carla.html
    tripletkit collect --import answers-carla.json
    tripletkit collect photos/ --import old-study.csv --judge "old study"

    Every answer is on the disk before the next question is shown. The database is a triplet file
    for all other commands: `tripletkit train judgements.sqlite photos/`. Stop with Ctrl-C; the
    same command goes on, with the same links, and prints which options have changed since the last
    start.
    """
    judges = settings["judge"]
    if answer_files:
        if offline_page is not None:
            raise click.UsageError("--import excludes --offline.")
        name = judges[0] if judges else "imported"
        for answers in answer_files:
            found = tk.import_judgements(database, answers, images, judge=name)
            say(f"{getattr(answers, 'source', answers)}: {found}")
        return
    if images is None:
        raise click.UsageError("Missing argument 'IMAGES'.")
    if offline_page is not None and len(judges) != 1:
        raise click.UsageError("--offline needs one --judge: each page is for one person.")
    if offline_page is not None:
        from tripletkit.collecting.collection import OFFLINE_FORM
        from tripletkit.data.outputs import Outputs

        page = Outputs(overwrite=overwrite).file(offline_page, OFFLINE_FORM)
        with tk.collect(images, database, **settings | {"port": None}) as collection:
            n_questions = collection.write_page(page)
        say(
            f"Wrote {page}, {page.path.stat().st_size / 1e6:.1f} MB: {n_questions:,} questions for "
            f"{judges[0]}. Take the answers in with: tripletkit collect --db {database} "
            "--import ANSWERS.json"
        )
        return
    with tk.collect(images, database, **settings) as collection:
        width = max(map(len, collection.links))
        # Even when quiet: without the links nobody can answer.
        for name, link in collection.links.items():
            click.echo(f"{name:<{width}}  {link}")
        say(f"Collecting into {database}, {len(collection):,} answers so far. Stop with Ctrl-C.")
        sys.stdout.flush()
        if not no_browser:
            import webbrowser

            webbrowser.open(next(iter(collection.links.values())))
        # A service manager stops a server so, and it is no fault.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        collection.serve()
        say(f"Stopped. {len(collection):,} answers are in {database}.")
