"""What is said of a score that training did not earn, and what is not said of others."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from tripletkit import WeakScoreWarning
from tripletkit.evaluation.pooled import PooledScore, PooledValidation
from tripletkit.training.run import _warn_of_weak_draws


def pooled(n_right: int, n_frozen: int) -> PooledValidation:
    images, draws = np.arange(60).reshape(20, 3), np.arange(20) % 2
    trained, frozen = (
        PooledScore.of((np.arange(20) < n).astype(float), images, draws)
        for n in (n_right, n_frozen)
    )
    return PooledValidation(trained, frozen, n_draws=2, n_rounds=1, by="images", seconds_s=1.0)


@pytest.mark.parametrize(
    ("n_right", "of_map", "recipe", "said"),
    [
        (12, None, "mlp", ["(0.6000) are no better", "(0.7000)", "`recipe=auto`"]),
        (12, 15, "mlp", ["`recipe=map`"]),
        (12, 13, "mlp", ["`recipe=auto`"]),
        # What chooses by itself is advised no other.
        *((12, None, recipe, ["Try more triplets"]) for recipe in ("map", "auto", "best")),
        (15, None, "mlp", None),
        (14, None, "mlp", None),
    ],
)
def test_draws_without_a_gain_are_told_with_what_to_try(n_right, of_map, recipe, said) -> None:
    scores = pooled(n_right, 14)
    if of_map is not None:
        scores = replace(scores, map=pooled(of_map, 0).trained)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _warn_of_weak_draws(scores, recipe)
    assert [each.category for each in caught] == [WeakScoreWarning] * (said is not None)
    for part in said or ():
        assert part in str(caught[0].message)


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
