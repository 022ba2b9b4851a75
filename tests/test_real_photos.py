"""Real photos and features of a real network: a few hundred are enough to learn from."""

import numpy as np
import pytest

import tripletkit as tk


@pytest.mark.shared
@pytest.mark.weights
@pytest.mark.slow
def test_triplets_are_learnt(shared):
    """A third of the training photos, and questions about 80 others."""
    place, truth = shared / "clothing", shared / "clothing" / "val_truth.csv"
    given = [
        tk.read_judgements(place / "train.txt"),
        tk.read_judgements(place / "val.txt", truth=truth),
    ]
    for part, chosen in enumerate((slice(None, None, 3), slice(80))):
        known, names = given[part].triplets, np.array(given[part].triplets.names)
        is_chosen = np.isin(names, np.sort(names)[chosen])[known.rows].all(axis=1)
        turned = given[part].turned().triplets.rows[is_chosen]
        given[part] = tk.Triplets.from_array(turned, known.names)
    fixed = {"backbone": "efficientnet-lite0", "epochs": 40}
    score = tk.train(given[0], place / "images", val=given[1], **fixed).validation.trained
    assert score.n > 100 and score.accuracy > 0.8
