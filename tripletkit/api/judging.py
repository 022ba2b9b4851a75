"""What people judge: questions to ask them next, how careful they are, and what they said."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.api.given import PathLike, TripletsLike, as_path
from tripletkit.api.models import Model
from tripletkit.collecting.choosing import suggest_at_random, suggest_by_model
from tripletkit.collecting.committee import split_members
from tripletkit.collecting.judges import JudgesReport, report_judges
from tripletkit.data.folder import refuse_folder_of
from tripletkit.data.images import ImagesLike
from tripletkit.data.judgement_files import read_answers_given
from tripletkit.data.judgements import Judgements, open_judgements
from tripletkit.data.outputs import (
    TRIPLETS_FORM,
    VOTES_FORM,
    Outputs,
    as_one_run,
    csv_form,
    explain_failure,
    open_output,
    record_written,
)
from tripletkit.data.triplet_files import write_triplets
from tripletkit.data.triplets import Triplets
from tripletkit.data.unfinished import unfinished_files
from tripletkit.errors import ImageNameError, JudgementsError, SettingsError
from tripletkit.progress import Stages

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
        n: how many questions at most. Defaults to `200`.
        ask: `"random"`, `"margin"` (where the model is least sure), `"disagreement"` (where its
            members contradict each other), or `"auto"`, the default, which is one of them.
        asked: triplets whose questions are not to be asked again, whichever way round.
        seed: start of everything by chance. Defaults to `0`.
        output: question file to write.
        overwrite: replace such a file that is there. Defaults to `False`.
        progress: see `train`.
    Returns:
        Questions in `Triplets`: is the first more like the second or the third? The order of the
        last two is by chance. No image is in more than two of them, but for `"random"`.
    Raises:
        SettingsError: if `ask` is no such way, or needs a model of several members.
        ImageNameError, ImageReadError: if there are fewer than three images, or one cannot be read.
    Reference:
        Settles. Active learning literature survey. 2009 (uncertainty sampling, query by committee).
    """
    if ask not in get_args(AskWay):
        raise SettingsError(
            "ask", f"expected auto, random, margin or disagreement as `ask`, got {ask!r}"
        )
    way = defaults.AUTO_ASK if ask == "auto" else ask
    file = Outputs(overwrite=overwrite).optional_file(as_path(output), TRIPLETS_FORM)
    embedded = model.embed(images, progress=progress)
    if len(embedded) < 3:
        raise ImageNameError(f"expected three images or more to ask about, got {len(embedded)}")
    place_of = {name: place for place, name in enumerate(embedded.names)}
    known = [_places(open_judgements(each).triplets, place_of) for each in asked]
    left_out = np.concatenate([np.empty((0, 3), dtype=np.int32), *known])
    rng = np.random.default_rng(seed)
    if way == "random":
        rows = suggest_at_random(len(embedded), n, left_out, rng)
    else:
        members = _members(model, embedded.vectors, way)
        rows = suggest_by_model(members, model.distance, n, way, left_out, rng)
    chosen = Triplets.from_array(rows, embedded.names)
    if file is not None:
        write_triplets(file, chosen.names, chosen.rows, is_answered=False)
        logger.info("Wrote %s questions to %s, chosen by %s.", f"{len(chosen):,}", output, way)
    if len(chosen) < n:
        limit = "" if way == "random" else f", with no image in more than {defaults.MAX_PER_IMAGE}"
        logger.info("%s were asked for; there are no more%s.", f"{n:,}", limit)
    return chosen


@as_one_run
def judges(
    database: PathLike,
    *,
    gold: TripletsLike | None = None,
    exclude: Collection[str] = (),
) -> JudgesReport:
    """Return how fast, steady and careful the judges of a collection are.

    Args:
        database: of collected judgements.
        gold: triplets whose answer is known, beside those that the collection asked as such.
        exclude: names of judges to leave out.
    Returns:
        A `JudgesReport`: `judges`, how far each two agree, and Krippendorff's alpha.
    Raises:
        JudgementsError: if it is no such database, or nobody has answered yet.
    """
    known: dict[tuple[str, str, str], None] = {}
    if gold is not None:
        read = open_judgements(gold).decided().triplets
        for a, b, c in read.rows.tolist():
            known[read.names[a], read.names[b], read.names[c]] = None
    answers = read_answers_given(Path(database), exclude)
    if not answers:
        raise JudgementsError(f"{database}: expected judgements, there is no answer in it yet")
    return report_judges(answers, known)


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
        overwrite: replace such files that are there. Defaults to `False`.
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
            "questions.csv": csv_form("questions with votes", "a,b,c,votes_b"),
            "answers.csv": csv_form("the judges' answers", "judge,screen"),
        },
    )
    found = open_judgements(database, exclude=exclude)
    if found.votes is None or found.is_random is None:
        raise JudgementsError(
            f"{database}: expected a database of judgements, got one of another program"
        )
    if random_share:
        found = found.take(found.is_random)
        if not len(found):
            raise JudgementsError(f"{database}: no question was drawn by chance")
    triplets, votes, is_random = found.triplets, found.votes, found.is_random
    assert votes is not None and is_random is not None
    answers = read_answers_given(database, exclude)
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
    with explain_failure(folder), unfinished_files(folder, outputs.check_again) as partial:
        write_triplets(partial / "train.txt", triplets.names, triplets.rows[is_decided])
        for name, table in tables.items():
            with open_output(partial / name) as file:
                table.to_csv(file, index=False, float_format="%.10g", lineterminator="\n")
    for name in ("train.txt", "votes.csv"):
        record_written(folder / name)
    logger.info(
        "Wrote %s questions to %s; questions.csv has %s, %s of them undecided and %s drawn by "
        "chance.",
        f"{int(is_decided.sum()):,}",
        folder / "train.txt",
        f"{len(found):,}",
        f"{int(votes.is_tie.sum()):,}",
        f"{int(is_random.sum()):,}",
    )
    return found


def _places(triplets: Triplets, place_of: dict[str, int]) -> np.ndarray:
    """Return the `(n, 3)` int32 rows whose images are all known."""
    places = np.array([place_of.get(name, -1) for name in triplets.names], dtype=np.int32)
    rows: np.ndarray = places[triplets.rows].reshape(-1, 3)
    return rows[(rows >= 0).all(axis=1)]


def _members(model: Model, vectors: np.ndarray, way: str) -> list[np.ndarray]:
    if way == "margin" or model.folder is None:
        members = [vectors]
    else:
        record = model.folder.record
        members = split_members(vectors, record.settings, record.n_features)
    if way == "disagreement" and len(members) < 2:
        raise SettingsError(
            "ask",
            "`ask=disagreement` needs a model of several members that can be told apart; "
            f"{model!r} is not one. Use `ask=margin`, or train one with the setting members=5",
        )
    return members
