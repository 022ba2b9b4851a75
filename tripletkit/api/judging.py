"""What people judge: questions to ask them next, how careful they are, and what they said."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.api.given import PathLike, TripletsLike, as_path, given_weights, is_path
from tripletkit.api.models import Model
from tripletkit.collecting.asking import AskingSettings
from tripletkit.collecting.choosing import suggest_questions
from tripletkit.collecting.collection import (
    Imported,
    JudgementCollection,
    import_answers,
    import_table,
    is_answer_file,
)
from tripletkit.collecting.database import MAX_NAME, JudgementDatabase, parse_name
from tripletkit.collecting.judges import JudgesReport, report_judges
from tripletkit.collecting.serving import check_extra
from tripletkit.collecting.study import kept_settings
from tripletkit.data.images import ImagesLike, refuse_folder_of
from tripletkit.data.judgement_files import read_answers_given
from tripletkit.data.judgements import Judgements, read_judgements
from tripletkit.data.outputs import (
    TRIPLETS_FORM,
    VOTES_FORM,
    OutputForm,
    Outputs,
    as_one_run,
    open_output,
)
from tripletkit.data.triplets import Triplets, write_triplets
from tripletkit.errors import ImageNameError, JudgementsError, SettingsError
from tripletkit.features.encoder import BackboneLike, list_backbones
from tripletkit.model.settings import Settings
from tripletkit.progress import Stages
from tripletkit.registry import check_choice, check_numbers

logger = logging.getLogger("tripletkit")

AskWay = Literal["auto", "random", "margin", "disagreement"]


@as_one_run
def suggest(
    model: Model,
    images: ImagesLike | None = None,
    n: int = defaults.CHOSEN_BATCH,
    *,
    ask: AskWay = "auto",
    asked: Sequence[TripletsLike] = (),
    seed: int = defaults.SEED,
    output: PathLike | None = None,
    overwrite: bool = False,
    progress: bool | Stages | None = None,
) -> Triplets:
    """Choose the questions whose answers a model would learn most from.

    Args:
        model: that was trained on the answers so far.
        images: to ask about; see `Model.embed`. Defaults to the folder of the training.
        n: how many questions at most.
        ask: `"random"`, `"margin"` (where the model is least sure), `"disagreement"` (where its
            members contradict each other), or `"auto"`, the default, which is one of them.
        asked: triplets whose questions are not to be asked again, whichever way round.
        seed: start of everything by chance.
        output: question file to write.
        overwrite, progress: see `train`.
    Returns:
        Questions in `Triplets`: is the first more like the second or the third? The order of the
        last two is by chance. No image is in more than two of them, but for `"random"`.
    Raises:
        SettingsError: if `ask` is no such way, or needs a model of several members.
        ImageNameError, ImageReadError: if there are fewer than three images, or one cannot be read.
    Reference:
        Settles. Active learning literature survey. 2009 (uncertainty sampling, query by committee).
    """
    check_choice("ask", ask, get_args(AskWay))
    check_numbers(1, n=n)
    check_numbers(0, seed=seed)
    way = defaults.AUTO_ASK if ask == "auto" else ask
    file = Outputs(overwrite=overwrite).optional_file(as_path(output), TRIPLETS_FORM)
    embedded = model.embed(images, progress=progress)
    # Copies of an image are one image, whatever they are called.
    first_with: dict[bytes | str, str] = {}
    same_as = {
        name: first_with.setdefault(content or name, name)
        for name, content in zip(embedded.names, embedded.contents, strict=True)
    }
    embedded = embedded.take([*first_with.values()])
    if len(embedded) < 3:
        raise ImageNameError(f"expected three images or more to ask about, got {len(embedded)}")
    places = {name: place for place, name in enumerate(embedded.names)}
    place_of = {name: places[first] for name, first in same_as.items()}
    known = [_places(read_judgements(each).triplets, place_of) for each in asked]
    left_out = np.concatenate([np.empty((0, 3), dtype=np.int32), *known])
    rng = np.random.default_rng(seed)
    members = _members(model, embedded.vectors, way)
    rows = suggest_questions(members, model.distance, n, way, left_out, rng)
    chosen = Triplets.from_array(rows, embedded.names)
    if file is not None:
        write_triplets(file, chosen.names, chosen.rows, is_answered=False)
        logger.info("Wrote %s questions to %s, chosen by %s.", f"{len(chosen):,}", output, way)
    if len(chosen) < n:
        limit = "" if way == "random" else f", with no image in more than {defaults.MAX_PER_IMAGE}"
        logger.info("%s were asked for; there are no more%s.", f"{n:,}", limit)
    return chosen


@as_one_run
def collect(
    images: PathLike,
    database: PathLike = "judgements.sqlite",
    *,
    study: PathLike | None = None,
    judge: Sequence[str] = (),
    questions: int | None = None,
    screen: Literal["question", "grid"] = "question",
    grid_of: int = defaults.GRID_OF,
    grid_pick: int = defaults.GRID_PICK,
    ask: AskWay = "auto",
    overlap: int = 1,
    stop: Literal["auto"] | None = None,
    host: str = "127.0.0.1",
    port: int | None = 8765,
    url: str = "",
    backbone: BackboneLike | Sequence[BackboneLike] = defaults.BACKBONE,
    weights: PathLike | Mapping[str, PathLike] | None = None,
    cache: PathLike | None = None,
) -> JudgementCollection:
    """Open a collection of judgements of a folder of images, to serve its pages or write one.

    Args:
        images: folder to ask about.
        database: of the judgements; made if it is not there, continued if it is.
        study: file of what is said to judges. Defaults to `study.toml` beside the database, which
            is made for a new database.
        judge: names of those who get a link of their own; one link for everybody without any.
        questions: or grids, for each judge. Defaults to the study's `quota`, or `200`.
        screen: `"question"` (which of two images is more like the anchor) or `"grid"` (which of
            several are).
        grid_of, grid_pick: images of a grid, and how many are picked at most.
        ask: how questions are chosen after the first hundred answers; see `suggest`.
        overlap: of how many judges each question is asked.
        stop: `"auto"` ends the study when more answers would bring too little, by its
            `stop_answers` and `stop_points`.
        host, port: address to serve at; port 0 takes any that is free, None binds none.
        url: where a proxy serves the pages to others, such as `"https://museum.example/judge/"`.
        backbone, weights, cache: of the model that chooses questions; see `train`.
    Returns:
        A `JudgementCollection`: its `links`, `serve()`, and `wsgi()` for a server of your own.
    Raises:
        JudgementsError: if the database or the study is none, or the database or address in use.
        ImageNameError: if there are too few images, or a question of the study names another.
        SettingsError: if settings exclude each other.
    """
    check_extra()
    if screen == "grid" and grid_pick >= grid_of:
        raise SettingsError(
            "grid_pick", f"`grid_pick={grid_pick}` must be less than `grid_of={grid_of}`."
        )
    if screen == "grid" and (ask in ("margin", "disagreement") or overlap > 1):
        raise SettingsError(
            "screen", "`screen=grid` draws its images at random: it excludes `ask` and `overlap`."
        )
    if url and not re.fullmatch(r"https?://[^/?#@]+(/[^?#]*)?", url):
        raise SettingsError("url", f"expected such as https://museum.example/judge/, got {url}")
    names = [parse_name(name) for name in judge]
    if None in names:
        raise SettingsError("judge", f"expected a name of 1 to {MAX_NAME} letters as `judge`")
    return JudgementCollection(
        Path(images),
        Path(database),
        as_path(study),
        [name for name in names if name],
        AskingSettings(questions or 0, overlap, screen, grid_of, grid_pick),
        ask=ask,
        stops=stop == "auto",
        address=None if port is None else (host, port),
        url=url,
        backbone=list_backbones(backbone),
        weights=given_weights(weights),
        cache=as_path(cache),
    )


@as_one_run
def import_judgements(
    database: PathLike,
    answers: TripletsLike,
    images: PathLike | None = None,
    *,
    judge: str = "imported",
) -> Imported:
    """Add judgements to a database of collected ones; all of them or none, and none twice.

    Args:
        database: of collected judgements; for a table, made if it is not there.
        answers: a file that an offline page saved; or judgements of any other form, of which only
            decided rows and whole votes have a place.
        images: folder that the names of a table are looked up in.
        judge: name for whom the answers of a table are; a second vote on a row is of `NAME 2`.
    Returns:
        How many answers are new, were there before, and belong to screens that are answered.
    Raises:
        JudgementsError: if the answers are of another database, or not as they should be.
        ImageNameError: if a table names images that the folder lacks.
    """
    path = Path(answers) if is_path(answers) else None
    if path is not None and is_answer_file(path):
        if not Path(database).exists():
            raise JudgementsError(f"{database}: there is no such database")
        return import_answers(path, JudgementDatabase(Path(database)))
    if images is None:
        raise SettingsError("images", f"{answers}: a table needs the folder of its `images`.")
    if (name := parse_name(judge)) is None:
        raise SettingsError("judge", f"expected a name of 1 to {MAX_NAME} letters as `judge`")
    return import_table(read_judgements(answers), Path(database), Path(images), name)


@as_one_run
def judges(
    database: PathLike, *, gold: TripletsLike | None = None, exclude: Collection[str] = ()
) -> JudgesReport:
    """Return how fast, steady and careful the judges of a collection are.

    Args:
        database: of collected judgements.
        gold: triplets whose answer is known, beside the `attention` of the study.
        exclude: names of judges to leave out.
    Returns:
        A `JudgesReport`: `judges`, how far each two agree, and Krippendorff's alpha.
    Raises:
        JudgementsError: if it is no such database, or nobody has answered yet.
    """
    known: list[tuple[str, str, str]] = []
    if gold is not None:
        read = read_judgements(gold).decided().triplets
        known = [(read.names[a], read.names[b], read.names[c]) for a, b, c in read.rows.tolist()]
    answers = read_answers_given(Path(database), exclude)
    if not answers:
        raise JudgementsError(f"{database}: expected judgements, there is no answer in it yet")
    return report_judges(answers, known, kept_settings(Path(database)))


@as_one_run
def export_judgements(
    database: PathLike,
    output: PathLike,
    *,
    exclude: Collection[str] = (),
    random_share: bool = False,
    overwrite: bool = False,
) -> Judgements:
    """Write collected judgements as text files: train.txt, votes.csv, questions.csv, answers.csv.

    A row of train.txt is a question: anchor, the image that most judges chose, the other; the same
    row of votes.csv has the votes. questions.csv has all questions, also the undecided ones, and
    which of them were drawn by chance; answers.csv has every answer with its judge, time and side.

    Args:
        database: of collected judgements.
        output: folder for these files; made if there is none.
        exclude: names of judges to leave out.
        random_share: only questions drawn by chance: what a score may be computed on.
        overwrite: replace such files that are there.
    Returns:
        The judgements that were written.
    Raises:
        JudgementsError: if it is no such database, or there is no such question.
    """
    database, folder = Path(database), Path(output)
    outputs = Outputs(overwrite=overwrite)
    outputs.files_in(
        folder,
        {
            "train.txt": TRIPLETS_FORM,
            "votes.csv": VOTES_FORM,
            "questions.csv": OutputForm("questions with votes", headings=("a,b,c,votes_b",)),
            "answers.csv": OutputForm("the judges' answers", headings=("judge,screen",)),
        },
    )
    answers = read_answers_given(database, exclude)
    found = read_judgements(database, exclude=exclude)
    if found.is_random is None:  # an old study alone, of which nothing is known to be by chance
        nothing = np.zeros(len(found), dtype=bool)
        found = replace(found, is_random=nothing, weights=nothing.astype(float))
    if random_share:
        found = found.take(np.asarray(found.is_random))
        if not len(found):
            raise JudgementsError(f"{database}: no question was drawn by chance")
    triplets, votes, is_random = found.triplets, found.votes, found.is_random
    assert votes is not None and is_random is not None
    refuse_folder_of(triplets.names, folder)
    questions = triplets.to_frame().assign(
        votes_b=votes.for_first,
        votes_c=votes.for_second,
        undecided=votes.is_tie.astype(int),
        random=is_random.astype(int),
        weight=found.weights,
    )
    is_decided = ~votes.is_tie
    tables = {
        "votes.csv": questions.loc[is_decided, ["votes_b", "votes_c"]],
        "questions.csv": questions,
        "answers.csv": pd.DataFrame([answer.to_dict() for answer in answers]),
    }
    with outputs.write_files(folder) as partial:
        write_triplets(partial / "train.txt", triplets.names, triplets.rows[is_decided])
        for name, table in tables.items():
            with open_output(partial / name) as file:
                table.to_csv(file, index=False, float_format="%.10g", lineterminator="\n")
    logger.info(
        f"Wrote {is_decided.sum():,} questions to {folder / 'train.txt'}; questions.csv has "
        f"{len(found):,}, {votes.is_tie.sum():,} of them undecided and {is_random.sum():,} drawn "
        "by chance."
    )
    return found


def _places(triplets: Triplets, place_of: dict[str, int]) -> np.ndarray:
    """Return the `(n, 3)` int32 rows whose images are all known."""
    places = np.array([place_of.get(name, -1) for name in triplets.names], dtype=np.int32)
    rows: np.ndarray = places[triplets.rows].reshape(-1, 3)
    return rows[(rows >= 0).all(axis=1)]


def _members(model: Model, vectors: np.ndarray, way: str) -> list[np.ndarray]:
    if way in ("margin", "random") or model.folder is None:
        members = [vectors]
    else:
        record = model.folder.record
        members = _split_members(vectors, record.settings, record.n_features)
    if way == "disagreement" and len(members) < 2:
        raise SettingsError(
            "ask",
            "`ask=disagreement` needs a model of several members that can be told apart; "
            f"{model!r} is not one. Use `ask=margin`, or train one with the setting members=5",
        )
    return members


def _split_members(embeddings: np.ndarray, settings: Settings, n_features: int) -> list[np.ndarray]:
    """Return the embeddings of each member; all as one where they cannot be told apart.

    Frozen features, if they have a share, stand in front of them and go to every member.
    """
    # Members that were compressed together cannot be told apart.
    if settings.members < 2 or settings.is_compressed:
        return [embeddings]
    frozen, of_members = np.split(embeddings, [n_features if settings.frozen_share else 0], axis=1)
    # Each member as long as all were, so that the frozen share weighs the same.
    return [
        np.hstack([frozen, each * settings.members**0.5])
        for each in np.split(of_members, settings.members, axis=1)
    ]
