"""What is said of a score that training did not earn, and what is not said of others."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from tripletkit import WeakScoreWarning
from tripletkit.evaluation.pooled import PooledValidation, score_pooled
from tripletkit.training.run import _warn_of_weak_draws


def pooled(n_right: int, n_frozen: int) -> PooledValidation:
    images, draws = np.arange(60).reshape(20, 3), np.arange(20) % 2
    trained, frozen = (
        score_pooled((np.arange(20) < n).astype(float), images, draws) for n in (n_right, n_frozen)
    )
    return PooledValidation(trained, frozen, n_draws=2, n_rounds=1, by="images", seconds_s=1.0)


def test_draws_without_a_gain_are_told_with_what_to_try() -> None:
    with pytest.warns(WeakScoreWarning, match=r"\(0\.6000\) are no better .* \(0\.7000\)") as said:
        _warn_of_weak_draws(pooled(12, 14), "mlp")
    assert "`recipe=auto`" in str(said[0].message)


def test_a_map_is_advised_where_it_is_ahead_of_the_frozen_features() -> None:
    scores = pooled(12, 14)
    for of_map, advised in ((15, "`recipe=map`"), (13, "`recipe=auto`")):
        with pytest.warns(WeakScoreWarning) as said:
            _warn_of_weak_draws(replace(scores, map=pooled(of_map, 0).trained), "mlp")
        assert advised in str(said[0].message)


@pytest.mark.parametrize("recipe", ["map", "auto", "best"])
def test_what_chooses_by_itself_is_advised_no_other_recipe(recipe: str) -> None:
    with pytest.warns(WeakScoreWarning) as said:
        _warn_of_weak_draws(pooled(12, 14), recipe)
    assert "recipe" not in str(said[0].message)


def test_a_gain_and_equal_scores_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_of_weak_draws(pooled(15, 14), "mlp")
        _warn_of_weak_draws(pooled(14, 14), "mlp")


@pytest.fixture
def shuffled(toy_competition, tmp_path):
    """Triplets whose answers are noise."""
    lines = [line.split() for line in toy_competition.train.read_text().splitlines()]
    path = tmp_path / "shuffled.txt"
    path.write_text("".join(f"{a} {b} {c}\n" if n % 2 else f"{a} {c} {b}\n"
                            for n, (a, b, c) in enumerate(lines)))  # fmt: skip
    return path


@pytest.mark.slow
def test_train_says_when_held_out_draws_show_no_gain(
    tripletkit, tiny_backbone, toy_competition, tmp_path, shuffled
):
    arguments = ["train", shuffled, toy_competition.images, "--backbone", "tiny", "--epochs", 1]
    arguments += ["--budget", "1s", "--json", "-o", tmp_path / "m"]
    result = tripletkit(*arguments, code=0)
    assert "Training without a third of the images, again and again" in result.stderr
    draws = json.loads(result.stdout)["pooled"]
    is_worse = draws["trained"]["accuracy"] < draws["frozen"]["accuracy"]
    assert ("no better than the frozen features" in result.stderr) == is_worse


@pytest.mark.slow
def test_chance_order_is_not_suspected_of_a_split_of_ones_own(
    tripletkit, tiny_backbone, toy_competition, tmp_path, shuffled
):
    arguments = ["train", shuffled, toy_competition.images, "--backbone", "tiny", "--epochs", 1]
    kept_apart = [*arguments, "--no-refit", "-o", tmp_path / "m1"]
    result = tripletkit(*kept_apart, code=0)
    assert "chance order" not in result.stderr
    file = [*arguments, "--val", shuffled, "-o", tmp_path / "m2"]
    result = tripletkit(*file)
    assert "stand in chance order" in result.stderr
