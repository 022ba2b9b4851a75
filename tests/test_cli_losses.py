"""`tripletkit losses`: every loss that `train --loss` takes, with its paper."""

from __future__ import annotations

import json

from tripletkit.losses.loss_registry import LOSSES


def test_losses_lists_all_with_papers(tripletkit):
    result = tripletkit("losses")
    assert (result.exit_code, result.stderr) == (0, "")
    for loss in LOSSES.values():
        assert loss.paper in result.stdout
        assert loss.formula in result.stdout


def test_losses_as_json(tripletkit):
    rows = json.loads(tripletkit("losses", "--json").stdout)["losses"]
    assert [row["name"] for row in rows] == list(LOSSES)
    assert [row["name"] for row in rows if row["needs_labels"]] == [
        "cross-entropy",
        "center",
        "triplet+cross-entropy",
    ]
