"""An ensemble: draws choose steps and weights of its parts, which are then trained on all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plain import triplet_margins

from tripletkit.model.recipes import PART_HEADS
from tripletkit.model.settings import Settings
from tripletkit.training import parts_trainer
from tripletkit.training.held_out import answer_held_out, choose, score_held_out
from tripletkit.training.parts_trainer import PartsTrainer, list_owners
from tripletkit.training.trainer import Examples


@pytest.fixture(autouse=True)
def short_trainings(monkeypatch):
    for name in ("MLP_PART", "RESIDUAL_PART"):
        settings = getattr(parts_trainer, name)
        shorter = {"hidden": 16, "variants": tuple(steps // 10 for steps in settings.variants)}
        monkeypatch.setattr(parts_trainer, name, parts_trainer.replace(settings, **shorter))


def make_trainer(columns, n_images=150, n_triplets=3000):
    """Return a trainer on five kinds of images, of which some features tell."""
    rng = np.random.default_rng(0)
    kinds = np.arange(n_images) % 5
    features = rng.normal(size=(n_images, 24)).astype(np.float32)
    features[:, :5] += 2 * np.eye(5, dtype=np.float32)[kinds]
    rows = rng.integers(0, n_images, (20 * n_triplets, 3))
    is_triplet = (kinds[rows[:, 0]] == kinds[rows[:, 1]]) & (kinds[rows[:, 0]] != kinds[rows[:, 2]])
    rows = rows[is_triplet & (rows[:, 0] != rows[:, 1])][:n_triplets]
    return PartsTrainer(Examples(features, rows, columns=columns), Settings.of_recipe("best"))


@pytest.mark.slow
def test_each_candidate_is_left_with_the_steps_that_were_best():
    trainer = make_trainer(
        {"net": slice(0, 24), "half": slice(0, 12)}, n_images=150, n_triplets=3000
    )
    held_out = answer_held_out(trainer, budget_s=1)
    chosen = choose(trainer, held_out)
    candidates = chosen.trainer.candidates
    assert [each.name for each in candidates] == [each.name for each in trainer.candidates]
    assert [each.n_tried for each in candidates] == [1] * 7
    pooled = score_held_out(held_out, chosen)
    assert pooled.trained.accuracy > 0.6
    steps_of = {each.name: each.settings and each.settings.variants[0] for each in candidates}
    fitted = chosen.trainer.fit()
    assert all(part.n_steps in (0, steps_of[part.name]) for part in fitted.parts)
    assert fitted.history[0].val_accuracy == pytest.approx(pooled.trained.accuracy)


def test_a_short_embedding_of_all_features_is_beside_those_of_each_block():
    trainer = make_trainer({"net": slice(0, 12), "net:a": slice(12, 18), "net:b": slice(18, 24)})
    *of_blocks, last = trainer.candidates
    assert [each.name for each in of_blocks] == [
        f"net{depth}, {head}" for depth in ("", " early") for head in PART_HEADS
    ]
    assert (last.name, last.columns) == ("all features, mlp", slice(0, 24))


def test_margins_have_a_row_for_each_number_of_steps():
    trainer = make_trainer({"net": slice(0, 24)})
    features, rows = trainer.examples.features, trainer.examples.rows
    assert [each.head for each in trainer.candidates] == list(PART_HEADS)
    assert list_owners(trainer.candidates).tolist() == [0, 1, 1, 2, 2, 2]
    margins = trainer.answer(np.arange(600), rows[600:], 3)
    # Frozen features need no training, and fewer steps are those of a shorter training.
    scaled = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert np.corrcoef(margins[0], triplet_margins(scaled, rows[600:], "squared-l2"))[0, 1] > 0.8
    one_each = [each.after(0) for each in trainer.candidates]
    shorter = PartsTrainer(trainer.examples, trainer.settings, one_each)
    alone = shorter.answer(np.arange(600), rows[600:], 3)
    np.testing.assert_array_equal(alone, margins[[0, 1, 3]])
    assert not np.array_equal(margins[3], margins[5])


def test_without_draws_parts_weigh_alike_and_the_curve_is_of_one_that_is_trained():
    trainer = make_trainer({"net": slice(0, 24)})
    shifted = replace(trainer.examples, features=trainer.examples.features + 5)
    chosen = PartsTrainer(shifted, trainer.settings).choose(None)
    assert chosen.margins is None
    assert chosen.trainer.weights.weights == pytest.approx([1 / 3] * 3)
    # Margins of features that are not standardised are smaller, and weigh as much.
    of_raw, of_scaled = chosen.trainer.weights.distance_weights[[0, 2]]
    assert of_raw > of_scaled
    (strongest,) = chosen.trainer.for_curve().candidates
    assert strongest.settings is not None


def test_of_many_images_a_sample_is_looked_at_and_a_round_is_enough(monkeypatch):
    trainer = make_trainer({"net": slice(0, 24)}, n_images=60, n_triplets=300)
    few, whole = trainer.n_enough, trainer.choose(None).trainer.fit()
    monkeypatch.setattr(parts_trainer, "_MANY_IMAGES", 60)
    monkeypatch.setattr(parts_trainer, "_MOST_LOOKED_AT", 30)
    again = PartsTrainer(trainer.examples, trainer.settings)
    assert again.n_enough < few
    sampled = again.choose(None).trainer.fit()
    # The same heads; what is said of them is of fewer triplets.
    features = trainer.examples.features
    np.testing.assert_array_equal(*(fitted.head(features) for fitted in (whole, sampled)))
    assert whole.history[0].loss != sampled.history[0].loss
