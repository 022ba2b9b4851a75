"""Training of parts: gradients as finite differences have them, and triplets that are learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plain import triplet_margins, unit_vectors

from tripletkit import TripletkitError
from tripletkit.model.head_layers import Scaling
from tripletkit.training.part_training import (
    MLP_PART,
    RESIDUAL_PART,
    PartFeatures,
    PartSettings,
    _HeadProblem,
    embed_part,
    train_part,
)

SMALL = {
    "hidden": 7,
    "dropout": 0.0,
    "input_dropout": 0.0,
    "variants": (60,),
    "batch_size": 64,
    "learning_rate": 0.01,
}
RESIDUAL, MLP = replace(RESIDUAL_PART, **SMALL), replace(MLP_PART, n_dims=5, **SMALL)


def make_triplets(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Forty images whose first two numbers alone tell who is nearer, among twelve."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(40, 12)).astype(np.float32)
    rows = np.array([rng.permutation(40)[:3] for _ in range(400)])
    is_right = triplet_margins(features[:, :2], rows, "l2") > 0
    return features, np.where(is_right[:, None], rows, rows[:, [0, 2, 1]])


def as_they_are(features: np.ndarray, n_directions: int = 12) -> PartFeatures:
    """Features that are not standardised, of which training sees the first few."""
    scaling = Scaling(np.zeros(12), np.ones(12))
    return PartFeatures(scaling, features, np.eye(12, n_directions, dtype=np.float32))


def loss_of(
    features: np.ndarray, rows: np.ndarray, weights: list[np.ndarray], settings: PartSettings
) -> float:
    """The mean hinge, by the definition, in float64."""
    kernel, bias, last, last_bias = (values.astype(np.float64) for values in weights)
    step = np.maximum(features @ kernel + bias, 0) @ last + last_bias
    embeddings = features + step if settings.head == "residual" else step
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    anchor, positive, negative = (embeddings[column] for column in rows.T)
    near = np.square(anchor - positive).sum(axis=1)
    far = np.square(anchor - negative).sum(axis=1)
    if not settings.is_squared:
        near, far = np.sqrt(near), np.sqrt(far)
    return float(np.maximum(near - far + settings.margin, 0).mean())


@pytest.mark.parametrize("settings", [RESIDUAL, MLP, replace(MLP, is_squared=True)])
def test_gradients_are_those_of_the_loss(settings: PartSettings) -> None:
    features, rows = make_triplets()
    rng = np.random.default_rng(1)
    head = _HeadProblem(as_they_are(features), rows, settings, rng)
    for values in head.learned:
        values += 0.3 * rng.normal(size=values.shape).astype(np.float32)
    for number, gradient in enumerate(head.gradients(np.arange(len(rows)))):
        for place in list(np.ndindex(gradient.shape))[:: max(1, gradient.size // 7)]:
            ends = []
            for step in (1e-3, -1e-3):
                moved = [values.astype(np.float64) for values in head.weights]
                moved[number][place] += step
                # A head may see components at another scale than they have.
                seen = head.components.astype(np.float64)
                ends.append(loss_of(seen, rows, moved, settings))
            slope = (ends[0] - ends[1]) / 2e-3
            assert gradient[place] == pytest.approx(slope, abs=2e-3, rel=0.02)


@pytest.mark.parametrize("settings", [RESIDUAL, MLP])
def test_new_triplets_are_answered_better_than_by_the_features(settings: PartSettings) -> None:
    features, rows = make_triplets()
    (weights,) = train_part(as_they_are(features), rows[:300], settings, seed=0)
    embeddings = embed_part(features, weights, settings.head)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)

    def right(vectors: np.ndarray) -> float:
        return float(np.mean(triplet_margins(vectors, rows[300:], "l2") > 0))

    assert right(embeddings) > right(unit_vectors(features)) + 0.1


def test_a_residual_head_begins_as_the_features() -> None:
    features, rows = make_triplets()
    settings = replace(RESIDUAL, variants=(0,))
    (weights,) = train_part(as_they_are(features), rows, settings, 0)
    embeddings = embed_part(features, weights, settings.head)
    assert np.allclose(embeddings, unit_vectors(features), atol=1e-6)


def test_the_same_seed_gives_the_same_weights() -> None:
    features, rows = make_triplets()
    settings = replace(MLP, dropout=0.3, variants=(5,))
    one, same, other = (
        train_part(as_they_are(features), rows, settings, seed)[0] for seed in (3, 3, 4)
    )
    assert all(np.array_equal(left, right) for left, right in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("settings", [RESIDUAL, MLP])
def test_weights_on_the_way_are_those_of_a_shorter_training(settings: PartSettings) -> None:
    features, rows = make_triplets()
    settings = replace(settings, dropout=0.3, variants=(3, 7))
    on_the_way, _ = train_part(as_they_are(features), rows, settings, 5)
    (shorter,) = train_part(as_they_are(features), rows, replace(settings, variants=(3,)), 5)
    assert all(map(np.array_equal, on_the_way, shorter))


def test_votes_against_a_triplet_turn_what_is_learned() -> None:
    features, rows = make_triplets()
    as_it_stands, exchanged = np.tile([1.0, 0.0], (400, 1)), np.tile([0.0, 1.0], (400, 1))
    (turned,) = train_part(as_they_are(features), rows[:, [0, 2, 1]], RESIDUAL, 0, exchanged)
    (straight,) = train_part(as_they_are(features), rows, RESIDUAL, 0, as_it_stands)
    assert all(
        np.allclose(left, right, atol=1e-4) for left, right in zip(turned, straight, strict=True)
    )


def test_more_triplets_in_a_batch_than_there_are_is_no_trouble() -> None:
    features, rows = make_triplets()
    large = replace(RESIDUAL, batch_size=1024)
    (weights,) = train_part(as_they_are(features), rows[:5], large, 0)
    assert np.isfinite(weights[0]).all()


def test_features_that_are_no_numbers_are_told() -> None:
    features, rows = make_triplets()
    features[rows[0, 0]] = np.inf
    with np.errstate(all="ignore"), pytest.raises(TripletkitError, match="no longer finite"):
        train_part(as_they_are(features), rows, RESIDUAL, 0)


@pytest.mark.parametrize("settings", [RESIDUAL, MLP])
def test_what_training_does_not_see_is_not_moved(settings: PartSettings) -> None:
    features, rows = make_triplets()
    ((kernel, _, last, _),) = train_part(as_they_are(features, 2), rows, settings, 0)
    assert kernel.shape == (12, 7)
    assert np.any(kernel[:2])
    assert not kernel[2:].any()
    if settings.head == "residual":
        assert np.any(last[:, :2])
        assert not last[:, 2:].any()


@pytest.mark.parametrize("n_images", [8, 40])
def test_directions_are_those_of_the_training_images_alone(n_images: int) -> None:
    features, _ = make_triplets()
    trained = np.arange(n_images)
    one = PartFeatures.of(features, trained, 5)
    others = features.copy()
    others[n_images:] *= -3
    other = PartFeatures.of(others, trained, 5)
    assert np.array_equal(one.directions, other.directions)
    assert one.directions.T @ one.directions == pytest.approx(np.eye(5), abs=1e-4)
    # The leading ones: no other five hold more of the training images.
    squares = np.linalg.svd(one.scaled[trained], compute_uv=False)[:5] ** 2
    assert np.square(one.reduced[trained]).sum() == pytest.approx(squares.sum(), rel=1e-3)


def test_images_that_are_all_the_same_have_directions_too() -> None:
    features = np.ones((6, 4), np.float32)
    assert PartFeatures.of(features, np.arange(6), 3).reduced.shape == (6, 3)
