"""Heads: the trained part, from a backbone's features to embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tripletkit.features.keras_backend import building_layers, keras
from tripletkit.model.head_layers import Scaling
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import Settings
from tripletkit.registry import load_object


def _build_head(n_features: int, hidden: int, dim: int, dropout: float) -> keras.Model:
    """Return the head of recipe `mlp`: Dense (ReLU), Dropout, Dense, L2 normalisation."""
    first = keras.layers.Dense(
        hidden, activation="relu", kernel_initializer="he_uniform", name="hidden"
    )
    return _build_sequence(n_features, dim, first, keras.layers.Dropout(dropout, name="dropout"))


def _build_linear_head(n_features: int, dim: int) -> keras.Model:
    """Return a head of one layer: Dense, L2 normalisation."""
    return _build_sequence(n_features, dim)


def _build_sequence(n_features: int, dim: int, *layers: keras.layers.Layer) -> keras.Model:
    embedding = keras.layers.Dense(dim, kernel_initializer="he_uniform", name="embedding")
    unit = keras.layers.UnitNormalization(name="unit_length")
    return keras.Sequential([keras.Input((n_features,)), *layers, embedding, unit], name="head")


def _build_residual_body(n_features: int, hidden: int, dropout: float) -> keras.Model:
    """Return a head that begins as the identity: x + Dense(Dense(x)), L2 normalisation.

    The last layer starts at zero, so that before training the embeddings are the features at length
    1, and what training has not seen keeps the frozen features' order as long as it can. Dropout
    is on the way to the step. The features that the step is added to are not dropped: they taught
    the step to replace them, which cost a point on unseen classes.

    Reference:
        He, Zhang, Ren, Sun. Identity Mappings. ECCV 2016. arXiv:1603.05027.
    """
    features = keras.Input((n_features,))
    kept = keras.layers.Dropout(dropout, name="dropout_features")(features)
    step = keras.layers.Dense(
        hidden, activation="relu", kernel_initializer="he_uniform", name="hidden"
    )(kept)
    step = keras.layers.Dropout(dropout, name="dropout")(step)
    step = keras.layers.Dense(n_features, kernel_initializer="zeros", name="step")(step)
    moved = keras.layers.Add(name="residual")([features, step])
    return keras.Model(
        features, keras.layers.UnitNormalization(name="unit_length")(moved), name="residual_head"
    )


def shorten_step(weights: Sequence[np.ndarray], strength: float) -> list[np.ndarray]:
    """Return a residual body's weights with the step away from the identity shortened.

    A strength of 1 leaves the step as trained, 0 gives the identity.

    Reference:
        Wortsman et al. Robust fine-tuning of zero-shot models. CVPR 2022. arXiv:2109.01903;
        we interpolate the last layer alone, which here is the same as interpolating the step.
    """
    *hidden, kernel, bias = weights
    return [*hidden, strength * kernel, strength * bias]


def finish_head(
    body: keras.Model, settings: Settings, scaling: Scaling | None = None
) -> keras.Model:
    """Return a body behind the features as they are; without scaling where weights will be loaded.
    The scaling is folded into the first layer of a body, or put before one that starts as the
    identity, behind a layer that gives the features length 1."""
    if not get_recipe(settings.recipe).starts_as_identity:
        if scaling is not None:
            body.set_weights(scaling.fold_into(body.get_weights()))
        return body
    # In inference mode a shift and a scale, and its numbers are saved with the weights, which
    # those of Normalization are only with a count that makes no sense here.
    standardise = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, name="standardise"
    )
    features = keras.Input(body.input_shape[1:])
    of_unit_length = keras.layers.UnitNormalization(name="unit_features")(features)
    embeddings = body(standardise(of_unit_length, training=False))
    if scaling is not None:
        standardise.set_weights([scaling.mean, scaling.deviation**2])
    return keras.Model(features, embeddings, name="head")


def join_heads(heads: Sequence[keras.Model]) -> keras.Model:
    """Return one head whose squared L2 distance is the mean of the members' squared ones.
    Embeddings are the members' own side by side, over the root of their number: length 1 again."""
    if len(heads) == 1:
        return heads[0]
    # Keras wants every part to have a name of its own.
    members = [
        keras.Model(head.inputs[0], head.outputs[0], name=f"member{number}")
        for number, head in enumerate(heads, 1)
    ]
    features = keras.Input(heads[0].input_shape[1:])
    embeddings = keras.layers.Concatenate(name="members")([member(features) for member in members])
    return keras.Model(
        features,
        keras.layers.Rescaling(len(heads) ** -0.5, name="mean")(embeddings),
        name="ensemble",
    )


def keep_frozen(head: keras.Model, scale: float | None = None) -> keras.Model:
    """Return a head whose embeddings hold the frozen features beside the trained embedding.

    The squared L2 distance is then a weighted mean of the trained one and of the frozen features'
    own, whose order is that of their cosine. `scale` is from `frozen_scale`; None where the weights
    will be loaded.
    """
    features = keras.Input(head.input_shape[1:])
    unit = keras.layers.UnitNormalization(name="unit_frozen")(features)
    # As in `finish_head`, a layer whose numbers are saved with the weights.
    frozen = keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, name="frozen"
    )
    joined = keras.layers.Concatenate(name="frozen_and_trained")(
        [frozen(unit, training=False), head(features)]
    )
    if scale is not None:
        n_features = head.input_shape[-1]
        frozen.set_weights([np.zeros(n_features), np.full(n_features, scale**-2.0)])
    return keras.Model(
        features, keras.layers.UnitNormalization(name="unit_length")(joined), name="with_frozen"
    )


def frozen_scale(unit: np.ndarray, embeddings: np.ndarray, share: float) -> float:
    """Return the factor by which frozen features weigh as they should beside embeddings.

    Frozen features are all alike at first sight, trained embeddings are spread out; so the weights
    are taken relative to the mean squared distance of each over the training images, whose rows of
    length 1 are given. The share, 0 to below 1, is of the frozen features in a mean distance.
    """
    # The mean squared distance of two rows of length 1 is twice this.
    of_frozen, of_embeddings = (
        1 - np.sum(part.mean(axis=0, dtype=np.float64) ** 2) for part in (unit, embeddings)
    )
    # Images that are all the same have no distances to balance.
    balance = of_embeddings / of_frozen if of_frozen > 0 else 1.0
    return float(np.sqrt(share / (1 - share) * balance))


@building_layers()
def compress_head(head: keras.Model, dim: int) -> keras.Model:
    """Return a head and behind it an untrained Dense layer, for embeddings of `dim` numbers."""
    features = keras.Input(head.input_shape[1:])
    embedding = keras.layers.Dense(dim, name="embedding")(head(features))
    return keras.Model(
        features, keras.layers.UnitNormalization(name="unit_length")(embedding), name="compressed"
    )


@building_layers()
def build_body(n_features: int, settings: Settings) -> keras.Model:
    """Return the untrained body of one head: standardised features -> embeddings."""
    recipe = get_recipe(settings.recipe)
    return load_object(recipe.body)(
        n_features, **{size: getattr(settings, size) for size in recipe.sizes}
    )


def build_model(n_features: int, settings: Settings) -> keras.Model:
    """Return the joined head of a model, with weights still to be loaded."""
    bodies = [build_body(n_features, settings) for _ in range(settings.members)]
    head = join_heads([finish_head(body, settings) for body in bodies])
    if settings.frozen_share:
        head = keep_frozen(head)
    if settings.is_compressed and settings.dim is not None:
        return compress_head(head, settings.dim)
    return head
