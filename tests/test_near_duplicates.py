"""`train` says when images are nearly the same as others, and not otherwise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import tripletkit as tk


@pytest.mark.parametrize("n_copies", [0, 9])
def test_near_duplicates_are_told_with_the_nearest_two(n_copies, tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(150, 16)).astype(np.float32)
    for copy in range(n_copies):
        vectors[149 - copy] = vectors[copy] + rng.normal(size=16) * (0.1 if copy else 0.01)
    names = [f"{number:03}.png" for number in range(150)]
    rows = np.array([rng.choice(150, 3, replace=False) for _ in range(300)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tk.train(
            tk.Triplets.from_array(rows, names),
            features=dict(zip(names, vectors, strict=True)),
            recipe="map",
            refit=False,
            unseen_classes=0,
            output=tmp_path / "m",
        )
    told = [str(each.message) for each in caught if each.category is tk.LeakageWarning]
    told = [text for text in told if "nearly the same as another" in text]
    assert len(told) == (n_copies > 0)
    if told:
        assert "12% of the images" in told[0]
        assert "'000.png' and '149.png'" in told[0] or "'149.png' and '000.png'" in told[0]
