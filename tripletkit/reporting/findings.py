"""What a person should know before believing a model, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.triplets import Triplets
from tripletkit.evaluation.baselines import Baseline, describe_trap
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.pooled import PooledScore
from tripletkit.evaluation.scoring import Score
from tripletkit.model.record import ModelRecord
from tripletkit.reporting.model_view import ModelView

# A 95% interval wider than this leaves open whether a model is good or middling.
_WIDE_INTERVAL = 0.15


@dataclass(frozen=True)
class AccuracyRow:
    """A line of the table of accuracies.

    Attributes:
        what: whose answers.
        on: which triplets.
        accuracy: 0 to 1.
        wilson: 95% interval that takes rows as independent; None where rows recur.
        image_interval: 95% interval that allows for shared images; None where there is none.
        no_image_interval: why there is none.
        n: triplets.
    """

    what: str
    on: str
    accuracy: float
    wilson: Interval | None
    image_interval: Interval | None
    n: int
    no_image_interval: str | None = None


def list_accuracies(view: ModelView, baselines: list[Baseline]) -> list[AccuracyRow]:
    """Return every accuracy that is known: on the shown triplets, and at the time of training.

    Args:
        view: the model and the triplets.
        baselines: what names alone would score on the triplets.
    """
    on = "training triplets" if view.is_training else Path(view.triplets.source).name
    rows = [
        _row("trained embeddings", on, view.score),
        _row(f"{view.model.features_name}, cosine", on, view.frozen_score),
        *(_baseline_row(baseline, on) for baseline in baselines),
    ]
    validation = view.model.record.validation
    if validation is not None:
        on = "validation in training"
        before = "untrained network" if validation.is_from_scratch else "frozen features"
        for what, score in (
            ("trained embeddings", validation.trained),
            ("head, backbone frozen", validation.frozen_head),
            (before, validation.frozen),
        ):
            if score is not None:
                rows.append(_row(what, on, score))
        rows += [_baseline_row(baseline, on) for baseline in validation.baselines]
    if (pooled := view.model.record.pooled) is not None:
        rows += [
            _pooled_row("trained without them", pooled.trained),
            _pooled_row("frozen features", pooled.frozen),
        ]
    return rows


def list_warnings(
    view: ModelView, baselines: list[Baseline], training: Triplets | None
) -> list[str]:
    """Return what weakens the figures, the worst first.

    Args:
        view: the model and the triplets.
        baselines: what names alone would score on the triplets.
        training: the triplets of the training, where they are at hand.
    """
    score = view.score
    warnings = []
    if view.is_training:
        warnings.append(
            "These are the triplets that the model learnt from, so their accuracy says nothing "
            "of new questions. Mistakes among them point at wrong judgements instead. Give "
            "others with `triplets`."
        )
    else:
        warnings += _on_shown(view, baselines, training)
    if score.n_ties:
        warnings.append(
            f"{score.n_ties:,} triplets are ties (both images equally near) and count as wrong."
        )
    if score.n_undecidable:
        warnings.append(
            f"{score.n_undecidable:,} triplets have an image that cannot be read; they count "
            "as wrong and are in no figure."
        )
    return warnings + _on_training(view.model.record)


def _on_shown(view: ModelView, baselines: list[Baseline], training: Triplets | None) -> list[str]:
    score, warnings = view.score, []
    if score.accuracy < view.frozen_score.accuracy:
        warnings.append(
            f"The trained embeddings ({score.accuracy:.1%}) are worse than the "
            f"{view.model.features_name} alone ({view.frozen_score.accuracy:.1%}) on these "
            "triplets."
        )
    interval = score.image_interval or score.wilson
    if baselines and (trap := describe_trap(score.accuracy, interval, baselines)) is not None:
        warnings.append(trap)
    if training is not None:
        n_shared = len(
            set(training.names) & {view.triplets.names[i] for i in np.unique(view.triplets.rows)}
        )
        if n_shared:
            warnings.append(
                f"{n_shared:,} images of these triplets are in the training triplets too, so "
                "the accuracy flatters what new images would get."
            )
    if interval.high - interval.low > _WIDE_INTERVAL:
        warnings.append(
            f"The accuracy is uncertain: {interval.low:.0%} to {interval.high:.0%}. More "
            "images would narrow it, more triplets over the same images would not."
        )
    return warnings


def _on_training(record: ModelRecord) -> list[str]:
    split, validation = record.split, record.validation
    warnings = []
    if validation is None and record.pooled is None:
        warnings.append(
            "Nothing was set apart for validation in training, so the last epoch was kept unseen."
        )
    elif validation is not None:
        n_val = split.n_val
        if n_val < defaults.MIN_VAL_TRIPLETS:
            warnings.append(
                f"Validation in training had {n_val:,} triplets only, too few to choose an epoch "
                "by or to say much."
            )
        else:
            warnings.append(
                "The epoch was chosen by the validation in training, so that accuracy is a "
                "little flattered."
            )
        if split.by == "random":
            warnings.append(
                "The validation in training was split off at random, and such a split can often "
                "be solved by remembering names of pairs; look at the baselines."
            )
        if split.n_shared_images and split.by != "image":
            warnings.append(
                f"Training and validation in training share {split.n_shared_images:,} images."
            )
    if record.n_bad_images:
        warnings.append(
            f"{record.n_bad_images:,} images could not be used in training, and every "
            "triplet with one was left out."
        )
    return warnings


def _row(what: str, on: str, score: Score) -> AccuracyRow:
    found = score.image_interval
    is_known = isinstance(found, Interval)
    return AccuracyRow(
        what,
        on,
        score.accuracy,
        score.wilson,
        found if is_known else None,
        score.n,
        found.detail if isinstance(found, NoInterval) else None,
    )


def _pooled_row(what: str, score: PooledScore) -> AccuracyRow:
    on = "held-out draws in training"
    return AccuracyRow(what, on, score.accuracy, None, score.interval, score.n_triplets)


def _baseline_row(baseline: Baseline, on: str) -> AccuracyRow:
    what = f"names alone: {baseline.name}"
    return AccuracyRow(what, on, baseline.accuracy, baseline.wilson, None, baseline.n)
