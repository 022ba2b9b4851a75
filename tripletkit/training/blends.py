"""How much of the frozen features a residual model keeps, where validation can choose it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings

# Frozen share and strength to choose from, the nearest to the frozen features first.
_BLENDS = ((0.5, 0.85), (0.25, 0.85), (0.1, 1.0))
# Of several heads the share that follows the recipe mlp where the test asks for nothing new: 3
# residual heads and 2 of the recipe mlp answered CIFAR-10 0.6 points better than 5 residual ones,
# and clothing 0.2 worse.
_MLP_SHARE = 0.4


@dataclass(frozen=True)
class Blend:
    """One way to make the model.

    Attributes:
        strength, frozen_share: see `HeadSettings`.
        mlp_members: how many of several heads follow the recipe mlp.
    """

    strength: float
    frozen_share: float = 0.0
    mlp_members: int = 0

    def apply(self, settings: HeadSettings) -> HeadSettings:
        return replace(settings, **asdict(self))


_USUAL = Blend(defaults.STRENGTH, defaults.FROZEN_SHARE)


@dataclass(frozen=True)
class BlendChoice:
    """What was chosen, and by what.

    Attributes:
        blends: in the order of `list_blends`.
        accuracies: on new images and on unseen classes, of each blend; None where too few triplets
            were there to choose by.
        chosen: the index of the one to train.
        reason: the rule that chose it, in words.
        n_new_images, n_unseen_classes: triplets that the accuracies rest on.
    """

    blends: Sequence[Blend]
    accuracies: Sequence[tuple[float, float]] | None
    chosen: int
    reason: str
    n_new_images: int
    n_unseen_classes: int

    @property
    def blend(self) -> Blend:
        return self.blends[self.chosen]

    def describe(self, n_members: int) -> str:
        """Return what was chosen as one line."""
        blend = self.blend
        with_mlp = (
            f", {blend.mlp_members} of {n_members} heads by the recipe mlp"
            if blend.mlp_members
            else ""
        )
        return (
            f"Chosen: frozen features {blend.frozen_share:.0%} of the distance, "
            f"{blend.strength:.0%} of the learned step{with_mlp} ({self.reason})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        accuracies = self.accuracies or [(None, None)] * len(self.blends)
        return {
            "candidates": [
                {**asdict(blend), "new_images": new, "unseen_classes": unseen}
                for blend, (new, unseen) in zip(self.blends, accuracies, strict=True)
            ],
            "chosen": self.chosen,
            "reason": self.reason,
            "n_new_images": self.n_new_images,
            "n_unseen_classes": self.n_unseen_classes,
        }


def list_blends(settings: HeadSettings) -> list[Blend]:
    """Return what can be chosen from, the nearest to the frozen features first.

    The last one of several heads gives two fifths of them to the recipe mlp: the two err
    differently, and where nothing is new the mixture is better than either. With class centers
    there is no choice: these are places among the embeddings as they were trained. Nor is there
    where the user chose.
    """
    own = Blend(settings.strength, settings.frozen_share, settings.mlp_members)
    is_fixed = get_loss(settings.loss).has_centers or own != _USUAL
    if is_fixed or not get_recipe(settings.recipe).starts_as_identity:
        return [own]
    blends = [Blend(strength, share) for share, strength in _BLENDS]
    if (n_mlp := round(_MLP_SHARE * settings.members)) > 0 and settings.members > 1:
        blends.append(replace(blends[-1], mlp_members=n_mlp))
    return blends


def choose_blend(
    blends: Sequence[Blend],
    accuracies: Sequence[tuple[float, float]] | None,
    n_new_images: int,
    n_unseen_classes: int,
    novelty: float | None,
) -> BlendChoice:
    """Choose the blend to train.

    Args:
        blends: in the order of `list_blends`.
        accuracies: of each on new images and on unseen classes; None where too few triplets are
            there to choose by.
        n_new_images, n_unseen_classes: triplets that there are.
        novelty: of the test, 0 to 1; None where no test is at hand.
    Example:
        >>> blends = [Blend(0.7, frozen_share=0.5), Blend(1.0)]
        >>> choose_blend(blends, [(0.8, 0.7), (0.9, 0.5)], 900, 900, None).reason
        'best of 0.50 x new images + 0.50 x unseen classes'
        >>> choose_blend(blends, [(0.8, 0.7), (0.9, 0.5)], 900, 900, 0.1).chosen
        1
    """
    if accuracies is not None:
        weight = 0.5 if novelty is None else novelty
        worth = [(1 - weight) * new + weight * unseen for new, unseen in accuracies]
        chosen = int(np.argmax(worth))
        reason = f"best of {1 - weight:.2f} x new images + {weight:.2f} x unseen classes"
    else:
        reason = f"fewer than {defaults.MIN_VAL_TRIPLETS} validation triplets in one of the two"
        if novelty is not None and novelty <= defaults.NOTHING_NEW:
            chosen, reason = len(blends) - 1, f"{reason}; the test asks for nothing new"
        else:
            gaps = [abs(blend.frozen_share - defaults.FROZEN_SHARE) for blend in blends]
            chosen = int(np.argmin(gaps))
            test = "no test at hand" if novelty is None else f"novelty of the test {novelty:.2f}"
            reason = f"{reason}; {test}: the usual"
    return BlendChoice(blends, accuracies, chosen, reason, n_new_images, n_unseen_classes)
