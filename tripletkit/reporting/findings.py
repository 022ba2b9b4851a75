"""What a person should know before believing a model, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tripletkit import defaults
from tripletkit.evaluation.baselines import Baseline, describe_trap
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.scoring import Score
from tripletkit.model.record import ModelRecord
from tripletkit.reporting.reported import Reported
from tripletkit.reporting.training_facts import name_features

# A 95% interval wider than this leaves open whether a model is good or middling.
_WIDE_INTERVAL = 0.15


class _AccuracyRow(NamedTuple):
    """A line of the table of accuracies: whose answers, and how many are right, 0 to 1.

    `wilson` takes rows as independent, and is None where rows recur; `image_interval` allows for
    shared images, and is false where there is none.
    """

    what: str
    accuracy: float
    wilson: Interval | None
    image_interval: Interval | NoInterval | None
    n: int


# Which triplets, and whose answers to them.
_AccuracySet = tuple[str, list[_AccuracyRow]]


def list_accuracies(models: Sequence[Reported]) -> list[_AccuracySet]:
    """Return every accuracy that is known: on the shown triplets, and at the time of training."""
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
        is_shared = all(each.baselines == models[0].baselines for each in models)
        of = "" if is_one or is_shared else f", training of {model.name}"
        rows += _baseline_rows(model.baselines, of)
    # Features that models share say the same.
    sets = [(title, list(dict.fromkeys(rows)))]
    for model in models:
        sets += _of_training(model, "its training" if is_one else f"the training of {model.name}")
    return sets


def _of_training(model: Reported, training: str) -> list[_AccuracySet]:
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
        sets.append((f"validation triplets of {training}", rows))
    if (pooled := record.pooled) is not None:
        rows = [
            _AccuracyRow(what, score.accuracy, None, score.interval, score.n_triplets)
            for what, score in (
                ("trained without these images", pooled.trained),
                ("frozen features, cosine", pooled.frozen),
            )
        ]
        sets.append((f"held-out draws of {training}", rows))
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
    interval, baselines = score.interval, model.baselines
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


def _row(what: str, score: Score | Baseline) -> _AccuracyRow:
    of_images = None if isinstance(score, Baseline) else score.image_interval
    return _AccuracyRow(what, score.accuracy, score.wilson, of_images, score.n)


def _baseline_rows(baselines: Sequence[Baseline], of: str) -> list[_AccuracyRow]:
    """Return a row for each baseline, or one for all where all say the same."""
    if len({baseline.accuracy for baseline in baselines}) == 1:
        return [_row(f"names alone{of}", baselines[0])]
    return [_row(f"names alone{of}: {baseline.name}", baseline) for baseline in baselines]
