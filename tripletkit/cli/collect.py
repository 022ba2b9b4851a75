"""`tripletkit collect`: a local page on which people judge images."""

from __future__ import annotations

import importlib.util
import socket
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit import defaults
from tripletkit.cli.console import say, warn
from tripletkit.cli.options import backbone_option, command, takes, weights_option
from tripletkit.cli.parameters import INPUT_FOLDER, NAMED_FILE, OUTPUT_FILE, WholeRange
from tripletkit.errors import MissingExtraError

if TYPE_CHECKING:
    from tripletkit.collecting.asking import Asker
    from tripletkit.collecting.background import BackgroundTrainer
    from tripletkit.collecting.database import Judge, JudgementDatabase
    from tripletkit.collecting.site import Site
    from tripletkit.data.outputs import OutputFile
    from tripletkit.features.feature_parts import GivenWeights

ASK = "auto"
COLLECT_PORT = 8765

ASK_WAYS = ("auto", "random", "margin", "disagreement")


@command()
@click.argument("images", type=INPUT_FOLDER, required=False)
@click.option(
    "--db",
    "database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("judgements.sqlite"),
    show_default=True,
    help="Database of the judgements; made if it is not there, continued if it is.",
)
@click.option(
    "--judge",
    "judge_names",
    multiple=True,
    metavar="NAME",
    help="Print a link for this judge alone. May be given several times.  [default: one link "
    "for everybody, where each gives a name]",
)
@click.option(
    "-n",
    "--questions",
    type=WholeRange(1),
    default=defaults.QUESTIONS_PER_JUDGE,
    show_default=True,
    help="Questions, or grids, for each judge.",
)
@click.option(
    "--screen",
    type=click.Choice(["question", "grid"]),
    default="question",
    show_default=True,
    help="Which of two images is more like the anchor, or which of several are.",
)
@click.option(
    "--of",
    "grid_of",
    type=WholeRange(3, 24),
    default=defaults.GRID_OF,
    show_default=True,
    help="Images of a grid.",
)
@click.option(
    "--pick",
    "grid_pick",
    type=WholeRange(1, 23),
    default=defaults.GRID_PICK,
    show_default=True,
    help="Images to pick from a grid.",
)
@click.option(
    "--ask",
    type=click.Choice(ASK_WAYS),
    default=ASK,
    show_default=True,
    help="How questions are chosen after the first "
    f"{defaults.FIRST_RANDOM} answers: at random, where a model is least sure, or where "
    f"several models contradict each other; auto means {defaults.AUTO_ASK}.",
)
@click.option(
    "--overlap",
    type=WholeRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Ask each question of N judges.",
)
@click.option(
    "--gold",
    "gold_file",
    type=NAMED_FILE,
    help="Triplet file with questions whose answer is known; they are mixed in to check judges.",
)
@click.option("--instructions", type=NAMED_FILE, help="Markdown file shown to judges.")
@click.option(
    "--pause-every",
    type=WholeRange(1),
    default=defaults.PAUSE_EVERY,
    show_default=True,
    help="Offer a pause after so many answers.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=WholeRange(0, 65535),
    default=COLLECT_PORT,
    show_default=True,
    help="Port to listen at; 0 takes any that is free.",
)
@click.option("--no-browser", is_flag=True, help="Do not open the browser.")
@click.option(
    "--offline",
    "offline_page",
    type=OUTPUT_FILE,
    metavar="PAGE.html",
    help="Write a page that works without a server, for the judge named by --judge, and stop.",
)
@click.option(
    "--import",
    "answer_files",
    type=NAMED_FILE,
    multiple=True,
    metavar="ANSWERS.json",
    help="Add the answers that an offline page saved, and stop. May be given several times.",
)
@backbone_option(
    "Backbone of the model that chooses questions.", default=defaults.BACKBONE, show_default=True
)
@weights_option
@takes("overwrite", "cache")
def collect(
    images: Path | None,
    database: Path,
    judge_names: tuple[str, ...],
    questions: int,
    screen: str,
    grid_of: int,
    grid_pick: int,
    ask: str,
    overlap: int,
    gold_file: Path | None,
    instructions: Path | None,
    pause_every: int,
    host: str,
    port: int,
    no_browser: bool,
    offline_page: Path | None,
    answer_files: tuple[Path, ...],
    backbone: list[str],
    weights: GivenWeights,
    overwrite: bool,
    cache: Path | None,
) -> None:
    """Collect judgements of a folder of images on a page in the browser.

    \b
    tripletkit collect photos/ --judge anna --judge ben
    tripletkit collect photos/ --db shapes.sqlite -n 300 --overlap 3
    tripletkit collect photos/ --screen grid --of 8 --pick 3
    tripletkit collect photos/ --judge carla --offline carla.html
    tripletkit collect --import answers-carla.json

    Every answer is on the disk before the next question is shown. The database is a triplet file
    for all other commands: `tripletkit train judgements.sqlite photos/`. Stop with Ctrl-C; the
    same command goes on, with the same links.
    """
    if images is None and not answer_files:
        raise click.UsageError("Missing argument 'IMAGES'.")
    if screen == "grid" and grid_pick >= grid_of:
        raise click.UsageError(f"--pick {grid_pick} must be less than --of {grid_of}.")
    if screen == "grid" and (ask in ("margin", "disagreement") or overlap > 1 or gold_file):
        raise click.UsageError(
            "--screen grid draws its images at random: it excludes --ask, --overlap and --gold."
        )
    if offline_page is not None and len(judge_names) != 1:
        raise click.UsageError("--offline needs one --judge: each page is for one person.")
    check_extra()

    if answer_files:
        if images is not None or offline_page is not None:
            raise click.UsageError("--import goes with --db alone.")
        _import(database, answer_files)
        return
    from tripletkit.collecting.answer_forms import parse_name
    from tripletkit.collecting.asking import Asker, AskingSettings
    from tripletkit.collecting.background import BackgroundTrainer
    from tripletkit.collecting.committee import TrainerTask
    from tripletkit.collecting.database import DATABASE_FORM, JudgementDatabase, only_server
    from tripletkit.collecting.instructions import DEFAULT, DEFAULT_GRID, read_instructions
    from tripletkit.collecting.offline import OFFLINE_FORM
    from tripletkit.collecting.preparation import compute_features, locate_usable, read_gold
    from tripletkit.collecting.scaled_images import ScaledImages
    from tripletkit.collecting.serving import bound_port
    from tripletkit.collecting.site import Site
    from tripletkit.data.folder import list_images
    from tripletkit.data.outputs import Outputs, note_written
    from tripletkit.errors import ImageNameError, JudgementsError

    outputs = Outputs(overwrite=overwrite)
    if not database.exists():
        outputs.file(database, DATABASE_FORM)
    page_out = outputs.optional_file(offline_page, OFFLINE_FORM)
    text = None if instructions is None else read_instructions(instructions)
    try:
        judge_names = tuple(parse_name(name) for name in judge_names)
    except JudgementsError as error:
        raise click.BadParameter(str(error), param_hint="'--judge'") from error
    names = list_images(images)
    if not names:
        raise ImageNameError(f"{images}: expected a folder of images, there is none in it")
    paths_of = locate_usable(names, images)
    make_features = partial(compute_features, images, list(paths_of), backbone, weights, cache)
    # The port first: where it is taken, no empty database stays behind.
    with ExitStack() as stack:
        listener = None if page_out else stack.enter_context(bound_port(host, port))
        stack.enter_context(only_server(database))
        collected = JudgementDatabase(database)
        note_written(database)
        numbers = collected.add_images(list(paths_of))
        paths = {numbers[name]: path for name, path in paths_of.items()}
        asker = Asker(
            collected,
            list(paths),
            AskingSettings(questions, overlap, screen, grid_of, grid_pick),
            read_gold(gold_file, images, numbers),
        )
        judges = [collected.add_judge(name) for name in judge_names]
        if listener is None:
            usual = DEFAULT_GRID if screen == "grid" else DEFAULT
            _write_offline(page_out, collected, judges[0], asker, paths, text or usual)
            return
        way = "random" if screen == "grid" else defaults.AUTO_ASK if ask == "auto" else ask
        n_shown = grid_of if screen == "grid" else 0
        task = TrainerTask(database.absolute(), numbers, make_features, way, defaults.SEED, n_shown)
        trainer = BackgroundTrainer(asker, task)
        site = Site(collected, asker, ScaledImages(paths), text, pause_every, status=trainer.status)
        _serve(site, trainer, listener, host, judges, opens_browser=not no_browser)


def check_extra() -> None:
    """Refuse early what needs the packages that pages are served with."""
    for module in ("flask", "waitress", "segno"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f"serving pages needs the package {module}: pip install 'tripletkit[collect]'"
            )


def _write_offline(
    page: OutputFile,
    database: JudgementDatabase,
    judge: Judge,
    asker: Asker,
    paths: dict[int, Path],
    instructions: str,
) -> None:
    from tripletkit.collecting.offline import write_offline_page

    n_questions = write_offline_page(page, database, judge, asker, paths, instructions)
    say(
        f"Wrote {page}, {page.path.stat().st_size / 1e6:.1f} MB: {n_questions:,} questions for "
        f"{judge.name}. Take the answers in with: tripletkit collect --db {database.path} "
        "--import ANSWERS.json"
    )


def _import(database: Path, answer_files: tuple[Path, ...]) -> None:
    from tripletkit.collecting.database import JudgementDatabase
    from tripletkit.collecting.offline import import_answers
    from tripletkit.errors import JudgementsError

    if not database.exists():
        raise JudgementsError(f"{database}: there is no such database; name it with --db")
    opened = JudgementDatabase(database)
    for path in answer_files:
        found = import_answers(path, opened)
        more = f", {found.n_known:,} were there already" if found.n_known else ""
        more += f", {found.n_taken:,} left out, answered otherwise since" if found.n_taken else ""
        say(f"{path}: {found.n_new:,} answers of {found.judge} added{more}.")


def _serve(
    site: Site,
    trainer: BackgroundTrainer,
    listener: socket.socket,
    host: str,
    judges: list[Judge],
    opens_browser: bool,
) -> None:
    import os
    import signal

    from tripletkit.collecting.app import make_app
    from tripletkit.collecting.serving import bound_server, is_local, shown_hosts

    # The process that trains takes these along.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A service manager stops a server so, and it is no fault.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with bound_server(make_app(site), listener) as server:
        hosts = shown_hosts(host)
        base = f"http://{hosts[0]}:{server.effective_port}"
        if not is_local(host):
            warn(
                f"pages at {host} are not encrypted: whoever can listen to the network sees the "
                "images, the answers and the links."
            )
        links = {judge.name: f"{base}/j/{judge.token}" for judge in judges}
        if not judges:
            links["everybody"] = f"{base}/join/{site.database.open_token}"
        links["owner"] = f"{base}/owner/{site.database.owner_token}"
        width = max(map(len, links))
        # Even when quiet: without the links nobody can answer.
        for name, link in links.items():
            click.echo(f"{name:<{width}}  {link}")
        say(
            f"Collecting into {site.database.path}, {site.database.n_answers():,} answers so far. "
            "Stop with Ctrl-C."
        )
        if len(hosts) > 1:
            say(f"Instead of {hosts[0]} the links may have {' or '.join(hosts[1:])}.")
        sys.stdout.flush()
        if opens_browser:
            import webbrowser

            webbrowser.open(links[judges[0].name if judges else "everybody"])
        trainer.start()
        try:
            server.run()
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            trainer.stop()
        say(f"Stopped. {site.database.n_answers():,} answers are in {site.database.path}.")
