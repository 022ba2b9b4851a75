"""Imports walk one way, and what is slow is imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tripletkit

PACKAGE = Path(tripletkit.__file__).parent
# A room may import from those before it, never from those after it. Training measures itself by
# the very margins that answers are made of, so `evaluation` comes before `model`.
ROOMS = "errors defaults registry data features evaluation model search report cli".split()
SLOW = {"tensorflow", "keras"}
MAY_IMPORT_SLOW = ("features", "model")
# Without pictures there is nothing to compute, so these never wait for TensorFlow.
QUICK = [
    ["--help"],
    ["score", "answers.txt"],
    ["audit", "triplets.txt"],
    ["split", "triplets.txt", "-o", "parts", "--by", "component"],
    ["compare", "answers.txt", "other.txt", "truth.txt"],
    ["controls", "triplets.txt", "triplets.txt"],
    ["check-answers", "answers.txt", "triplets.txt"],
    ["backbones"],
    ["cache", "info"],
]

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Yield the module of every import in a file, but for those that only types need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for_types.update(id(below) for below in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_walk_one_way(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "tripletkit" or len(parts) == 1:
            continue
        assert ROOMS.index(parts[1]) <= ROOMS.index(room), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_tensorflow_is_imported_only_where_it_is_used(path):
    if room_of(path) not in MAY_IMPORT_SLOW:
        assert not SLOW & {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_below_the_command_line_nothing_talks_or_exits(path):
    if room_of(path) in ("cli", "__main__"):
        return
    assert "click" not in {module.split(".")[0] for module in imports(path)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "input", "exit", "quit", "sys.exit"}, f"{path}: {called}"
        assert not (isinstance(node, ast.Name) and node.id == "SystemExit"), path


@pytest.mark.parametrize("arguments", QUICK, ids=lambda arguments: arguments[0])
def test_quick_commands_never_load_tensorflow(arguments, tmp_path):
    (tmp_path / "triplets.txt").write_text("".join(f"a{n} b{n} c{n}\n" for n in range(10)))
    for name in ("answers.txt", "other.txt", "truth.txt"):
        (tmp_path / name).write_text("1\n0\n" * 5)
    script = (
        "import sys\n"
        "from tripletkit.cli.main import tripletkit\n"
        "try:\n"
        "    tripletkit(sys.argv[1:], prog_name='tripletkit')\n"
        "finally:\n"
        "    slow = {'tensorflow', 'keras', 'torch'} & set(sys.modules)\n"
        "    print(sorted(slow), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_loads_no_arrays():
    script = (
        "import sys; import tripletkit.cli.main\n"
        "print(sorted({'numpy', 'pandas', 'scipy', 'PIL', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_every_room_is_known():
    rooms = {room_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms <= set(ROOMS)
