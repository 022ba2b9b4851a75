"""What each setting may be and what it does, for who types it: `tripletkit settings` lists these.

Nothing in this module imports TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tripletkit import defaults
from tripletkit.errors import SettingsError
from tripletkit.model.loss_registry import LOSSES
from tripletkit.model.recipes import RECIPES
from tripletkit.model.settings import HeadSettings
from tripletkit.registry import describe_unknown

DISTANCES = ("l2", "l1", "squared-l2", "cosine")
REDUCTIONS = ("all", "active")
MININGS = ("none", "batch-all", "batch-hard", "semi-hard")


@dataclass(frozen=True)
class SettingFacts:
    """Facts of one setting.

    Attributes:
        help: what it does.
        kind: `int`, `float`, `bool` or `str`.
        low, high: the least and the greatest number; infinite where nothing bounds it.
        is_open: the ends are not among the numbers that it may be.
        choices: the texts that it may be.
        may_be_none: `None` has a meaning of its own.
    """

    help: str
    kind: type
    low: float = -math.inf
    high: float = math.inf
    is_open: tuple[bool, bool] = (False, False)
    choices: tuple[str, ...] = ()
    may_be_none: bool = False

    def describe(self) -> str:
        """Return what it may be, in a few words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind is bool:
            return "true or false"
        what = "a whole number" if self.kind is int else "a number"
        left, right = (
            ("above" if self.is_open[0] else "from"),
            ("to below" if self.is_open[1] else "to"),
        )
        if math.isfinite(self.low):
            what += f" {left} {_show(self.low)}"
        if math.isfinite(self.high):
            what += f" {right} {_show(self.high)}"
        return what + (", or none" if self.may_be_none else "")

    def allows(self, value: Any) -> bool:
        """Return whether it may be this value."""
        if value is None:
            return self.may_be_none
        if self.choices:
            return value in self.choices
        if self.kind is bool:
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind is int and not float(value).is_integer():
            return False
        above = value > self.low if self.is_open[0] else value >= self.low
        below = value < self.high if self.is_open[1] else value <= self.high
        return math.isfinite(value) and above and below


def _show(number: float) -> str:
    """Return a number as people write it, without an exponent."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"


_OPEN, _OPEN_LOW, _OPEN_HIGH = (True, True), (True, False), (False, True)

SETTINGS: dict[str, SettingFacts] = {
    "recipe": SettingFacts(
        "How the head is built and trained: "
        + "; ".join(f"{recipe.name}: {recipe.summary}" for recipe in RECIPES.values())
        + ".",
        str,
        choices=tuple(RECIPES),
    ),
    "members": SettingFacts("Heads that answer together.", int, 1, 100),
    "mlp_members": SettingFacts(
        "How many of the members, the last ones, follow the recipe mlp.", int, 0, 100
    ),
    "hidden": SettingFacts("Width of the hidden layer.", int, 1, 65536),
    "dim": SettingFacts(
        "Numbers in an embedding. Those of residual and best are compressed to it; none leaves "
        "them as wide as they come.",
        int,
        1,
        4096,
        may_be_none=True,
    ),
    "dropout": SettingFacts(
        "Share of values dropped in training.", float, 0, 1, is_open=_OPEN_HIGH
    ),
    "distance": SettingFacts(
        "Distance between embeddings, in training and in answers.", str, choices=DISTANCES
    ),
    "margin": SettingFacts(
        "How much further the negative must be, in units of the distance; of its square for "
        "residual and best.",
        float,
        0,
        is_open=_OPEN_LOW,
    ),
    "strength": SettingFacts(
        "Share of its learned step that a head keeps, where it starts as the frozen features.",
        float,
        0,
        1,
    ),
    "frozen_share": SettingFacts(
        "Share of the frozen features in the distance, beside the heads.",
        float,
        0,
        1,
        is_open=_OPEN_HIGH,
    ),
    "epochs": SettingFacts(
        "Passes over the triplets at most; small sets get more by themselves, at least "
        f"{defaults.MIN_STEPS} steps.",
        int,
        1,
        100_000,
    ),
    "patience": SettingFacts(
        "Epochs without a better validation accuracy before training stops.", int, 1, 100_000
    ),
    "batch_size": SettingFacts(
        "Triplets in a step; images where the loss looks at no triplets.", int, 1, 1_000_000
    ),
    "learning_rate": SettingFacts("Learning rate of Adam.", float, 0, is_open=_OPEN_LOW),
    "seed": SettingFacts(
        "Seed of all random choices. The same seed gives the same result.",
        int,
        0,
        2**31 - 1,
    ),
    "loss": SettingFacts(
        "What is learned; `tripletkit losses` lists the losses.", str, choices=tuple(LOSSES)
    ),
    "reduction": SettingFacts(
        "Triplets over which the mean of a margin loss is taken: all, or active, those that break "
        "the margin.",
        str,
        choices=REDUCTIONS,
    ),
    "mining": SettingFacts(
        "Which triplets of labelled images to learn from: as drawn or given; all that a batch of "
        "some classes allows; for each image the farthest positive and the nearest negative; for "
        "each positive the nearest negative that is farther away.",
        str,
        choices=MININGS,
    ),
    "classes_per_batch": SettingFacts("Classes in a batch that is mined.", int, 2, 100_000),
    "images_per_class": SettingFacts(
        "Images of each class in a batch that is mined.", int, 2, 100_000
    ),
    "inject_positives": SettingFacts(
        "Add to a batch that is mined the hardest positive of each image, looked for among all "
        "images of its class.",
        bool,
    ),
    "refresh": SettingFacts(
        "Epochs after which the hardest positives are looked for again.", int, 1, 100_000
    ),
    "cross_entropy_weight": SettingFacts(
        "Weight of the cross-entropy beside the triplet loss.", float, 0, is_open=_OPEN_LOW
    ),
    "center_weight": SettingFacts(
        "Weight of the distance from the class centers beside the cross-entropy.", float, 0
    ),
    "center_decay": SettingFacts(
        "How much of a class center stays when a batch moves it.", float, 0, 1, is_open=_OPEN_HIGH
    ),
    "flip": SettingFacts(
        "Swap left and right in half of the images that training from pixels sees; not for "
        "letters or digits.",
        bool,
    ),
    "shift": SettingFacts(
        "Move the images that training from pixels sees by up to this share of their side.",
        float,
        0,
        0.5,
    ),
}


def check_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with each value of its type.

    Args:
        given: name -> value, as Python or TOML has it.
    Raises:
        SettingsError: for a name that is no setting, with the nearest one, or a value that the
            setting may not have.
    """
    checked = {}
    for name, value in given.items():
        facts = find_setting(name)
        if not facts.allows(value):
            raise SettingsError(name, f"`{name}`: expected {facts.describe()}, got {value!r}")
        is_number = value is not None and facts.kind in (int, float)
        checked[name] = facts.kind(value) if is_number else value
    return checked


def parse_values(texts: Iterable[str]) -> dict[str, Any]:
    """Return settings from texts such as `margin=0.3`.

    Raises:
        SettingsError: see `check_values`; or if a text has no `=`, or names a setting again.
    Example:
        >>> parse_values(["margin=0.3", "inject-positives=true", "dim=none"])
        {'margin': 0.3, 'inject_positives': True, 'dim': None}
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, is_pair, value = text.partition("=")
        name = key.strip().replace("-", "_")
        if not is_pair:
            raise SettingsError(name, f"expected NAME=VALUE, got {text!r}")
        if name in found:
            raise SettingsError(name, f"{name} is given twice")
        found[name] = _parse(name, value.strip())
    return check_values(found)


def find_setting(name: str) -> SettingFacts:
    """Return the facts of a setting.

    Raises:
        SettingsError: listing all, and the nearest one.
    """
    if name not in SETTINGS:
        raise SettingsError(name, f"settings: {describe_unknown(name, SETTINGS)}")
    return SETTINGS[name]


def _parse(name: str, text: str) -> Any:
    facts = find_setting(name)
    if facts.may_be_none and text.lower() == "none":
        return None
    if facts.kind is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)
    if facts.kind is str:
        return text
    try:
        # Python takes "1_0" and digits of other scripts for numbers; people rarely mean them.
        if not text.isascii() or "_" in text:
            raise ValueError
        return int(text) if facts.kind is int else float(text)
    except ValueError:
        return text


def default_of(name: str) -> Any:
    """Return the default of a setting for the recipe mlp."""
    return {field.name: field.default for field in fields(HeadSettings)}[name]
