"""Script, notebook and documentation must run as they stand, on fewer digits."""

from __future__ import annotations

import json
import re
import runpy
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import tripletkit as tk
from tripletkit import defaults

DOCS = Path(__file__).parents[1] / "docs" / "python.md"
EXAMPLES = Path(__file__).parents[1] / "examples"
MOST_LINES = 15


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store for all tests of this module, so that each image is seen once."""
    return tmp_path_factory.mktemp("digits_cache")


@pytest.fixture
def digits(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder `digits` in the working folder, with 84 images instead of 700."""
    main = runpy.run_path(str(EXAMPLES / "write_digits.py"))["main"]
    sizes = {"N_TRAIN": 60, "N_TEST": 24, "N_TRAIN_TRIPLETS": 600, "N_TEST_TRIPLETS": 150}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(defaults.CACHE_VARIABLE, str(shared_cache))
    # That it runs is what is asked, not how good its model is.
    monkeypatch.setattr(defaults, "MAX_EPOCHS", 3)
    for name, value in sizes.items():
        monkeypatch.setitem(main.__globals__, name, value)
    main(Path("digits"))
    plt.switch_backend("agg")
    with warnings.catch_warnings():
        # So few validation triplets say little.
        warnings.simplefilter("ignore", tk.TripletkitWarning)
        yield tmp_path / "digits"
    plt.close("all")


def code_cells() -> list[str]:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def count_lines(code: str) -> int:
    return sum(bool(line.strip()) for line in code.splitlines())


def test_both_are_short():
    script = (EXAMPLES / "python_api.py").read_text(encoding="utf-8").split('"""')[2]
    assert count_lines(script) <= MOST_LINES
    assert sum(map(count_lines, code_cells())) <= MOST_LINES


@pytest.mark.slow
def test_the_script_and_the_notebook_run(digits: Path, monkeypatch, capsys):
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["python_api.py", "digits"])
    found = runpy.run_path(str(EXAMPLES / "python_api.py"))
    from_script = (digits / "preds.csv").read_bytes()
    (digits / "preds.csv").unlink()
    assert (digits / "embeddings.png").stat().st_size > 5_000
    trained, frozen = capsys.readouterr().out.splitlines()
    assert trained == f"trained: {tk.score(found['answers'], 'digits/truth.csv')!r}"
    assert frozen.startswith("frozen: ")
    assert found["embeddings"].vectors.shape == (84, 10)

    plt.close("all")
    names: dict = {}
    for cell in code_cells():
        exec(cell, names)
    # The same seed and the same triplets: the same answers.
    assert (digits / "preds.csv").read_bytes() == from_script
    assert names["model"]._repr_html_().count("<img") == 6
    assert len(plt.gca().collections) == 1


@pytest.mark.slow
def test_the_blocks_of_the_documentation_run(digits: Path):
    text = DOCS.read_text(encoding="utf-8")
    pattern = r"(<!-- not run.*?-->\n)?^```python\n(.*?)^```$"
    found = re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE)
    blocks = [block for reason, block in found if not reason]
    assert len(blocks) >= 10
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert {file.name for file in digits.parent.iterdir()} >= {
        *("m1", "preds.csv", "answers.txt", "embeddings.parquet", "report.html")
    }
    assert set(names["search"].best_params_) == {"dim", "margin"}


def test_every_public_function_is_documented():
    text = DOCS.read_text(encoding="utf-8")
    functions = [name for name in tk.__all__ if name.islower()]
    named = [name for name in functions if f"tk.{name}" in text or f"`{name}`" in text]
    # Of two that read a file the other stands for both.
    assert set(functions) - set(named) <= {"read_answers", "read_truth"}
