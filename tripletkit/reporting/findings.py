"""What a person should know before believing a model, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.evaluation.baselines import Baseline, describe_trap
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.pooled import PooledScore
from tripletkit.evaluation.scoring import Score
from tripletkit.model.record import ModelRecord
from tripletkit.reporting.reported import Reported
from tripletkit.reporting.training_facts import name_features

# A 95% interval wider than this leaves open whether a model is good or middling.
_WIDE_INTERVAL = 0.15


@dataclass(frozen=True)
class AccuracyRow:
    """A line of the table of accuracies.

    Attributes:
        what: whose answers.
        accuracy: 0 to 1.
        wilson: 95% interval that takes rows as independent; None where rows recur.
        image_interval: 95% interval that allows for shared images; None where there is none.
        n: triplets.
        no_image_interval: why there is none.
    """

    what: str
    accuracy: float
    wilson: Interval | None
    image_interval: Interval | None
    n: int
    no_image_interval: str | None = None


@dataclass(frozen=True)
class AccuracySet:
    """The accuracies on one set of triplets.

    Attributes:
        title: which triplets.
        rows: whose answers to them.
    """

    title: str
    rows: list[AccuracyRow]


def list_accuracies(models: Sequence[Reported]) -> list[AccuracySet]:
    """Return every accuracy that is known: on the shown triplets, and at the time of training.

    Args:
        models: of one page.
    """
    is_one = len(models) == 1
    first = models[0].view
    title = Path(first.triplets.source).name
    if first.is_training:
        title += ", which the model learned from"
    rows = [
        _row("trained embeddings" if is_one else model.name, model.view.score) for model in models
    ]
    for model in models:
        what = f"{model.view.model.features_name}, cosine"
        if not is_one:
            what += f", of {name_features(model.view.model.record)}"
        rows.append(_row(what, model.view.frozen_score))
    for model in models:
        of = "" if is_one or _share_names(models) else f", training of {model.name}"
        rows += _baseline_rows(model.baselines, of)
    sets = [AccuracySet(title, _without_repeats(rows))]
    for model in models:
        sets += _of_training(model, "its training" if is_one else f"the training of {model.name}")
    return sets


def _share_names(models: Sequence[Reported]) -> bool:
    """Return whether names alone say the same by the training of each model."""
    return all(model.baselines == models[0].baselines for model in models)


def _of_training(model: Reported, training: str) -> list[AccuracySet]:
    """Return what was measured while a model was trained."""
    record, sets = model.view.model.record, []
    if (validation := record.validation) is not None:
        before = "untrained network" if validation.is_from_scratch else "frozen features, cosine"
        scores = (
            ("trained embeddings", validation.trained),
            ("head, backbone frozen", validation.frozen_head),
            (before, validation.frozen),
        )
        rows = [_row(what, score) for what, score in scores if score is not None]
        rows += _baseline_rows(validation.baselines, "")
        sets.append(AccuracySet(f"validation triplets of {training}", rows))
    if (pooled := record.pooled) is not None:
        rows = [
            _pooled_row("trained without these images", pooled.trained),
            _pooled_row("frozen features, cosine", pooled.frozen),
        ]
        sets.append(AccuracySet(f"held-out draws of {training}", rows))
    return sets


def list_warnings(models: Sequence[Reported]) -> list[str]:
    """Return what weakens the figures, the worst first; what all models share is said once."""
    found = [_list_warnings(model) for model in models]
    if len(models) == 1:
        return found[0]
    common = [warning for warning in found[0] if all(warning in others for others in found)]
    return common + [
        f"{model.name}: {warning}"
        for model, own in zip(models, found, strict=True)
        for warning in own
        if warning not in common
    ]


def _list_warnings(model: Reported) -> list[str]:
    score, warnings = model.view.score, []
    if model.view.is_training:
        warnings.append(
            "These are the triplets that the model learned from, so their accuracy says nothing "
            "of new questions. Mistakes among them point at wrong judgements instead. Make the "
            "report with other triplets."
        )
    else:
        warnings += _on_shown(model)
        detector = model.view.model.read_shift_detector()
        if detector and (shift := detector.describe(model.view.features[model.view.shown])):
            warnings.append(shift)
    if score.n_ties:
        warnings.append(
            f"{score.n_ties:,} triplets are ties (both images equally near) and count as wrong."
        )
    if score.n_undecidable:
        warnings.append(
            f"{score.n_undecidable:,} triplets have an image that cannot be read; they count "
            "as wrong and are in no figure."
        )
    return warnings + _on_training(model.view.model.record)


def _on_shown(model: Reported) -> list[str]:
    view, score, warnings = model.view, model.view.score, []
    if n_learned := int(model.learned.sum()):
        warnings.append(
            f"The model learned from {n_learned:,} of these {len(view.triplets):,} triplets. The "
            "accuracy at the top of the page leaves them out; tables and figures do not."
        )
    if score.accuracy < view.frozen_score.accuracy:
        warnings.append(
            f"The trained embeddings ({score.accuracy:.1%}) are worse than the "
            f"{view.model.features_name} alone ({view.frozen_score.accuracy:.1%}) on these "
            "triplets."
        )
    interval, baselines = score.image_interval or score.wilson, model.baselines
    if baselines and (trap := describe_trap(score.accuracy, interval, baselines)) is not None:
        warnings.append(trap)
    if model.training is not None:
        used = {view.triplets.names[image] for image in np.unique(view.triplets.rows)}
        if n_shared := len(used & set(model.training.names)):
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
                "little too high."
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


def _row(what: str, score: Score) -> AccuracyRow:
    found = score.image_interval
    return AccuracyRow(
        what,
        score.accuracy,
        score.wilson,
        found if isinstance(found, Interval) else None,
        score.n,
        found.detail if isinstance(found, NoInterval) else None,
    )


def _pooled_row(what: str, score: PooledScore) -> AccuracyRow:
    return AccuracyRow(what, score.accuracy, None, score.interval, score.n_triplets)


def _baseline_rows(baselines: Sequence[Baseline], of: str) -> list[AccuracyRow]:
    """Return a row for each baseline, or one for all where all say the same.

    Args:
        baselines: of one set.
        of: whose names these are, after `names alone`.
    """
    if len({baseline.accuracy for baseline in baselines}) == 1:
        return [_baseline_row(f"names alone{of}", baselines[0])]
    return [_baseline_row(f"names alone{of}: {baseline.name}", baseline) for baseline in baselines]


def _baseline_row(what: str, baseline: Baseline) -> AccuracyRow:
    return AccuracyRow(what, baseline.accuracy, baseline.wilson, None, baseline.n)


def _without_repeats(rows: Sequence[AccuracyRow]) -> list[AccuracyRow]:
    """Leave out rows that say what one before them says, as of features that models share."""
    return [row for place, row in enumerate(rows) if row not in rows[:place]]
