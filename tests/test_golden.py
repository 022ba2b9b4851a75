"""Command lines say and write what they did when tests/golden/ was recorded.

Words are compared exactly and numbers nearly, as other processors round otherwise; whoever changes
a text or a number on purpose runs `python tests/golden_outputs.py --update` and looks at the
difference. Between two states of the code on one machine, golden_outputs.py compares every bit.
"""

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import golden_outputs as golden
import pytest

NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?!\w)")
TOLERANCE = 0.02  # of a number, and for those below 1
KEPT = {
    case.name: "plain" if case.group == "collect" else case.group
    for case in golden.read_cases()
    if not golden.NOT_KEPT.fullmatch(case.name)
}
MARKS = {group: [pytest.mark.slow, pytest.mark.timeout(1200)] for group in ("model", "training")}

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks"),
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a folder with the outputs of a group of cases, recorded once."""
    folders: dict[str, Path] = {}

    def record(group: str) -> Path:
        if group not in folders:
            folder = tmp_path_factory.mktemp(group)
            paths = [str(golden.GOLDEN.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
            done = subprocess.run(
                [sys.executable, golden.__file__, str(folder), "--group", group],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            folders[group] = folder
        return folders[group]

    return record


def settle(line: str, expected: str) -> str:
    """Return the expected line for one that has the same words and nearly the same numbers."""
    if " ".join(NUMBER.sub("#", line).split()) != " ".join(NUMBER.sub("#", expected).split()):
        return line
    pairs = zip(NUMBER.findall(line), NUMBER.findall(expected), strict=True)
    for value, wanted in ([float(each.replace(",", "")) for each in pair] for pair in pairs):
        if abs(value - wanted) > TOLERANCE * max(1, abs(wanted)):
            return line
    return expected


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=MARKS.get(group, [])) for name, group in KEPT.items()],
)
def test_an_output_is_as_it_was(name: str, outputs: Callable[[str], Path]) -> None:
    said = golden.shorten((outputs(KEPT[name]) / f"{name}.txt").read_text(encoding="utf-8"))
    expected = (golden.GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    lines = said.splitlines()
    if len(lines) == len(expected):
        lines = [settle(line, wanted) for line, wanted in zip(lines, expected, strict=True)]
    found = list(difflib.unified_diff(expected, lines, "recorded", "said now", "", "", 1, ""))
    assert not found, "\n".join([*found, "on purpose? python tests/golden_outputs.py --update"])


def test_nothing_is_kept_of_what_is_gone() -> None:
    assert {path.stem for path in golden.GOLDEN.iterdir()} == set(KEPT)
