"""What decides a trained model, beside its data.

NumPy is imported where it is used, so that the help of commands does not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tripletkit import defaults
from tripletkit.model.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class HeadSettings:
    """What decides a trained model, beside its data.

    Attributes:
        recipe: a name of `recipes.RECIPES`.
        members: heads in the ensemble.
        hidden, dim: widths of the hidden layer and of an embedding; a dim of None leaves the
            embeddings of a recipe that compresses as wide as they come.
        dropout: share of values dropped in training.
        distance: a key of `DISTANCES`.
        margin: in units of the distance, or of its square as the recipe has it.
        mlp_members: how many of the members, the last ones, follow the recipe mlp.
        strength: how much of its step a head that starts as the identity keeps, 0 to 1.
        frozen_share: of the frozen features in the distance, beside the heads; 0 to below 1.
        epochs: passes over the triplets, at most.
        patience: epochs without a better validation accuracy before training stops.
        batch_size: triplets in a step.
        learning_rate: of Adam.
        seed: of weights, dropout and order.
        loss: a name of `loss_registry.LOSSES`.
        reduction: `"all"` or `"active"`; see `losses.mean_loss`.
        mining: `"none"` for triplets as they are, or a name of `mining.MINERS`.
        classes_per_batch, images_per_class: of a batch that is mined.
        inject_positives: add each image's hardest known positive to a batch that is mined.
        refresh: epochs after which these are looked for anew, with the embeddings as they are then.
        cross_entropy_weight: beside a triplet loss.
        center_weight: of the center loss.
        center_decay: how much of a center stays when a batch moves it, 0 to below 1.
        flip, shift: of the images that training from pixels sees; see `Augmentation`.
    """

    recipe: str = "mlp"
    members: int = 1
    mlp_members: int = 0
    hidden: int = defaults.HIDDEN
    dim: int | None = defaults.DIM
    dropout: float = defaults.DROPOUT
    distance: str = defaults.DISTANCE
    margin: float = defaults.MARGIN
    strength: float = 1.0
    frozen_share: float = 0.0
    epochs: int = defaults.EPOCHS
    patience: int = defaults.PATIENCE
    batch_size: int = defaults.BATCH_SIZE
    learning_rate: float = defaults.LEARNING_RATE
    seed: int = defaults.SEED
    loss: str = defaults.LOSS
    reduction: str = defaults.REDUCTION
    mining: str = defaults.MINING
    classes_per_batch: int = defaults.CLASSES_PER_BATCH
    images_per_class: int = defaults.IMAGES_PER_CLASS
    inject_positives: bool = False
    refresh: int = defaults.REFRESH
    cross_entropy_weight: float = defaults.CROSS_ENTROPY_WEIGHT
    center_weight: float = defaults.CENTER_WEIGHT
    center_decay: float = defaults.CENTER_DECAY
    flip: bool = True
    shift: float = defaults.SHIFT

    @classmethod
    def of_recipe(cls, name: str, **given: Any) -> HeadSettings:
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

    def of_member(self, member: int) -> HeadSettings:
        """Return the settings of one head of the ensemble, each with a seed of its own."""
        is_source = member >= self.members - self.mlp_members
        settings = self.of_mlp_members() if is_source else self
        return replace(settings, seed=_seed_of_member(self.seed, member))

    def of_mlp_members(self) -> HeadSettings:
        """Return the settings of a head that follows the recipe mlp beside the others.

        Where the others get more or fewer epochs than they usually do, so does it.
        """
        usual = get_recipe(self.recipe).epochs
        epochs = max(1, round(self.epochs / usual * get_recipe("mlp").epochs))
        same = {key: getattr(self, key) for key in _SHARED_BY_MEMBERS}
        return HeadSettings.of_recipe("mlp", epochs=epochs, **same)

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

    @property
    def is_compressed(self) -> bool:
        """Whether the embeddings are compressed to `dim` numbers."""
        return self.dim is not None and get_recipe(self.recipe).compresses


# What heads by the recipe mlp have in common with the others of an ensemble.
_SHARED_BY_MEMBERS = (
    "batch_size",
    "seed",
    "loss",
    "reduction",
    "mining",
    "classes_per_batch",
    "images_per_class",
    "inject_positives",
    "refresh",
    "cross_entropy_weight",
)
_OWN_DEFAULTS = ("members", "hidden", "dim", "dropout", "margin", "epochs", "learning_rate")


def _seed_of_member(seed: int, member: int) -> int:
    """Return a seed of its own for each member; the first has the one that was given."""
    import numpy as np

    return seed if member == 0 else int(np.random.SeedSequence([seed, member]).generate_state(1)[0])


def choose_epochs(n_triplets: int, batch_size: int, usual: int = defaults.EPOCHS) -> int:
    """Return how many passes a training set gets by default: small ones more.

    Example:
        >>> choose_epochs(20_000, batch_size=256), choose_epochs(1_000, batch_size=256)
        (10, 100)
    """
    steps = -(-n_triplets // batch_size)
    wanted = -(-defaults.MIN_STEPS * usual // (defaults.EPOCHS * steps))
    return min(max(usual, wanted), defaults.MAX_EPOCHS)
