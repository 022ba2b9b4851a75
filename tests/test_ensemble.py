"""An ensemble: draws choose steps and weights of its parts, which are then trained on all."""

from __future__ import annotations

import numpy as np
import pytest

from tripletkit.data.splits.held_out_draws import draw_folds, plan_draws
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.training import held_out
from tripletkit.training.ensemble import train_parts, validate_candidates
from tripletkit.training.held_out import list_candidates, list_owners, margins_without


@pytest.fixture(autouse=True)
def short_trainings(monkeypatch):
    for name in ("MLP_PART", "RESIDUAL_PART"):
        settings = getattr(held_out, name)
        shorter = {"hidden": 16, "n_steps": tuple(steps // 10 for steps in settings.n_steps)}
        monkeypatch.setattr(held_out, name, held_out.replace(settings, **shorter))


def make_set(n_images=60, n_triplets=900):
    """Return features of five kinds of images, of which some columns tell, and their triplets."""
    rng = np.random.default_rng(0)
    kinds = np.arange(n_images) % 5
    features = rng.normal(size=(n_images, 24)).astype(np.float32)
    features[:, :5] += 2 * np.eye(5, dtype=np.float32)[kinds]
    rows = rng.integers(0, n_images, (20 * n_triplets, 3))
    is_triplet = (kinds[rows[:, 0]] == kinds[rows[:, 1]]) & (kinds[rows[:, 0]] != kinds[rows[:, 2]])
    return features, rows[is_triplet & (rows[:, 0] != rows[:, 1])][:n_triplets]


@pytest.mark.slow
def test_each_candidate_is_left_with_the_steps_that_were_best():
    features, rows = make_set()
    candidates = list_candidates({"net": slice(0, 24), "half": slice(0, 12)})
    plan = plan_draws(rows, len(features), None, features)
    trained, choice, pooled = validate_candidates(
        features, rows, candidates, draw_folds(rows, plan, 0), plan.by, 0, budget_s=1
    )
    assert [each.name for each in trained] == [each.name for each in candidates]
    assert [each.n_tried for each in trained] == [1] * 6
    for each, before in zip(trained, candidates, strict=True):
        if before.settings is not None:
            assert set(each.settings.n_steps) <= set(before.settings.n_steps)
    assert pooled.trained.accuracy > pooled.frozen.accuracy
    parts = train_parts(features, rows, trained, choice, 0)
    steps_of = {each.name: each.settings.usual_steps if each.settings else 0 for each in trained}
    assert all(part.part.n_steps == steps_of[part.part.name] for part in parts)


def test_margins_have_a_row_for_each_number_of_steps():
    features, rows = make_set()
    candidates = list_candidates({"net": slice(0, 24)})
    assert list_owners(candidates).tolist() == [0, 1, 2, 2, 2]
    margins = margins_without(features, rows[:600], rows[600:], candidates, 3)
    # Frozen features need no training, and fewer steps are those of a shorter training.
    scaled = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert np.corrcoef(margins[0], triplet_margins(scaled, rows[600:], "squared-l2"))[0, 1] > 0.8
    shorter = [candidates[0], candidates[1], candidates[2].after(0)]
    alone = margins_without(features, rows[:600], rows[600:], shorter, 3)
    np.testing.assert_array_equal(alone, margins[:3])
    assert not np.array_equal(margins[2], margins[4])
