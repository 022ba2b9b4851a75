"""Parts as one head: the weighed squared distances, alone, from a file, and in Keras."""

from __future__ import annotations

import numpy as np
import pytest
from plain import unit_vectors

from tripletkit.model.head_layers import Scaling, TrainedPart, embed, join_parts, read_numpy_head
from tripletkit.model.recipes import Part

N_FEATURES, N_COLUMNS = 20, 8
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(30, N_FEATURES)).astype(np.float32)
SCALING = Scaling.of(unit_vectors(FEATURES[:, 4 : 4 + N_COLUMNS]))


def make_part(head: str, weight: float, *shapes: tuple[int, ...]) -> TrainedPart:
    weights = [RNG.normal(size=shape).astype(np.float32) for shape in shapes]
    n_dims = 5 if head == "mlp" else N_COLUMNS
    part = Part("net", 4, 4 + N_COLUMNS, head, 3 if weights else 0, n_dims, weight)
    return TrainedPart(part, weights, None if head in ("cosine", "map") else SCALING)


PARTS = [
    make_part("frozen", 0.1),
    make_part("cosine", 0.2),
    make_part("map", 0.3, (N_COLUMNS, 3), (3, N_COLUMNS)),
    make_part("residual", 0.15, (N_COLUMNS, 3), (3,), (3, N_COLUMNS), (N_COLUMNS,)),
    make_part("mlp", 0.25, (N_COLUMNS, 3), (3,), (3, 5), (5,)),
]


def embed_by_definition(trained: TrainedPart) -> np.ndarray:
    unit = unit_vectors(FEATURES[:, 4 : 4 + N_COLUMNS])
    seen = unit if trained.scaling is None else trained.scaling.apply(unit)
    if trained.part.head == "map":
        directions, step = trained.weights
        return unit_vectors(seen + seen @ directions @ step)
    if trained.weights:
        kernel, bias, last, last_bias = trained.weights
        step = np.maximum(seen @ kernel + bias, 0) @ last + last_bias
        return unit_vectors(step if trained.part.head == "mlp" else seen + step)
    return unit_vectors(seen)


def squared_distances(embeddings: np.ndarray) -> np.ndarray:
    return np.square(embeddings[:15] - embeddings[15:]).sum(axis=1)


@pytest.mark.parametrize("parts", [PARTS, PARTS[2:3]], ids=["several", "one"])
def test_squared_distances_are_the_weighed_ones_of_the_parts(parts):
    total = sum(part.part.weight for part in parts)
    expected = sum(
        part.part.weight * squared_distances(embed_by_definition(part)) for part in parts
    )
    embeddings = embed(join_parts(N_FEATURES, parts), FEATURES)
    np.testing.assert_allclose(squared_distances(embeddings), expected, rtol=1e-4)
    np.testing.assert_allclose(np.square(embeddings).sum(axis=1), total, rtol=1e-5)


def test_a_file_and_keras_give_the_same_embeddings(tmp_path):
    kernel, bias = RNG.normal(size=(37, 4)), RNG.normal(size=4)
    head = join_parts(N_FEATURES, PARTS).compressed(kernel, bias)
    embeddings = embed(head, FEATURES)
    np.testing.assert_allclose(
        embeddings,
        unit_vectors(embed(join_parts(N_FEATURES, PARTS), FEATURES) @ kernel + bias),
        atol=1e-5,
    )
    head.write(tmp_path / "head.weights.h5")
    from_file = read_numpy_head(tmp_path / "head.weights.h5")
    np.testing.assert_array_equal(embed(from_file, FEATURES), embeddings)
    assert from_file.count_params() == head.count_params() > kernel.size
    np.testing.assert_allclose(embed(from_file.to_keras(), FEATURES), embeddings, atol=1e-5)
