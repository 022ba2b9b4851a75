"""`train` says when images are nearly the same as others, and not otherwise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import tripletkit as tk


def plain_duplicates(vectors: np.ndarray) -> tuple[float, set[int]]:
    """Return the share of images that are nearly another, and the nearest two, by plain loops.

    Nearly: within half of the usual distance of an image to the nearest other, by cosine.
    """
    away, nearest = [], []
    for one, vector in enumerate(vectors):
        distances = {}
        for other, second in enumerate(vectors):
            if other != one:
                cosine = vector @ second / np.sqrt((vector @ vector) * (second @ second))
                distances[other] = np.sqrt(1 - cosine)
        nearest.append(min(distances, key=distances.get))
        away.append(distances[nearest[-1]])
    closest = int(np.argmin(away))
    share = sum(each < sorted(away)[len(away) // 2] / 2 for each in away) / len(away)
    return share, {closest, nearest[closest]}


@pytest.mark.parametrize(("n_copies", "spread"), [(0, 0), (1, 0.1), (2, 0.1), (9, 0.1), (30, 0.5)])
def test_near_duplicates_are_told_as_a_plain_loop_finds_them(n_copies, spread, tmp_path):
    rng = np.random.default_rng(n_copies)
    vectors = rng.normal(size=(151, 16)).astype(np.float32)
    for copy in range(n_copies):
        vectors[150 - copy] = vectors[copy] + rng.normal(size=16) * (spread if copy else 0.01)
    names = [f"{number:03}.png" for number in range(151)]
    order = rng.permutation(151)
    rows = np.array([*order[:150].reshape(-1, 3), *[[order[150], *order[:2]]]])
    rows = np.concatenate([rows, [rng.choice(151, 3, replace=False) for _ in range(300)]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tk.train(
            tk.Triplets.from_array(rows, names),
            features=dict(zip(names, vectors, strict=True)),
            recipe="map",
            unseen_classes=0,
            output=tmp_path / "m",
        )
    told = [str(each.message) for each in caught if each.category is tk.LeakageWarning]
    told = [text for text in told if "nearly the same as another" in text]
    share, pair = plain_duplicates(vectors.astype(np.float64))
    assert len(told) == (share >= 0.02)
    if told:
        assert f"{share:.0%} of the images" in told[0]
        assert {number for number in range(151) if f"'{names[number]}'" in told[0]} == pair
