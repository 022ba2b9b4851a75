"""Imports walk one way, and what is slow is imported late."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from forked_commands import run_watched

import tripletkit

PACKAGE = Path(tripletkit.__file__).parent
# A room may import from those before it, never from those after it, not even for types. Training
# measures itself by the very margins that answers are made of, so `evaluation` comes before it.
ROOMS = (
    "errors defaults progress registry results data features evaluation losses model search "
    "training collecting reporting api cli"
).split()
SLOW = {"tensorflow", "keras"}
MAY_IMPORT_SLOW = ("features", "losses", "model", "training")
# Without images there is nothing to compute, so these never wait for TensorFlow.
QUICK = (
    "--help",
    "score answers.txt",
    "score predictions.csv truth.txt",
    "audit triplets.txt",
    "split triplets.txt -o parts --by component",
    "compare answers.txt other.txt truth.txt",
    "compare predictions.csv other.txt truth.txt",
    "controls triplets.txt triplets.txt",
    "check-answers answers.txt triplets.txt",
    "check-answers predictions.csv triplets.txt",
    "backbones",
    "cache info",
)

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(tree):
    """Return the module of every import, those that only types need among them."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


IMPORTS = {name: imports(tree) for name, tree in TREES.items()}
OURS = {name: (found & set(MODULES)) - {"tripletkit"} for name, found in IMPORTS.items()}


def room_of(module):
    """Return the room of a module; the package itself and `python -m` stand above all."""
    return module.split(".")[1] if "." in module else None


def test_every_room_is_known():
    assert {room_of(name) for name in MODULES} - {None, "__main__"} <= set(ROOMS)


def test_imports_walk_one_way():
    against = [
        f"{name} imports {other}"
        for name, others in OURS.items()
        if room_of(name) in ROOMS
        for other in others
        if ROOMS.index(room_of(other)) > ROOMS.index(room_of(name))
    ]
    assert against == []


def test_no_modules_import_each_other():
    order = graphlib.TopologicalSorter(OURS)
    order.prepare()  # raises CycleError, which names the modules of a circle
    assert order.is_active()


def test_tensorflow_is_imported_only_where_it_is_used():
    assert [
        name
        for name, found in IMPORTS.items()
        if room_of(name) not in MAY_IMPORT_SLOW and SLOW & {each.split(".")[0] for each in found}
    ] == []


BELOW = {name: tree for name, tree in TREES.items() if room_of(name) in ROOMS[:-1]}


@pytest.mark.slow
def test_below_the_command_line_nothing_talks_or_exits():
    talking = []
    for name, tree in BELOW.items():
        if "click" in {each.split(".")[0] for each in IMPORTS[name]}:
            talking.append(f"{name} imports click")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in {"print", "input", "exit", "quit", "sys.exit"}:
                    talking.append(f"{name} calls {called}")
            if isinstance(node, ast.Name) and node.id == "SystemExit":
                talking.append(f"{name} names SystemExit")
    assert talking == []


@pytest.mark.slow
def test_below_the_command_line_no_flag_is_named():
    """A flag in a message is of no use to who calls the library from Python."""
    naming = [
        f"{name}:{node.lineno} says {node.value[:60]!r}"
        for name, tree in BELOW.items()
        for node in strings(tree)
        if re.search(r"(?<![\w-])--[a-z]", node.value)
    ]
    assert naming == []


def strings(tree):
    """Yield the text constants of a module, but for its docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node


def test_no_name_of_a_module_or_a_class_stands_twice():
    """A name means one thing; commands are named as what they call."""
    modules = [
        name.rpartition(".")[2] for name in MODULES if room_of(name) in ROOMS and ".cli" not in name
    ]
    classes = [
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    for names in (modules, classes):
        assert {name for name in names if names.count(name) > 1} == set()


def test_the_package_is_no_larger_than_planned():
    """Counts that only go down; see the size that the design promises."""
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: n for name, n in lengths.items() if n > 800} == {}
    assert len(MODULES) <= 145
    assert sum(lengths.values()) <= 37_000
    rooms = Counter()
    for name, path in MODULES.items():
        rooms[path.parent] += lengths[name]
    assert max(rooms.values()) <= 6_000


def test_few_names_look_public():
    """What only its own module uses begins with `_`, and what nobody uses goes."""
    public = [
        f"{name}.{found.id if isinstance(found, ast.Name) else found.name}"
        for name, tree in TREES.items()
        for node in tree.body
        for found in named_by(node)
    ]
    assert len([name for name in public if "._" not in name]) <= 780


def named_by(node):
    """Return what a statement of a module defines: a function, a class, or names of values."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    each = (found for target in targets if target is not None for found in ast.walk(target))
    return [found for found in each if isinstance(found, ast.Name)]


@pytest.fixture(scope="module")
def quick_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    rows = [f"a{n} b{n} c{n}" for n in range(10)]
    (folder / "triplets.txt").write_text("".join(f"{row}\n" for row in rows))
    for name in ("answers.txt", "other.txt", "truth.txt"):
        (folder / name).write_text("1\n0\n" * 5)
    predictions = [f"{row.replace(' ', ',')},1,0.5\n" for row in rows]
    (folder / "predictions.csv").write_text("a,b,c,prediction,margin\n" + "".join(predictions))
    commands = {words: words.split() for words in QUICK}
    return run_watched(
        commands, {"tensorflow", "keras", "torch"}, folder, ["pandas", "scipy.stats"]
    )


@pytest.mark.integration
@pytest.mark.parametrize("words", QUICK)
def test_quick_commands_never_load_tensorflow(quick_runs, words):
    assert quick_runs[words].code == 0, quick_runs[words].stderr
    assert quick_runs[words].loaded == []


@pytest.mark.integration
def test_help_loads_no_arrays():
    script = "import sys, tripletkit.cli.main; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60).split()
    assert not {"numpy", "pandas", "scipy", "PIL", "sqlite3"} & set(loaded)
