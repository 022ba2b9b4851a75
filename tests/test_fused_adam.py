"""The fused update must be Keras's Adam."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tripletkit.training.batch_learner import FusedAdam


def run(optimizer: keras.optimizers.Optimizer, n_steps: int) -> list[np.ndarray]:
    """Return two variables after some steps with seeded gradients, in a compiled function."""
    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(rng.normal(size=shape), dtype="float32") for shape in ((5, 3), (3,))
    ]
    optimizer.build(variables)
    step = tf.function(lambda gradients: optimizer.apply(gradients, variables))
    for _ in range(n_steps):
        step([tf.constant(rng.normal(size=v.shape), dtype=tf.float32) for v in variables])
    return [variable.numpy() for variable in variables]


@pytest.mark.slow
@pytest.mark.parametrize("n_steps", [1, 2, 50])
def test_fused_adam_equals_adam(n_steps):
    fused = run(FusedAdam(0.01), n_steps)
    plain = run(keras.optimizers.Adam(0.01), n_steps)
    start = run(FusedAdam(0.01), 0)
    for ours, theirs, before in zip(fused, plain, start, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert not np.allclose(ours, before)
