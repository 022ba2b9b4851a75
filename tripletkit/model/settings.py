"""What decides a trained model, beside its data.

NumPy is imported where it is used, so that the help of commands does not wait for it.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tripletkit import defaults
from tripletkit.data.outputs import note_input
from tripletkit.errors import SettingsError, TripletkitError
from tripletkit.losses.loss_registry import LOSSES, Loss, get_loss
from tripletkit.model.recipes import RECIPES, get_recipe
from tripletkit.registry import describe_unknown

if TYPE_CHECKING:
    import numpy as np


_DISTANCES = ("l2", "l1", "squared-l2", "cosine")
_REDUCTIONS = ("all", "active")
_MININGS = ("none", "batch-all", "batch-hard", "semi-hard")


@dataclass(frozen=True)
class _SettingFacts:
    """Facts of one setting, whose type is that of its default for the recipe mlp.

    Attributes:
        low, high: the least and the greatest number; infinite where nothing bounds it.
        is_open: the ends are not among the numbers that it may be.
        choices: the texts that it may be.
        may_be_none: `None` has a meaning of its own.
    """

    help: str
    default: Any
    low: float = -math.inf
    high: float = math.inf
    is_open: tuple[bool, bool] = (False, False)
    choices: Collection[str] = ()
    may_be_none: bool = False

    @property
    def kind(self) -> type:
        return type(self.default)

    def describe(self) -> str:
        """Return what it may be, in a few words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind is bool:
            return "true or false"
        what = "a whole number" if self.kind is int else "a number"
        if math.isfinite(self.low):
            what += f" {'above' if self.is_open[0] else 'from'} {_show(self.low)}"
        if math.isfinite(self.high):
            what += f" {'to below' if self.is_open[1] else 'to'} {_show(self.high)}"
        return what + (", or none" if self.may_be_none else "")

    def allows(self, value: Any) -> bool:
        """Return whether it may be this value."""
        if value is None:
            return self.may_be_none
        if self.choices:
            return value in self.choices
        if self.kind is bool:
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, cast(Any, Real)):
            return False
        if self.kind is int and not float(value).is_integer():
            return False
        above = value > self.low if self.is_open[0] else value >= self.low
        below = value < self.high if self.is_open[1] else value <= self.high
        return math.isfinite(value) and above and below


def _show(number: float) -> str:
    """Return a number as people write it, without an exponent."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"


def _setting(default: Any, help: str, *bounds: float, **facts: Any) -> Any:
    """Return a field of `Settings` with its facts; `bounds` are the lowest and the highest."""
    facts |= dict(zip(("low", "high"), bounds, strict=False))
    return field(default=default, metadata={"facts": _SettingFacts(help, default, **facts)})


_OPEN_LOW, _OPEN_HIGH = (True, False), (False, True)


@dataclass(frozen=True)
class Settings:
    """What decides a trained model, beside its data."""

    recipe: str = _setting(
        "mlp",
        "How the head is built and trained: "
        + "; ".join(f"{recipe.name}: {recipe.summary}" for recipe in RECIPES.values())
        + ".",
        choices=RECIPES,
    )
    members: int = _setting(1, "Heads that answer together.", 1, 100)
    hidden: int = _setting(defaults.HIDDEN, "Width of the hidden layer.", 1, 65536)
    dim: int | None = _setting(
        defaults.DIM,
        "Numbers in an embedding. Those of residual and best are compressed to it; none leaves "
        "them as wide as they come.",
        1,
        4096,
        may_be_none=True,
    )
    dropout: float = _setting(
        defaults.DROPOUT, "Share of values dropped in training.", 0, 1, is_open=_OPEN_HIGH
    )
    distance: str = _setting(
        defaults.DISTANCE,
        "Distance between embeddings, in training and in answers.",
        choices=_DISTANCES,
    )
    margin: float = _setting(
        defaults.MARGIN,
        "How much further the negative must be, in units of the distance; of its square for "
        "residual and best.",
        0,
        is_open=_OPEN_LOW,
    )
    strength: float = _setting(
        1.0,
        "Share of its learned step that a head keeps, where it starts as the frozen features.",
        0,
        1,
    )
    frozen_share: float = _setting(
        0.0,
        "Share of the frozen features in the distance, beside the heads.",
        0,
        1,
        is_open=_OPEN_HIGH,
    )
    epochs: int = _setting(
        defaults.EPOCHS,
        "Passes over the triplets at most; small sets get more by themselves, at least "
        f"{defaults.MIN_STEPS} steps.",
        1,
        100_000,
    )
    patience: int = _setting(
        3,
        "Epochs without a better validation accuracy before training stops.",
        1,
        100_000,
    )
    batch_size: int = _setting(
        defaults.BATCH_SIZE,
        "Triplets in a step; images where the loss looks at no triplets.",
        1,
        1_000_000,
    )
    learning_rate: float = _setting(
        defaults.LEARNING_RATE, "Learning rate of Adam.", 0, is_open=_OPEN_LOW
    )
    seed: int = _setting(
        defaults.SEED,
        "Seed of all random choices. The same seed gives the same result.",
        0,
        2**31 - 1,
    )
    loss: str = _setting(
        defaults.LOSS, "What is learned; `tripletkit losses` lists the losses.", choices=LOSSES
    )
    reduction: str = _setting(
        defaults.REDUCTION,
        "Triplets over which the mean of a margin loss is taken: all, or active, those that break "
        "the margin.",
        choices=_REDUCTIONS,
    )
    mining: str = _setting(
        "none",
        "Which triplets of labelled images to learn from: as drawn or given; all that a batch of "
        "some classes allows; for each image the farthest positive and the nearest negative; for "
        "each positive the nearest negative that is farther away.",
        choices=_MININGS,
    )
    classes_per_batch: int = _setting(
        defaults.CLASSES_PER_BATCH, "Classes in a batch that is mined.", 2, 100_000
    )
    images_per_class: int = _setting(
        defaults.IMAGES_PER_CLASS, "Images of each class in a batch that is mined.", 2, 100_000
    )
    inject_positives: bool = _setting(
        False,
        "Add to a batch that is mined the hardest positive of each image, looked for among all "
        "images of its class.",
    )
    refresh: int = _setting(
        5,
        "Epochs after which the hardest positives are looked for again.",
        1,
        100_000,
    )
    cross_entropy_weight: float = _setting(
        0.2,
        "Weight of the cross-entropy beside the triplet loss.",
        0,
        is_open=_OPEN_LOW,
    )
    center_weight: float = _setting(
        1.0,
        "Weight of the distance from the class centers beside the cross-entropy.",
        0,
    )
    center_decay: float = _setting(
        0.9,
        "How much of a class center stays when a batch moves it.",
        0,
        1,
        is_open=_OPEN_HIGH,
    )
    flip: bool = _setting(
        True,
        "Swap left and right in half of the images that training from pixels sees; not for "
        "letters or digits.",
    )
    shift: float = _setting(
        0.125,
        "Move the images that training from pixels sees by up to this share of their side.",
        0,
        0.5,
    )

    @classmethod
    def of_recipe(cls, name: str, **given: Any) -> Settings:
        """Return the settings of a recipe, its own defaults where None or nothing is given."""
        recipe = get_recipe(name)
        own = {key: getattr(recipe, key) for key in _OWN_DEFAULTS}
        if recipe.starts_as_identity:
            own |= {"strength": defaults.STRENGTH, "frozen_share": defaults.FROZEN_SHARE}
        if get_loss(given.get("loss") or defaults.LOSS).has_centers:
            # Centers are places among the trained embeddings, which must stay as they were trained.
            own |= {"strength": 1.0, "frozen_share": 0.0}
        return cls(
            recipe=name,
            **own | {key: value for key, value in given.items() if value is not None},
        )

    def of_member(self, member: int) -> Settings:
        """Return the settings of one head of the ensemble; the first has the seed as given."""
        import numpy as np

        seeds = np.random.SeedSequence([self.seed, member])
        return replace(self, seed=int(seeds.generate_state(1)[0]) if member else self.seed)

    @property
    def needs_labels(self) -> bool:
        """Whether training looks at the classes of images."""
        return self.mining != "none" or get_loss(self.loss).needs_labels

    def count_per_epoch(self, train_rows: np.ndarray) -> tuple[int, int]:
        """Return how many triplets or images an epoch shows, and how many a step."""
        import numpy as np

        if self.mining != "none":
            return len(np.unique(train_rows)), self.classes_per_batch * self.images_per_class
        if get_loss(self.loss).of_triplets is None:
            return len(np.unique(train_rows)), self.batch_size
        return len(train_rows), self.batch_size

    def with_usual_epochs(self, train_rows: np.ndarray) -> Settings:
        """Return the settings with as many epochs as so many triplets usually get."""
        usual = get_recipe(self.recipe).epochs
        return replace(self, epochs=_choose_epochs(*self.count_per_epoch(train_rows), usual))

    @property
    def is_compressed(self) -> bool:
        """Whether the embeddings are compressed to `dim` numbers."""
        return self.dim is not None and get_recipe(self.recipe).compresses


_OWN_DEFAULTS = ("members", "hidden", "dim", "dropout", "margin", "epochs", "learning_rate")


def _choose_epochs(n_triplets: int, batch_size: int, usual: int = defaults.EPOCHS) -> int:
    """Return how many passes a training set gets by default: small ones more."""
    steps = -(-n_triplets // batch_size)
    wanted = -(-defaults.MIN_STEPS * usual // (defaults.EPOCHS * steps))
    return min(max(usual, wanted), defaults.MAX_EPOCHS)


SETTINGS: dict[str, _SettingFacts] = {
    setting.name: setting.metadata["facts"] for setting in fields(Settings)
}


def check_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings, as Python or TOML has them, each value of its type; refuse all else."""
    checked = {}
    for name, value in given.items():
        facts = _find_setting(name)
        if hasattr(value, "item") and not getattr(value, "shape", ()):
            value = value.item()  # of a NumPy scalar
        if not facts.allows(value):
            raise SettingsError(name, f"`{name}`: expected {facts.describe()}, got {value!r}")
        is_number = value is not None and facts.kind in (int, float)
        checked[name] = facts.kind(value) if is_number else value
    return checked


def _parse_values(texts: Iterable[str]) -> dict[str, Any]:
    """Return settings from texts.

    Example:
        >>> _parse_values(["margin=0.3", "inject-positives=true", "dim=none"])
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


def gather_settings(
    keywords: Mapping[str, Any], pairs: Iterable[str] = (), file: Path | None = None
) -> dict[str, Any]:
    """Return the settings that were given, each checked, whatever they were given by. A keyword
    (None where it was not given) comes before a pair such as `margin=0.3`, both before a file of
    TOML, or the record of a model."""
    found: dict[str, Any] = {} if file is None else check_values(_read_file(file))
    given = check_values({name: value for name, value in keywords.items() if value is not None})
    typed = _parse_values(pairs)
    if twice := sorted(set(given) & set(typed)):
        raise SettingsError(
            twice[0], f"{twice[0]} is given twice: by its own name and as {twice[0]}=..."
        )
    return found | typed | given


def _read_file(path: Path) -> dict[str, Any]:
    """Return what a file of settings holds."""
    note_input(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        is_record = path.suffix == ".json"
        values = json.loads(text)["settings"] if is_record else tomllib.loads(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TripletkitError(
            f"{path}: expected settings as TOML, such as `margin = 0.3`, or a model.json; cannot "
            f"be read as either: {error}"
        ) from error
    if not isinstance(values, dict):
        raise TripletkitError(f"{path}: expected settings by name, got {type(values).__name__}")
    return {name.replace("-", "_"): value for name, value in values.items()}


def _find_setting(name: str) -> _SettingFacts:
    """Return the facts of a setting; what is none is refused with the nearest one."""
    if name not in SETTINGS:
        raise SettingsError(name, f"settings: {describe_unknown(name, SETTINGS)}")
    return SETTINGS[name]


def _parse(name: str, text: str) -> Any:
    facts = _find_setting(name)
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


# What an ensemble of chosen parts takes; all else is each part's own.
_OF_AN_ENSEMBLE = frozenset({"recipe", "seed", "dim", "distance"})


def check_settings(
    given: Mapping[str, Any], *, has_labels: bool, has_votes: bool, from_scratch: bool = False
) -> None:
    """Refuse chosen settings that do not go together, or have no part in what is trained."""
    recipe = get_recipe(given.get("recipe", "mlp"))
    loss = get_loss(given.get("loss", defaults.LOSS))
    mines = given.get("mining", "none") != "none"
    is_joined = given.get("members", recipe.members) > 1
    if recipe.starts_as_identity and given.get("distance", defaults.DISTANCE) != "l2":
        raise SettingsError("distance", f"`recipe={recipe.name}` answers by `distance=l2` only.")
    _check_needs(given, loss, mines, has_labels=has_labels, has_votes=has_votes)
    _check_parts(given, loss, mines)
    if recipe.is_chosen and (others := [name for name in given if name not in _OF_AN_ENSEMBLE]):
        raise SettingsError(
            others[0],
            f"`recipe={recipe.name}` chooses its heads and how they learn by held-out draws, so "
            f"it takes no `{others[0]}`: leave it out, or use `recipe=residual`.",
        )
    if loss.has_centers and (is_joined or (given.get("dim") is not None and recipe.compresses)):
        raise SettingsError(
            "members",
            f"`loss={loss.name}` keeps its class centers with one head whose embeddings are not "
            "compressed: leave out `members`, and `dim` with `recipe=residual`.",
        )
    if from_scratch and (recipe.starts_as_identity or is_joined):
        raise SettingsError(
            "recipe",
            "a backbone that is trained from scratch takes one head, by `recipe=linear` or "
            "`recipe=mlp`.",
        )
    for name in ("flip", "shift"):
        if name in given and not from_scratch:
            raise SettingsError(
                name,
                f"`{name}` is for training from pixels: for fine-tuning, or for a backbone that is "
                "trained from scratch, such as `backbone=cnn`.",
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
