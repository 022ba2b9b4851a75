"""`tripletkit.sweep`: settings on the same held-out draws, paired."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import tripletkit as tk
from tripletkit import defaults
from tripletkit.errors import SettingsError, WeightsError
from tripletkit.evaluation.pooled import PooledScore, compare_pooled
from tripletkit.training.held_out import answer_held_out


@pytest.fixture
def toy(tmp_path):
    """Sixty vectors whose first two numbers alone tell who is nearer."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 8)).astype(np.float32)
    names = [f"i{number:02}" for number in range(60)]
    np.savez(tmp_path / "features.npz", names=np.array(names), features=features)
    rows = np.array([rng.permutation(60)[:3] for _ in range(600)])
    near, far = (
        np.linalg.norm(features[rows[:, 0], :2] - features[rows[:, place], :2], axis=1)
        for place in (1, 2)
    )
    rows = np.where((near < far)[:, None], rows, rows[:, [0, 2, 1]])
    return {"triplets": rows, "names": names, "features": tmp_path / "features.npz"}


@pytest.mark.slow
def test_every_combination_is_scored_and_the_best_comes_first(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_DRAW_ROUNDS", 1)
    grid = {"epochs": [3], "dim": [1, 4]}
    table = tk.sweep(**toy, grid=grid, hidden=16, batch_size=64, cache=tmp_path / "cache")
    assert sorted(table["dim"]) == [1, 4]
    assert table["accuracy"].is_monotonic_decreasing
    assert table["behind"][0] == 0
    others = table[1:]
    assert (others["behind"] >= 0).all()
    # Paired on the same answers: the difference of two accuracies is theirs.
    assert others["behind"].to_numpy() == pytest.approx(
        table["accuracy"][0] - others["accuracy"].to_numpy()
    )
    assert (others["behind_low"] <= others["behind"]).all()
    assert (others["behind"] <= others["behind_high"]).all()


@pytest.mark.parametrize(
    ("grid", "field"),
    [
        ({}, "grid"),
        ({"dim": []}, "grid"),
        ({"loss": "triplet"}, "grid"),
        ({"dim": 5}, "grid"),
        ([{}], "grid"),
        ({"recipe": ["best"]}, "recipe"),
        ({"dim": [0]}, "dim"),
        ({"backbone": ["efficientnet-lite0"]}, "features"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anything_is_trained(toy, grid, field):
    with pytest.raises(tk.SettingsError) as caught:
        tk.sweep(**toy, grid=grid)
    assert caught.value.field == field


@pytest.fixture
def answers(monkeypatch):
    """What every combination answers, in the order of the grid."""
    found = []

    def note(*given, **options):
        found.append(answer_held_out(*given, **options))
        return found[-1]

    monkeypatch.setattr("tripletkit.training.run.answer_held_out", note)
    return found


def test_encoders_and_depths_answer_the_same_questions_from_features_of_their_own(
    toy_competition, other_backbone, answers
):
    grid = {"backbone": ["tiny", ["tiny", "tiny-other"]], "depth": ["last", "early"]}
    images = toy_competition.train, toy_competition.images
    compared = tk.sweep(*images, grid=grid, hidden=8, epochs=1)
    names = [*zip(compared["backbone"].map(str), compared["depth"], strict=True)]
    assert sorted(names) == [
        ("['tiny', 'tiny-other']", "early"),
        ("['tiny', 'tiny-other']", "last"),
        ("tiny", "early"),
        ("tiny", "last"),
    ]
    for one, other in combinations(answers, 2):
        assert (one.images == other.images).all()
        assert (one.frozen != other.frozen).any()


def test_seeds_answer_the_same_questions(toy, answers):
    tk.sweep(**toy, grid={"seed": [0, 1]}, hidden=8, epochs=1)
    one, other = answers
    assert (one.images == other.images).all()
    assert (one.margins != other.margins).any()


def test_weights_go_to_the_encoder_that_they_are_for(toy_competition, other_backbone, tmp_path):
    images = toy_competition.train, toy_competition.images
    grid = {"backbone": ["tiny", "tiny-other"]}
    with pytest.raises(SettingsError, match="expected a backbone among tiny, tiny-other"):
        tk.sweep(*images, grid=grid, weights={"resnet50": tmp_path / "w.h5"})
    with pytest.raises(WeightsError, match=r"w\.h5"):
        tk.sweep(*images, grid=grid, weights={"tiny-other": tmp_path / "w.h5"})


def test_pairing_narrows_the_interval_of_a_difference():
    rng = np.random.default_rng(1)
    images = np.array([rng.permutation(80)[:3] for _ in range(500)])
    draws = np.arange(500) % 6
    right = (rng.random(500) < 0.8).astype(float)
    # The other model errs on a few more.
    other = right * (rng.random(500) < 0.95)
    behind, interval = compare_pooled(right, other, images, draws)
    scores = [PooledScore.of(values, images, draws) for values in (right, other)]
    assert behind == pytest.approx(scores[0].accuracy - scores[1].accuracy)
    assert 0 < interval.low < behind < interval.high
    width = interval.high - interval.low
    assert width < min(score.interval.high - score.interval.low for score in scores)
    # Models that answer alike have none.
    assert compare_pooled(right, right, images, draws) == (0, None)
