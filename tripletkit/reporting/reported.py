"""A model of a report: its answers, what names alone would score, and its headline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tripletkit.data.triplets import Triplets
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.errors import SettingsError
from tripletkit.evaluation.baselines import Baseline, run_baselines
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.pooled import PooledScore
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import score_embeddings
from tripletkit.model.record import InputsRecord
from tripletkit.reporting.model_view import ModelView
from tripletkit.training.job import describe_missing_triplets, read_training_triplets

logger = logging.getLogger("tripletkit")

# More do not fit beside each other, nor on a page that can be sent by mail.
_MOST_MODELS = 6


@dataclass(frozen=True)
class _Headline:
    """The accuracy that a model is first told by: of triplets that it did not learn from.

    Attributes:
        accuracy, frozen: of the model, and of its features without any training; 0 to 1.
        n: triplets.
        on: which triplets.
        interval: 95%; None where there is none.
        caution: what the interval does not allow for; empty without.
    """

    accuracy: float
    frozen: float
    n: int
    on: str
    interval: Interval | None
    caution: str = ""


@dataclass(frozen=True)
class Reported:
    """A model of a report.

    Attributes:
        name: what it is called on the page; no other model of the page is called so.
        view: its answers.
        training: the triplets that it learned from; None where they are gone.
        baselines: what names alone would score on the triplets of the view; none without
            `training`, and none on the training triplets themselves, where it would say nothing.
    """

    name: str
    view: ModelView
    training: Triplets | None
    baselines: list[Baseline]

    @cached_property
    def learned(self) -> np.ndarray:
        """`(n_triplets,)` bool: the model learned from this very triplet."""
        if self.training is None or self.view.is_training:
            return np.full(len(self.view.triplets), self.view.is_training)
        known = set(_questions(self.training))
        return np.array([row in known for row in _questions(self.view.triplets)], dtype=bool)

    @cached_property
    def headline(self) -> _Headline | None:
        """The accuracy to name first; None if nothing was ever held out."""
        view, record = self.view, self.view.model.record
        if not self.learned.all():
            trained, frozen = view.score, view.frozen_score
            if self.learned.any():
                fresh = view.triplets.take(~self.learned)
                trained = score_embeddings(view.embeddings, fresh, view.model.distance)
                frozen = score_embeddings(view.features, fresh, FROZEN_DISTANCE)
            return _headline(trained, frozen, f"triplets of {Path(view.triplets.source).name}")
        if record.validation is not None:
            of = record.validation
            return _headline(of.trained, of.frozen, "validation triplets of its training")
        if record.pooled is not None:
            of_draws = record.pooled
            return _headline(
                of_draws.trained, of_draws.frozen, "triplets held out in draws of its training"
            )
        return None


def gather_reported(views: Sequence[ModelView]) -> list[Reported]:
    """Return the models of a report, each with what names alone would score."""
    check_n_models(len(views))
    names = _distinct_names([view.model.path.resolve() for view in views])
    known: dict[InputsRecord, tuple[Triplets | None, list[Baseline]]] = {}
    models = []
    for name, view in zip(names, views, strict=True):
        inputs = view.model.record.inputs
        if inputs not in known:
            in_memory = view.judgements
            training = in_memory.decided().triplets if in_memory else read_training_triplets(inputs)
            if training is None:
                why = describe_missing_triplets(inputs)
                logger.info(
                    "%s: no training triplets (%s), so names are not scored.", inputs.name, why
                )
            baselines = []
            if training is not None and not view.is_training:
                baselines = run_baselines(training, view.triplets)
            known[inputs] = training, baselines
        models.append(Reported(name, view, *known[inputs]))
    return models


def check_n_models(n_models: int) -> None:
    """Refuse early what `gather_reported` would refuse."""
    if n_models > _MOST_MODELS:
        raise SettingsError(
            "models", f"expected at most {_MOST_MODELS} models on a page, got {n_models}"
        )


def _headline(trained: Score | PooledScore, frozen: Score | PooledScore, on: str) -> _Headline:
    if isinstance(trained, PooledScore):
        n, interval = trained.n_triplets, trained.interval
        return _Headline(trained.accuracy, frozen.accuracy, n, on, interval)
    caution = ""
    if not trained.image_interval:
        caution = "if triplets were independent"
        if isinstance(trained.image_interval, NoInterval):
            caution += f"; {trained.image_interval.detail}"
    return _Headline(trained.accuracy, frozen.accuracy, trained.n, on, trained.interval, caution)


def _questions(triplets: Triplets) -> list[tuple[str, frozenset[str]]]:
    """Return each row as anchor and the two others, whichever of them is the positive."""
    names = triplets.names
    return [
        (names[anchor], frozenset((names[one], names[other])))
        for anchor, one, other in triplets.rows.tolist()
    ]


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of folders, with as many folders above as it takes to tell them apart.

    Example:
        >>> _distinct_names([Path("/a/m"), Path("/b/m"), Path("/b/n")])
        ['a/m', 'b/m', 'b/n']
    """
    for n_parts in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-n_parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({number})" for number, path in enumerate(paths, 1)]
