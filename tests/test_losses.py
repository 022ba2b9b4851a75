"""The triplet loss equals a plain loop, and is the margin where nothing is learnt."""

from __future__ import annotations

import numpy as np

from tripletkit.model.losses import triplet_margin_loss


def test_triplet_margin_loss_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    to_positive, to_negative = rng.uniform(0, 2, (2, 100)).astype(np.float32)
    got = triplet_margin_loss(to_positive, to_negative, 0.2).numpy()
    expected = [max(p - n + 0.2, 0) for p, n in zip(to_positive, to_negative, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    assert (got == 0).any()
    assert (got > 0).any()


def test_triplet_margin_loss_of_equal_codes_is_the_margin():
    zeros = np.zeros(3, np.float32)
    np.testing.assert_array_equal(triplet_margin_loss(zeros, zeros, 0.5), [0.5, 0.5, 0.5])


def test_triplet_margin_loss_ends_exactly_at_the_margin():
    got = triplet_margin_loss(np.float32([0, 0, 0]), np.float32([0.5, 0.25, 0.75]), 0.5)
    np.testing.assert_array_equal(got, [0.0, 0.25, 0.0])
