"""Scores that can be believed: of answers, of several against each other, and of names alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import IOBase
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.api.given import AnswersLike, PathLike, TripletsLike, as_path, is_path
from tripletkit.data.images import hash_files, open_usable_images
from tripletkit.data.judgement_tables import UNDECIDED, labels_of_array
from tripletkit.data.judgements import (
    Judgements,
    TruthLike,
    open_collected,
    open_truth,
    open_votes,
    read_judgements,
)
from tripletkit.data.outputs import OutputFile, OutputForm, Outputs, as_one_run, open_output
from tripletkit.data.text_files import guard_formula
from tripletkit.data.triplets import Triplets, Truth, Votes, VotesLike
from tripletkit.errors import AnswerFileError, DataWarning, LeakageWarning, SettingsError, caution
from tripletkit.evaluation.answers import Answers, TiePolicy, read_answers
from tripletkit.evaluation.baselines import ShortcutBaselines, run_baselines
from tripletkit.evaluation.comparison import Comparison
from tripletkit.evaluation.scoring import AnswerChecks, Score, score_votes

logger = logging.getLogger("tripletkit")
_ALL_FIRST = "taking every first image for the nearer one (truth all 1)"


@as_one_run
def score(
    answers: AnswersLike,
    truth: TruthLike | None = None,
    *,
    triplets: TripletsLike | None = None,
    votes: VotesLike | None = None,
    ties: TiePolicy = "answer",
    unique: bool = False,
    model: PathLike | None = None,
    images: PathLike | None = None,
) -> Score:
    """Return the accuracy of answers, with intervals and parts.

    Args:
        answers: `Answers`, an answer file, or 1 and 0 for each triplet.
        truth: a truth file, 1 and 0 for each triplet, or a database of collected judgements, of
            which the questions drawn by chance are scored. Defaults to the answers that stand in
            `triplets`, else to what most people said where there are votes, else to all 1, as in
            judgements `anchor positive negative`.
        triplets: the questions, where the answers do not hold them; without them there is no
            interval that accounts for shared images.
        votes: how many people said what of each question; see `train`.
        ties: `"answer"` counts a tie as the answer that stands for it, `"error"` as wrong, `"half"`
            as half right. Defaults to `"answer"`.
        unique: count rows that equal an earlier one no second time. Defaults to `False`.
        model: the folder of the model whose answers these are, to be told of questions that it
            learned from.
        images: the folder of the images that were answered, by whose content these are known.
            Defaults to that of the training.
    Returns:
        A `Score`: `accuracy`, `n`, `wilson`, `image_interval`, ties, accuracy by size of the
        margin, and with votes the agreement with these.
    Raises:
        AnswerFileError: if something cannot be read, or the numbers of rows differ.
        SettingsError: if `unique` is asked for and the questions are not known.
    Example:
        >>> score([1, 0, 1, 1], [1, 0, 0, 1]).accuracy
        0.75
    """
    if images is not None and model is None:
        raise SettingsError("images", "`images` needs a `model`, which may know these images.")
    answers = _take_answers(answers)
    given = _open_questions(triplets, votes)
    asked, counted = given.triplets, given.votes
    if unique and counted is not None:
        raise SettingsError(
            "unique", "`unique` excludes votes: a row that repeats another has its own."
        )
    if asked is not None:
        answers._check_questions(asked)
        answers = replace(answers, triplets=asked)
    if unique and answers.triplets is None:
        raise SettingsError(
            "unique",
            f"`unique` needs to know the triplets, and {answers.source} does not hold them. "
            "Add `triplets=FILE`.",
        )
    by_votes = labels = of_truth = weights = None
    if (collected := open_collected(truth)) is not None:
        of_truth = collected.source
        if counted is not None:
            raise SettingsError("votes", f"{of_truth} holds votes itself: it excludes other votes.")
        answers, labels, counted, weights = _take_random_share(answers, collected)
    elif counted is not None:
        answers._check_length(len(counted), given.of_votes)
    if counted is not None:
        by_votes = score_votes(answers, counted, ties=ties, weights=weights)
    if labels is None:
        read, taken = given.decide_truth(truth, len(answers))
        if taken:
            caution(f"no truth file: {taken}", DataWarning)
        else:
            answers._check_truth(read)
            answers = replace(answers, triplets=_join_trials(answers.triplets, read.triplets))
            of_truth = read.source
        labels = read.labels
    if model is not None and answers.triplets is not None:
        _warn_of_learned(model, answers.triplets, as_path(images))
    found = Score.of(answers, labels, ties=ties, unique=unique, weights=weights)
    found.warn_of_doubt()
    return replace(found, truth=of_truth, votes=by_votes)


@as_one_run
def compare(
    answers: Mapping[str, AnswersLike],
    truth: TruthLike | None = None,
    *,
    triplets: TripletsLike | None = None,
    rows: PathLike | None = None,
    overwrite: bool = False,
) -> Comparison:
    """Tell which of several answers to the same questions is better, and how surely.

    A tie counts as the 0 that it answers.

    Args:
        answers: name -> answers, at least two, all to the same triplets in the same order.
        truth, triplets: see `score`.
        rows: a CSV to write the rows to on which not all answers are the same.
        overwrite: replace such a CSV that is there. Defaults to `False`.
    Returns:
        A `Comparison`: `ranking`, best first, and `pairs` with the interval of the difference,
        exact McNemar tests and Holm's correction.
    Raises:
        SettingsError: if there are fewer than two.
        AnswerFileError: if something cannot be read or does not belong together.
    Example:
        >>> right = {"a": [1, 1, 1, 1, 0], "b": [1, 0, 0, 1, 0]}
        >>> compare(right, [1, 1, 1, 1, 1]).pairs[0].difference
        0.4
    """
    if not isinstance(answers, Mapping):
        got = type(answers).__name__
        raise SettingsError("answers", f"expected a mapping of names to answers, got {got}")
    if len(answers) < 2:
        raise SettingsError(
            "answers", f"expected two or more answers and then their truth, got {len(answers)}"
        )
    form = OutputForm("a file of rows that differ, with the heading row,...", headings=("row,",))
    output = Outputs(overwrite=overwrite).optional_file(as_path(rows), form)
    entries = [replace(_take_answers(each, name), source=name) for name, each in answers.items()]
    given = _open_questions(triplets, None)
    read, taken = given.decide_truth(truth, len(entries[0]))
    if taken:
        caution(f"no truth file: {taken}", DataWarning)
    for entry in entries:
        entry._check_truth(read)
    asked = given.triplets
    if asked is None:
        asked = next((entry.triplets for entry in entries if entry.triplets), read.triplets)
    if asked is not None:
        for entry in entries:
            entry._check_questions(asked)
    asked = _join_trials(asked, read.triplets)
    is_decided = read.labels >= 0
    credits = {
        entry.source: entry.take(is_decided).credit(read.labels[is_decided]) for entry in entries
    }
    result = Comparison.of(credits, asked and asked.take(is_decided))
    if output is not None:
        n_rows = _write_differing_rows(output, entries, read, asked)
        logger.info("Wrote %s rows with different answers to %s.", f"{n_rows:,}", output)
    return result


@as_one_run
def controls(
    train: TripletsLike,
    val: TripletsLike,
    truth: TruthLike | None = None,
    *,
    ordinal: bool | None = None,
    seed: int = defaults.SEED,
) -> ShortcutBaselines:
    """Return what validation triplets can be answered from names alone, without any image.

    A model is worth only what it scores above these shortcut baselines.

    Args:
        train: judgements: anchor, positive, negative.
        val: questions over the same names.
        truth: of `val`; see `score`.
        ordinal: embed the names by the training triplets, the slowest baseline. Defaults to
            `None`: where there are at most 200,000 of them.
        seed: start of that embedding. Defaults to `0`.
    Returns:
        `ShortcutBaselines`: pair memory, popularity, and names only.
    Raises:
        TripletkitError: if something cannot be read or does not belong together.
    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"a": ["x"] * 3, "b": ["y"] * 3, "c": ["z"] * 3})
        >>> controls(frame, frame)[0].accuracy  # each pair was met before
        1.0
    """
    known, judged = read_judgements(train).decided().triplets, read_judgements(val, truth=truth)
    if judged.truth is None and judged.votes is None:
        logger.info("No truth file: %s.", _ALL_FIRST)
    elif judged.truth is None:
        logger.info("No truth file: taking what most people said for the truth.")
    asked = (judged.decided() if judged.truth is None else judged.turned()).triplets
    if not len(asked):
        raise AnswerFileError(f"{judged.source}: expected a question that is decided, got none")
    return ShortcutBaselines(run_baselines(known, asked, ordinal=ordinal, seed=seed))


@as_one_run
def check_answers(
    answers: AnswersLike, triplets: TripletsLike, *, agree_with: Sequence[AnswersLike] = ()
) -> AnswerChecks:
    """Return what answers say of themselves, without any truth.

    Args:
        answers: see `score`.
        triplets: the questions that they answer.
        agree_with: other answers to the same questions.
    Returns:
        `AnswerChecks`: share of ones, questions asked twice, circles that no distances can
        satisfy, ties, and the agreement with each of the others.
    Raises:
        AnswerFileError: if something cannot be read or does not belong together.
    """
    return AnswerChecks.of(
        _take_answers(answers),
        read_judgements(triplets).triplets,
        [_take_answers(other) for other in agree_with],
    )


def _take_answers(value: AnswersLike, source: str = "the answers") -> Answers:
    """Return answers of a file, or of 1 and 0 for each triplet, which `source` names."""
    if isinstance(value, Answers):
        return value
    if is_path(value):
        return read_answers(value)
    if isinstance(value, IOBase):
        return read_answers(cast(BinaryIO, value))
    labels = labels_of_array(value, source)
    for row in np.flatnonzero(labels == UNDECIDED):
        raise AnswerFileError(f"{source}: row {row}: expected 0 or 1, got no decision")
    return Answers(labels, None, None, source)


def _join_trials(asked: Triplets | None, of_truth: Triplets | None) -> Triplets | None:
    """Return the questions, with the trials that the truth says where it does."""
    if asked is None or of_truth is None or of_truth.trials is None:
        return asked or of_truth
    return replace(asked, trials=of_truth.trials)


def _take_random_share(
    answers: Answers, database: Judgements
) -> tuple[Answers, np.ndarray, Votes, np.ndarray]:
    """Return answers to the random share, what most judges said, votes, weights; answers without
    questions are taken for those of `predict` on the database."""
    judgements, source = database.decided(), database.source
    votes, is_random, weights = judgements.votes, judgements.is_random, judgements.weights
    if votes is None or is_random is None or weights is None:
        raise AnswerFileError(f"{source}: expected questions drawn by chance, there is none")
    if (asked := answers.triplets) is None:
        answers._check_length(len(judgements), source)
        asked = judgements.triplets
    found, is_turned = judgements.find(asked)
    is_scored = (found >= 0) & is_random[found]
    if not is_scored.any():
        raise AnswerFileError(
            f"{answers.source}: expected answers to questions that {source} drew by chance, "
            "got none. `tripletkit predict` answers those of the database."
        )
    logger.info(
        "Scored on the random share alone: %s of %s answers. Questions that a model chose are "
        "those it found hard: a score on them would be too low.",
        f"{int(is_scored.sum()):,}",
        f"{len(answers):,}",
    )
    labels = (~is_turned[is_scored]).astype(np.int8)
    asked_votes = votes.take(found[is_scored]).turn(is_turned[is_scored])
    answers = replace(answers, triplets=asked).take(is_scored)
    return answers, labels, asked_votes, weights[found[is_scored]]


def _write_differing_rows(
    destination: OutputFile, entries: Sequence[Answers], truth: Truth, triplets: Triplets | None
) -> int:
    """Write the rows on which not all files give the same answer; return how many."""
    predictions = np.stack([answers.predictions for answers in entries], axis=1)
    differing = np.flatnonzero((predictions != predictions[:, :1]).any(axis=1))
    columns = [pd.DataFrame({"row": differing + 1})]
    if triplets is not None:
        columns.append(triplets.take(differing).to_frame().map(guard_formula))
    columns.append(pd.DataFrame({"truth": truth.labels[differing]}))
    sources = [guard_formula(answers.source) for answers in entries]
    columns.append(pd.DataFrame(predictions[differing], columns=sources))
    with open_output(destination) as file:
        pd.concat(columns, axis=1).to_csv(file, index=False, lineterminator="\n")
    return len(differing)


def _warn_of_learned(model: PathLike, asked: Triplets, images: Path | None) -> None:
    """Say how many of the questions a model learned from, if these are its answers."""
    from tripletkit.features.store import FeatureStore
    from tripletkit.model.model_folder import load_model

    found = load_model(Path(model))
    folder = images or found.image_folder
    contents: list[bytes | None] = [None] * len(asked.names)
    if folder is not None and folder.is_dir():
        paths = open_usable_images(folder, asked.names).paths
        with FeatureStore() as store:
            contents = hash_files(paths, store).hashes
    if n_unknown := contents.count(None):
        logger.info(
            "%s of %s images are not in %s: whether the model learned from questions about them is "
            "told by their names alone. Give `images`, the folder that they are in.",
            f"{n_unknown:,}",
            f"{len(contents):,}",
            folder or "the folder of the training",
        )
    share = found.share_learned(asked, contents)
    if share:
        caution(
            f"{share:.1%} of these questions and their answers are among those that the model "
            f"{model} learned from: of answers of this model, the accuracy says nothing of new "
            "questions.",
            LeakageWarning,
        )


class _Questions(NamedTuple):
    """What was given of the questions: names, votes on them, and answers that stand beside them."""

    triplets: Triplets | None = None
    votes: Votes | None = None
    of_votes: str = "the votes"
    answered: Truth | None = None

    def decide_truth(self, given: TruthLike | None, n_rows: int) -> tuple[Truth, str]:
        """Return the truth: the one given, else what the questions' answers say, else their votes;
        and what was taken for the truth where nothing says it outright."""
        if given is not None:
            return open_truth(given)[0], ""
        if self.answered is not None:
            return self.answered, ""
        if self.votes is not None:
            if self.votes.is_tie.all():
                raise AnswerFileError(
                    f"{self.of_votes}: expected a majority on at least one question, every one is "
                    "tied. Only a truth file can tell."
                )
            majority = Truth(self.votes.majority, self.of_votes)
            return majority, "taking what most people said for the truth"
        if self.triplets is not None:
            self.triplets.check_answered()
        return Truth(np.ones(n_rows, dtype=np.int8), "the triplets"), _ALL_FIRST


def _open_questions(triplets: TripletsLike | None, votes: VotesLike | None) -> _Questions:
    """Return the questions, where something holds them, and what is said of them."""
    if triplets is not None:
        read = read_judgements(triplets, votes=votes)
        of_votes = (read.votes_record or read.record).name
        return _Questions(read.triplets, read.votes, of_votes, read.truth)
    if votes is not None:
        found, asked, record = open_votes(votes)
        return _Questions(asked, found, record.name)
    return _Questions()
