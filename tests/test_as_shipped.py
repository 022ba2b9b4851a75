"""Each main recipe trained, asked and scored with the defaults that ship."""

import json

import pytest
from conftest import read_record

from tripletkit import defaults


@pytest.mark.slow
@pytest.mark.as_shipped
@pytest.mark.parametrize("recipe", ["mlp", "residual", "map", "auto", "best"])
def test_a_recipe_learns_what_its_judgements_say(
    recipe, toy_competition, tiny_backbone, tripletkit, tmp_path
):
    model, answers = tmp_path / "m", tmp_path / "answers.csv"
    given = ("train", toy_competition.train, toy_competition.images, "-o", model)
    tripletkit(*given, "--backbone", "tiny", "--recipe", recipe, code=0)
    record = read_record(model)
    pooled, unseen = record["pooled"], record["unseen_classes"]
    assert pooled["n_rounds"] == defaults.MAX_DRAW_ROUNDS > 1
    for held_out in (pooled, unseen):
        assert held_out["trained"]["accuracy"] > 0.75
    tripletkit("predict", toy_competition.test, "--model", model, "-o", answers, code=0)
    scored = tripletkit("score", answers, toy_competition.truth, "--json", code=0)
    accuracy = json.loads(scored.stdout)["accuracy"]
    assert accuracy > 0.85
    low, high = pooled["trained"]["of_test"] or (0, 1)
    assert low - 0.1 <= accuracy <= high + 0.1
