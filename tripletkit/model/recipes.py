"""The registry of recipes: how a head is built and trained, and its defaults, side by side.

A recipe is one record here and one function in `heads` that builds what is trained. Nothing in
this module imports TensorFlow, so that the command line can show the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tripletkit import defaults
from tripletkit.errors import SettingsError
from tripletkit.registry import Reference, Registry, describe_unknown

FROZEN = "frozen"
COSINE = "cosine"
MAP = "map"
RESIDUAL = "residual"
MLP = "mlp"
# What the recipe auto takes one of.
SIMPLEST_FIRST = (FROZEN, MAP, MLP, RESIDUAL)
# What the recipe best weighs. Standardised features as they are, and residual heads of them, were
# among these until maps and the cosine took their place: see `docs/benchmarks.md`.
PART_HEADS = (COSINE, MAP, MLP)


@dataclass(frozen=True)
class Part:
    """One part of an ensemble, as a model's record has it.

    Attributes:
        features: what its columns, from start to stop, are called, such as `efficientnet-lite0`.
        head: `"frozen"` (standardised features as they are), `"cosine"` (features at length 1
            alone), `"map"` (these and a linear step away from them), `"residual"` (standardised
            ones and a learned step away from them) or `"mlp"` (a short embedding of its own).
        hidden: width of the hidden layer, of a map the directions that it moves; 0 untrained.
        n_dims: numbers in its embedding.
        weight: of its squared distance; over all parts their sum is 1.
        n_steps: of its training; 0 of a frozen part.
    """

    features: str
    start: int
    stop: int
    head: str
    hidden: int
    n_dims: int
    weight: float
    n_steps: int = 0

    @property
    def name(self) -> str:
        """What a part is called in tables."""
        return f"{self.features}, {self.head}"

    @property
    def n_features(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class _Recipe:
    """Facts of one recipe, and its defaults of the settings of the same names.

    Attributes:
        summary, paper: what it is, for `--help`, and where it comes from.
        body: `"module:function"` that builds the part that is trained, from standardised features
            to embeddings of length 1; it takes the number of features and `sizes`.
        sizes: the settings that the body is built from.
        starts_as_identity: the body begins as the features, given length 1 before they are
            standardised, and learns a step away from them, which can be shortened afterwards; the
            loss takes squared distances.
        trainer: `"module:class"` of the `Trainer` that makes models of it from stored features.
        part_heads: heads that an ensemble chooses its parts from; none where it is one body.
        takes_simplest: it takes one of `SIMPLEST_FIRST`, by held-out answers.
        dim: numbers in an embedding; None for as many as the body gives, not compressed.
    """

    name: str
    summary: str
    paper: str
    body: Reference
    sizes: tuple[str, ...]
    starts_as_identity: bool = False
    members: int = 1
    dim: int | None = defaults.DIM
    hidden: int = defaults.HIDDEN
    dropout: float = defaults.DROPOUT
    margin: float = defaults.MARGIN
    epochs: int = defaults.EPOCHS
    learning_rate: float = defaults.LEARNING_RATE
    trainer: str = "tripletkit.training.head_trainer:HeadTrainer"
    part_heads: tuple[str, ...] = ()
    takes_simplest: bool = False

    @property
    def is_chosen(self) -> bool:
        """Whether held-out draws choose what a model is made of."""
        return bool(self.part_heads) or self.takes_simplest

    @property
    def compresses(self) -> bool:
        """Whether an embedding of fewer numbers is made from the body's own."""
        return "dim" not in self.sizes


RECIPES: Registry[_Recipe] = Registry("recipe", partial(SettingsError, "recipe"))
get_recipe = RECIPES.find


def register_recipe(name: str, *, like: str = "mlp", **changed: Any) -> None:
    """Add a recipe of your own, to be taken by its name from now on.

    Args:
        name: how it is called, as in `train(..., recipe=name)`.
        like: the recipe that it is like.
        changed: what is other in it: `summary`, `paper`; the defaults `members`, `dim`, `hidden`,
            `dropout`, `margin`, `epochs` and `learning_rate`; or `body`, a function (or
            `"module:function"`) that builds the head, with `sizes`, the settings that it takes.
    Raises:
        SettingsError: if the name is taken, there is no recipe to be like, or it has no such value.
    """
    recipe = get_recipe(like)
    if unknown := [each for each in changed if each not in _Recipe.__dataclass_fields__]:
        raise SettingsError(unknown[0], describe_unknown(unknown[0], _Recipe.__dataclass_fields__))
    RECIPES.add(replace(recipe, name=name, **changed))


_PARTS_TRAINER = "tripletkit.training.parts_trainer:PartsTrainer"
_RESIDUAL: dict[str, Any] = {
    "paper": "He et al. Identity Mappings. ECCV 2016. arXiv:1603.05027 (a start at the identity); "
    "Wortsman et al. Robust fine-tuning. CVPR 2022. arXiv:2109.01903 (the shortened step)",
    "body": "tripletkit.model.heads:_build_residual_body",
    "sizes": ("hidden", "dropout"),
    "starts_as_identity": True,
    "dim": None,
    # Its loss takes squared distances between unit embeddings, 0 to 4.
    "margin": 0.3,
    "dropout": 0.4,
    "epochs": defaults.RESIDUAL_EPOCHS,
    "learning_rate": 5e-4,
}

for _recipe in (
    _Recipe(
        name="mlp",
        summary="Dense, Dropout, Dense: short embeddings, best where nothing new is asked",
        paper="Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832 (the loss)",
        body="tripletkit.model.heads:_build_head",
        sizes=("hidden", "dim", "dropout"),
    ),
    _Recipe(
        name="linear",
        summary="one Dense layer: for a backbone that is trained with it",
        paper="Weinberger, Saul. Distance Metric Learning for Large Margin Nearest Neighbor "
        "Classification. JMLR 10, 2009 (a linear map for triplets)",
        body="tripletkit.model.heads:_build_linear_head",
        sizes=("dim",),
    ),
    _Recipe(
        name="residual",
        summary="the frozen features and a learned step away from them: holds on unseen classes",
        **_RESIDUAL,
    ),
    _Recipe(
        name="map",
        summary="a linear map of the frozen features, held near them: learned in a second",
        trainer=_PARTS_TRAINER,
        part_heads=(MAP,),
        **_RESIDUAL,
    ),
    _Recipe(
        name="auto",
        summary="the simplest of frozen features, map, mlp and residual within one standard error "
        "of the best of them: for few judgements",
        trainer="tripletkit.training.parts_trainer:SimplestTrainer",
        takes_simplest=True,
        **_RESIDUAL,
    ),
    _Recipe(
        name="best",
        summary="what answers held-out triplets best: networks, depths and heads weighed together",
        trainer=_PARTS_TRAINER,
        part_heads=PART_HEADS,
        **_RESIDUAL,
    ),
):
    RECIPES.add(_recipe)
