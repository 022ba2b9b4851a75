"""The linear map: its gradient, what it learns, and what it leaves as it is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from plain import triplet_margins, unit_vectors

from tripletkit import TripletkitError
from tripletkit.training import part_training
from tripletkit.training.part_training import MapSettings, PartFeatures, _MapProblem, train_map

N_IMAGES = 40


def make_triplets(scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Images around one point, whose first two numbers tell who is nearer, among twelve."""
    rng = np.random.default_rng(0)
    features = (5 + scale * rng.normal(size=(N_IMAGES, 12))).astype(np.float32)
    rows = np.array([rng.permutation(N_IMAGES)[:3] for _ in range(400)])
    is_right = triplet_margins(features[:, :2], rows, "l2") > 0
    return features, np.where(is_right[:, None], rows, rows[:, [0, 2, 1]])


def see(features: np.ndarray, n_directions: int = 12) -> PartFeatures:
    return PartFeatures.of(features, np.arange(N_IMAGES), n_directions, is_standardised=False)


def map_features(features: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    unit = unit_vectors(features)
    return unit_vectors(unit + unit @ weights[0] @ weights[1])


def share_right(embeddings: np.ndarray, rows: np.ndarray) -> float:
    return float(np.mean(triplet_margins(embeddings, rows, "cosine") > 0))


@pytest.mark.parametrize("takes_all", [True, False])
@pytest.mark.parametrize("has_votes", [True, False])
@pytest.mark.parametrize("loss", MapSettings().variants)
def test_the_gradient_is_that_of_the_loss(loss, has_votes, takes_all, monkeypatch):
    monkeypatch.setattr(part_training, "_GATHERED_PAIRS", 1000 if takes_all else 0)
    features, rows = make_triplets()
    votes = np.random.default_rng(1).uniform(size=(len(rows), 2)) if has_votes else None
    seen = see(features, 7)
    problem = _MapProblem(seen, rows, votes)
    settings = MapSettings()
    rng = np.random.default_rng(2)
    at = np.eye(7).ravel() + 0.2 * rng.normal(size=49)
    value, gradient = problem.loss(at, loss, settings)
    # The value by its definition.
    embeddings = unit_vectors(
        seen.scaled + seen.reduced @ (at.reshape(7, 7) - np.eye(7)) @ seen.directions.T
    ).astype(np.float64)
    anchor, positive, negative = (embeddings[column] for column in rows.T)
    margins = np.sum(anchor * (positive - negative), axis=1) / problem.unit

    def miss(margins: np.ndarray) -> np.ndarray:
        if loss == "hinge":
            return np.maximum(1 - margins / settings.margin, 0)
        return np.log1p(np.exp(-margins / settings.temperature))

    each = miss(margins) if votes is None else votes[:, 0] * miss(margins)
    each = each if votes is None else each + votes[:, 1] * miss(-margins)
    held = settings.hold * np.sum((at - np.eye(7).ravel()) ** 2)
    assert value == pytest.approx(each.mean() + held, rel=1e-4)
    # The slope by finite differences, along directions of chance.
    for _ in range(5):
        along = rng.normal(size=49)
        ends = [problem.loss(at + step * along, loss, settings)[0] for step in (1e-6, -1e-6)]
        assert gradient @ along == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.02], ids=["wide", "narrow"])
def test_new_triplets_are_answered_better_however_small_the_margins_are(scale):
    features, rows = make_triplets(scale)
    before = share_right(features, rows[300:])
    for weights in train_map(see(features), rows[:300], MapSettings()):
        assert share_right(map_features(features, weights), rows[300:]) > before + 0.1


def test_what_lies_outside_the_directions_is_not_moved():
    features, rows = make_triplets()
    seen = see(features, 3)
    directions, step = train_map(seen, rows, MapSettings(("hinge",)))[0]
    outside = np.linalg.svd(seen.directions.T)[2][3:]
    np.testing.assert_allclose(outside @ directions, 0, atol=1e-5)
    np.testing.assert_allclose(step @ outside.T, 0, atol=1e-5)
    assert np.abs(step).max() > 0.01


def test_a_map_that_is_held_firmly_stays_the_features():
    features, rows = make_triplets()
    ((directions, step),) = train_map(see(features), rows, MapSettings(("hinge",), hold=1e6))
    np.testing.assert_allclose(directions @ step, 0, atol=1e-4)


def test_votes_against_a_triplet_turn_what_is_learned():
    features, rows = make_triplets()
    settings = MapSettings(("logistic",))
    turned = train_map(see(features), rows[:, [0, 2, 1]], settings, np.tile([0.0, 1.0], (400, 1)))
    straight = train_map(see(features), rows, settings, np.tile([1.0, 0.0], (400, 1)))
    np.testing.assert_allclose(turned[0][1], straight[0][1], atol=1e-3)


@pytest.mark.parametrize("features", [np.ones((N_IMAGES, 4), np.float32)])
def test_images_that_are_all_the_same_leave_the_map_finite(features):
    _, rows = make_triplets()
    for weights in train_map(see(features), rows, MapSettings()):
        assert np.isfinite(weights[1]).all()


def test_features_that_are_no_numbers_are_told():
    features, rows = make_triplets()
    seen = see(features)
    seen.scaled[rows[0, 0]] = np.nan
    with np.errstate(all="ignore"), pytest.raises(TripletkitError, match="finite features"):
        train_map(seen, rows, MapSettings())


def test_a_map_is_trained_and_answers_without_tensorflow(tmp_path):
    features, rows = make_triplets()
    names = [f"{number}.jpg" for number in range(N_IMAGES)]
    np.savez(tmp_path / "features.npz", names=names, features=features)
    lines = "".join(" ".join(names[image] for image in row) + "\n" for row in rows)
    (tmp_path / "train.txt").write_text(lines)
    code = (
        "import sys, tripletkit as tk\n"
        "model = tk.train('train.txt', features='features.npz', recipe='map', output='model')\n"
        "model = tk.load('model', features='features.npz')\n"
        "print(model.answer('train.txt').margins.mean() > 0)\n"
        "print('tensorflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]
