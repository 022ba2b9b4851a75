"""Which settings go together. Nothing in this module imports TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tripletkit import defaults
from tripletkit.errors import SettingsError
from tripletkit.model.loss_registry import LOSSES, Loss, get_loss
from tripletkit.model.recipes import Recipe, get_recipe

# What an ensemble of chosen parts takes; all else is each part's own.
_OF_AN_ENSEMBLE = frozenset({"recipe", "seed", "dim", "distance"})


def check_settings(
    given: Mapping[str, Any], *, has_labels: bool, has_votes: bool, from_pixels: bool
) -> None:
    """Refuse settings that do not go together, or have no part in what is trained.

    Args:
        given: the settings that were chosen, by name; others have their defaults.
        has_labels: the classes of the images are known.
        has_votes: several people judged each triplet.
        from_pixels: the backbone is trained too.
    Raises:
        SettingsError: saying which to change.
    """
    recipe = get_recipe(given.get("recipe", "mlp"))
    loss = get_loss(given.get("loss", defaults.LOSS))
    mines = given.get("mining", defaults.MINING) != "none"
    if recipe.squared and given.get("distance", defaults.DISTANCE) != "l2":
        raise SettingsError("distance", f"`recipe={recipe.name}` answers by `distance=l2` only.")
    _check_needs(given, loss, mines, has_labels=has_labels, has_votes=has_votes)
    _check_parts(given, loss, mines)
    if recipe.part_heads:
        _check_joined(given, recipe)
    if loss.has_centers and (_n_members(given, recipe) > 1 or _compresses(given, recipe)):
        raise SettingsError(
            "members",
            f"`loss={loss.name}` keeps its class centers with one head whose embeddings are not "
            "compressed: leave out `members`, and `dim` with `recipe=residual`.",
        )
    if not from_pixels:
        for name in ("flip", "shift"):
            if name in given:
                raise SettingsError(
                    name,
                    f"`{name}` is for training from pixels: for fine-tuning, or for a backbone "
                    "that is trained from scratch, such as `backbone=cnn`.",
                )


def _check_joined(given: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse what would be overheard: the parts of an ensemble have their own settings."""
    for name in given:
        if name not in _OF_AN_ENSEMBLE:
            raise SettingsError(
                name,
                f"`recipe={recipe.name}` chooses its heads and how they learn by held-out draws, "
                f"so it takes no `{name}`: leave it out, or use `recipe=residual`.",
            )


def check_from_scratch(given: Mapping[str, Any]) -> None:
    """Refuse settings that do not go with a backbone that is trained from scratch."""
    recipe = get_recipe(given.get("recipe", "linear"))
    if recipe.starts_as_identity or _n_members(given, recipe) > 1:
        raise SettingsError(
            "recipe",
            "a backbone that is trained from scratch takes one head, by `recipe=linear` or "
            "`recipe=mlp`.",
        )


def _check_needs(
    given: Mapping[str, Any], loss: Loss, mines: bool, *, has_labels: bool, has_votes: bool
) -> None:
    if loss.needs_labels and not has_labels:
        raise SettingsError(
            "labels", f"`loss={loss.name}` needs `labels`, the classes of the images."
        )
    if mines and not has_labels:
        raise SettingsError("labels", f"`mining={given['mining']}` needs `labels`.")
    if has_votes and (mines or loss.needs_labels):
        name = "mining" if mines else "loss"
        raise SettingsError(
            name,
            f"`{name}={given[name]}` looks at classes, which votes on triplets say nothing of. "
            "Leave out one of them.",
        )
    if mines and loss.of_triplets is None:
        with_triplets = ", ".join(each.name for each in LOSSES.values() if each.of_triplets)
        raise SettingsError(
            "mining",
            f"`loss={loss.name}` looks at no triplets to mine; these do: {with_triplets}.",
        )


def _check_parts(given: Mapping[str, Any], loss: Loss, mines: bool) -> None:
    """Refuse a setting that would change nothing."""
    if given.get("reduction", defaults.REDUCTION) != defaults.REDUCTION and not loss.has_margin:
        raise SettingsError(
            "reduction",
            f"`reduction={given['reduction']}`: every triplet is active under a margin that never "
            f"ends, as `loss={loss.name}` has it."
            if loss.of_triplets
            else f"`reduction` has no part in `loss={loss.name}`, which looks at no triplets.",
        )
    injects = bool(given.get("inject_positives"))
    for name, has_part, needed in (
        ("margin", loss.has_margin, "a loss with a margin"),
        ("classes_per_batch", mines, "`mining`"),
        ("images_per_class", mines, "`mining`"),
        ("inject_positives", mines or not injects, "`mining`"),
        ("refresh", injects, "`inject_positives=True`"),
        (
            "cross_entropy_weight",
            loss.has_cross_entropy and loss.of_triplets,
            "`loss=triplet+cross-entropy`",
        ),
        ("center_weight", loss.has_centers, "`loss=center`"),
        ("center_decay", loss.has_centers, "`loss=center`"),
    ):
        if name in given and not has_part:
            raise SettingsError(name, f"`{name}` needs {needed}.")


def _n_members(given: Mapping[str, Any], recipe: Recipe) -> int:
    return given.get("members", recipe.members)


def _compresses(given: Mapping[str, Any], recipe: Recipe) -> bool:
    return given.get("dim") is not None and recipe.compresses
