"""The pages of docs/ name what there is, link to what there is, and their blocks run."""

import json
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import matplotlib.pyplot as plt
import pytest
from conftest import command_line as tripletkit
from conftest import run_command, walk_commands

import tripletkit as tk
from tripletkit import defaults
from tripletkit.features.backbones import BACKBONES
from tripletkit.losses.loss_registry import LOSSES
from tripletkit.model.recipes import RECIPES

TOP = Path(__file__).parents[1]
DOCS = TOP / "docs"
EXAMPLES = TOP / "examples"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "SECURITY.md", *PAGES]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<kind>console|python)\n(?P<code>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)


def blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


def runnable(page: Path) -> list[tuple[str, str]]:
    """Return (kind, code) of the blocks of a page that are run, in order."""
    return [(found["kind"], found["code"]) for found in blocks(page) if not found["reason"]]


def test_every_public_name_is_on_the_page_of_python():
    text = (DOCS / "python_reference.md").read_text(encoding="utf-8")
    named = re.findall(
        r"auto(?:class|function|module):: tripletkit\.(\w+)$", text, flags=re.MULTILINE
    )
    assert sorted(named) == sorted(tk.__all__)


@pytest.mark.parametrize("page", TEXTS[:3], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Sphinx looks at those of the other pages."""
    for target in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
        assert re.match(r"(https?|mailto):", target) or (TOP / unquote(target)).exists(), target


def test_every_command_is_in_the_table_of_the_readme():
    table = (TOP / "README.md").read_text(encoding="utf-8").partition("## Commands")[2]
    assert [name for name in tripletkit.commands if f"`{name}`" not in table] == []


def test_the_readme_fits_a_screen():
    assert len((TOP / "README.md").read_bytes()) <= 8_000


def flags_of(*commands: click.Command) -> set[str]:
    params = [param for command in commands for param in command.params]
    return {"-h", "--help"}.union(*({*param.opts, *param.secondary_opts} for param in params))


def shell_lines(code: str) -> list[str]:
    joined = code.replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_commands_on_pages_exist(page):
    """Also in blocks that are not run: commands and flags that there are, whatever they do."""
    of_shell = [found["code"] for found in blocks(page) if found["kind"] == "console"]
    for line in (line for code in of_shell for line in shell_lines(code)):
        program, *words = shlex.split(line, comments=True) or [""]
        if program != "tripletkit":
            continue
        command: click.Command = tripletkit
        while isinstance(command, click.Group):
            assert words and words[0] in command.commands, f"{page}: {words}"
            command, words = command.commands[words[0]], words[1:]
        flags = {word.partition("=")[0] for word in words if re.match("-.", word)}
        assert flags <= flags_of(command, tripletkit), line


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_flags_in_the_text_of_pages_exist(page):
    known = flags_of(*(command for _, command in walk_commands()))
    known |= {"--clean", "--errors", "--only"}  # of scripts in examples/
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    code = re.findall(r"`([^`\n]+)`", text)
    others = ("pip ", "python ", "bash ", "tensorboard ")
    ours = [part for part in code if not part.startswith(others)]
    flags = {flag for part in ours for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", part)}
    assert sorted(flags - known) == []


@pytest.fixture
def desk(tmp_path: Path, cache_dirs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with images/, train.txt, test.txt, truth.csv and labels.csv.

    It is its own folder `digits`, too, as Python's page and examples call it.
    """
    main = runpy.run_path(str(EXAMPLES / "write_digits.py"))["main"]
    sizes = {"N_TRAIN": 60, "N_TEST": 40, "N_TRAIN_TRIPLETS": 600, "N_TEST_TRIPLETS": 150}
    for name, value in sizes.items():
        monkeypatch.setitem(main.__globals__, name, value)
    # That a block runs is what is asked, not how good its model is.
    monkeypatch.setattr(defaults, "POOLED_TRIPLETS", 1)
    monkeypatch.setattr(defaults, "MAX_EPOCHS", 3)
    main(tmp_path)
    (tmp_path / "digits").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    # One feature store for all pages, so that each image is seen once.
    monkeypatch.setenv(defaults.CACHE_VARIABLE, str(cache_dirs / "pages"))
    before = [(registry, dict(registry)) for registry in (LOSSES, RECIPES, BACKBONES)]
    yield tmp_path
    # What a page registers is gone after it.
    for registry, records in before:
        registry.clear()
        registry.update(records)


def test_extending_needs_public_names_alone():
    code = "\n".join(text for kind, text in runnable(DOCS / "extend.md") if kind == "python")
    assert set(re.findall(r"tripletkit[\w.]*(?: import .*)?", code)) == {"tripletkit"}
    used = set(re.findall(r"\btk\.(\w+)", code))
    assert used <= set(tk.__all__)
    assert {"register_loss", "register_recipe", "register_backbone"} <= used


RUN = [page for page in PAGES if runnable(page)]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_blocks_of_the_page_run(page, desk):
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        # So few triplets say little.
        warnings.simplefilter("ignore", tk.TripletkitWarning)
        for kind, code in runnable(page):
            if kind == "python":
                exec(code, names)
                continue
            for line in shell_lines(code):
                run_line(line)
    if page.name == "python.md":
        written = ("m1", "preds.csv", "answers.txt", "embeddings.parquet", "report.html")
        assert all(Path(name).exists() for name in written)
        assert len(names["search"].best_params_) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")
def test_the_python_of_the_readme_runs(desk):
    (code,) = [text for kind, text in runnable(TOP / "README.md") if kind == "python"]
    # Without a try to download weights.
    exec(code.replace('"images/")', '"images/", backbone="efficientnet-lite0")', 1), {})
    assert Path("m1", "model.json").exists()


def code_cells() -> list[str]:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_page_of_the_notebook_has_its_cells():
    text = (DOCS / "notebook.md").read_text(encoding="utf-8")
    shown = [found["code"].rstrip("\n") for found in blocks(DOCS / "notebook.md")]
    cells = [code.rstrip(";") for code in code_cells()]
    assert shown == cells, "python examples/gallery.py writes the page anew"
    assert text.count('<div class="result">') == 3 and "images/notebook-5.png" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")
def test_the_script_and_the_notebook_run(desk, monkeypatch, capsys):
    plt.switch_backend("agg")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["python_api.py", "digits"])
    found = runpy.run_path(str(EXAMPLES / "python_api.py"))
    from_script = (desk / "preds.csv").read_bytes()
    (desk / "preds.csv").unlink()
    assert (desk / "embeddings.png").stat().st_size > 5_000
    trained, frozen = capsys.readouterr().out.splitlines()
    assert trained == f"trained: {tk.score(found['answers'], 'digits/truth.csv')!r}"
    assert frozen.startswith("frozen: ")
    assert found["embeddings"].vectors.shape == (100, 10)
    plt.close("all")
    names: dict = {}
    for cell in code_cells():
        exec(cell, names)
    # The same seed and the same triplets: the same answers.
    assert (desk / "preds.csv").read_bytes() == from_script
    assert names["model"]._repr_html_().count("<img") == 6
    assert len(plt.gca().collections) == 1
    plt.close("all")


def test_every_public_function_is_documented():
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    functions = [name for name in tk.__all__ if name.islower()]
    named = [name for name in functions if f"tk.{name}" in text or f"`{name}`" in text]
    # Of two that read a file the other stands for both.
    assert set(functions) - set(named) <= {"read_answers", "read_truth"}


def run_line(line: str) -> None:
    """Run a line of a shell: tripletkit in this process, anything else in one of its own."""
    words = shlex.split(line, comments=True)
    if words[0] != "tripletkit":
        python = [sys.executable, *words[1:]] if words[0] == "python" else None
        done = subprocess.run(python or ["bash", "-c", line], capture_output=True, timeout=120)
        assert done.returncode == 0, (line, done.stderr)
        return
    output = None
    if ">" in words:
        at = words.index(">")
        output, words = words[at + 1], words[:at]
    result = run_command(*words[1:], prog_name="tripletkit", code=0)
    if output is not None:
        Path(output).write_bytes(result.stdout_bytes)
