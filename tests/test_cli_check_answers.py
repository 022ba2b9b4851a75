"""`tripletkit check-answers` as a script and as a person sees it."""

import json

import pytest


@pytest.mark.shared
def test_check_answers_of_the_sample_of_the_competition(tripletkit, shared):
    folder = shared / "food_triplets"
    given = (folder / "sample.txt", folder / "test_triplets.txt")
    found = json.loads(tripletkit("check-answers", *given, "--json", code=0).stdout)
    assert found["n"] == 59_544
    assert found["share_of_ones"] == pytest.approx(0.5, abs=0.002)
    assert found["consistency"]["n_mirrored"] == 136
    assert found["consistency"]["n_mirrored_broken"] > 60  # it answers them by chance
    assert found["n_knots"] > 1000
