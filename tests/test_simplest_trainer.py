"""The recipe auto: few judgements leave the simplest, many take what is surely better."""

from __future__ import annotations

import numpy as np
import pytest
from plain import triplet_margins

from tripletkit.model.settings import Settings
from tripletkit.training.held_out import answer_held_out, choose, score_held_out
from tripletkit.training.parts_trainer import SimplestTrainer
from tripletkit.training.trainer import Examples

N_IMAGES = 120


def make_trainer(n_triplets: int, seed: int = 0, is_coin: bool = False) -> SimplestTrainer:
    """Return a trainer of frozen features and a map, on triplets that two numbers of ten tell."""
    rng = np.random.default_rng(seed)
    features = (4 + rng.normal(size=(N_IMAGES, 10))).astype(np.float32)
    rows = np.array([rng.permutation(N_IMAGES)[:3] for _ in range(n_triplets)])
    is_right = triplet_margins(features[:, :2], rows, "l2") > 0
    if is_coin:
        is_right = rng.random(n_triplets) < 0.5
    rows = np.where(is_right[:, None], rows, rows[:, [0, 2, 1]])
    examples, settings = Examples(features, rows), Settings.of_recipe("auto")
    return SimplestTrainer(examples, settings, ["frozen", "map"])


@pytest.mark.parametrize(("n_triplets", "taken"), [(120, "frozen"), (3000, "map")])
def test_the_simplest_that_cannot_be_told_from_the_best_is_taken(n_triplets, taken):
    trainer = make_trainer(n_triplets)
    held_out = answer_held_out(trainer)
    chosen = choose(trainer, held_out)
    pooled = score_held_out(held_out, chosen)
    assert [worth.name for worth in pooled.recipes if worth.is_taken] == [taken]
    assert min(worth.behind for worth in pooled.recipes) == 0
    head = "map" if taken == "map" else "cosine"
    assert [part.head for part in chosen.trainer.fit().parts] == [head]
    assert f"Taken: {taken}, the simplest" in str(pooled)


def test_without_draws_the_map_is_taken():
    trainer = make_trainer(60)
    assert [part.head for part in trainer.choose(None).trainer.fit().parts] == ["map"]


@pytest.mark.slow
def test_answers_of_a_coin_are_printed_as_such():
    printed = []
    for seed in range(20):
        trainer = make_trainer(400, seed, is_coin=True)
        held_out = answer_held_out(trainer)
        printed.append(score_held_out(held_out, choose(trainer, held_out)).trained.accuracy)
    error = np.std(printed, ddof=1) / np.sqrt(len(printed))
    assert abs(np.mean(printed) - 0.5) < 3 * error


def test_all_kinds_of_heads_are_there():
    trainer = make_trainer(60)
    whole = SimplestTrainer(trainer.examples, Settings.of_recipe("auto"))
    assert list(whole.trainers) == ["frozen", "map", "mlp", "residual"]
    answers = whole.answer(np.arange(40), trainer.examples.rows[40:])
    # A hinge and a logistic map, three numbers of steps of short embeddings.
    assert len(answers) == 1 + 2 + 3 + 1
