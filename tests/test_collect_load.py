"""Many judges at once while a model is trained: every answer is there once, and pages are quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))


@pytest.mark.slow
@pytest.mark.integration
def test_twenty_judges_at_once(toy_competition, capsys):
    pytest.importorskip("flask")
    from collect_load_benchmark import measure

    is_quiet = os.getloadavg()[0] < 1
    found = np.concatenate(list(measure(toy_competition.images, 20, 4).values()))
    # Each of the answers is in the database once, or `measure` had raised.
    assert "80 answers" in capsys.readouterr().out
    # Times of a machine that does other things say nothing of the pages.
    assert np.percentile(found, 95) < (100 if is_quiet else 5000)
