"""Cautions about a score: that training did not help, or that names would do as well."""

from __future__ import annotations

import warnings

from tripletkit.errors import DataWarning, TripletkitWarning, WeakScoreWarning
from tripletkit.evaluation.pooled import PooledValidation
from tripletkit.evaluation.scoring import Score
from tripletkit.evaluation.validation import Validation
from tripletkit.model.recipes import get_recipe


def warn_of_weak_score(validation: Validation, *, has_val_truth: bool = True) -> None:
    """Say plainly what weakens a validation score.

    Args:
        validation: the scores.
        has_val_truth: it is known which validation image is the positive; not so where a
            validation file was taken to have it second.
    """
    trained, frozen = validation.trained, validation.frozen
    if (frozen_head := validation.frozen_head) is not None:
        _warn_of_fine_tuning(trained, frozen_head)
    if not has_val_truth and all(_is_about_half(score) for score in (trained, frozen)):
        _warn(
            f"about half of the validation triplets are right ({trained.accuracy:.4f}), by the "
            f"frozen features too ({frozen.accuracy:.4f}). If the second and third image of "
            "`val` stand in chance order, give their truth with `val_truth`.",
            DataWarning,
        )
    elif validation.is_worse_than_frozen and validation.is_from_scratch:
        _warn(
            f"the trained embeddings ({trained.accuracy:.4f}) are worse than the features of the "
            f"untrained network ({frozen.accuracy:.4f}): it has learned nothing of use. Try more "
            "`epochs`, more images, or a backbone with ImageNet weights."
        )
    elif validation.is_worse_than_frozen:
        _warn(
            f"the trained embeddings ({trained.accuracy:.4f}) are worse than the frozen features "
            f"without any training ({frozen.accuracy:.4f}). Try `recipe=residual`, which starts "
            "from these, more triplets, a larger `dim`, a lower `learning_rate` or fewer "
            "`epochs`; with few triplets or many classes of images the frozen features can be "
            "the better choice."
        )
    if (trap := validation.trap()) is not None:
        _warn(trap)


def warn_of_weak_draws(pooled: PooledValidation, recipe: str) -> None:
    """Say plainly that held-out answers are no better than those of the frozen features.

    Args:
        pooled: the scores of held-out draws.
        recipe: that the model was trained by.
    """
    trained, frozen = pooled.trained.accuracy, pooled.frozen.accuracy
    if trained >= frozen:
        return
    facts = get_recipe(recipe)
    keeps_frozen = facts.starts_as_identity or facts.part_heads
    _warn(
        f"on images that training had not seen, the trained embeddings ({trained:.4f}) are no "
        f"better than the frozen features without any training ({frozen:.4f}). Try "
        f"{'' if keeps_frozen else '`recipe=residual`, which starts from these, or '}more "
        "triplets; until then the frozen features can be the better choice."
    )


def _warn_of_fine_tuning(trained: Score, frozen_head: Score) -> None:
    if trained.accuracy >= frozen_head.accuracy:
        return
    interval = frozen_head.image_interval or frozen_head.wilson
    is_chance = trained.accuracy >= interval.low
    _warn(
        f"fine-tuning made it worse: {trained.accuracy:.4f}, and {frozen_head.accuracy:.4f} with "
        f"the frozen backbone{', though chance alone could do that' if is_chance else ''}. The "
        "model that was fine-tuned is still there; or try more or fewer `epochs`, or another "
        "`learning_rate`."
    )


def _is_about_half(score: Score) -> bool:
    return score.wilson.low <= 0.5 <= score.wilson.high


def _warn(message: str, category: type[TripletkitWarning] = WeakScoreWarning) -> None:
    warnings.warn(message, category, stacklevel=4)
