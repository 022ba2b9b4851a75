"""Keras runs on TensorFlow whoever calls the library, and nothing is set before it is needed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import tripletkit
from tripletkit.errors import KerasBackendError
from tripletkit.features.keras_start import start_keras

PACKAGE = Path(tripletkit.__file__).parent
SLOW = {"keras", "tensorflow"}
DOOR = "features/keras_backend.py"

BUILD = """
import os, sys
import tripletkit
before = os.environ.get("KERAS_BACKEND")
from tripletkit.model.heads import build_head
head = build_head(4, 3, 2, 0.5)
import keras
print(before, keras.config.backend(), head.output_shape)
"""


def runtime_imports(tree: ast.Module) -> set[str]:
    """Return the top-level packages that a module imports when it runs."""
    found = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
        waiting += ast.iter_child_nodes(node)
    return found


def run(script: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_keras_and_tensorflow_are_imported_through_one_door():
    importing = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if runtime_imports(ast.parse(path.read_text(encoding="utf-8"))) & SLOW
    ]
    assert importing == [DOOR]


@pytest.mark.integration
def test_the_library_chooses_tensorflow_where_nothing_is_said_of_a_backend(tmp_path):
    # Keras's own file says otherwise; it counts only where nobody sets the variable.
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    done = run(BUILD, KERAS_HOME=str(tmp_path))
    assert done.stdout == "None tensorflow (None, 2)\n", done.stderr
    assert done.stderr == ""


@pytest.mark.integration
def test_another_backend_is_refused_before_anything_slow():
    done = run(
        "from tripletkit.errors import KerasBackendError\n"
        "import sys\n"
        "try:\n"
        "    from tripletkit.model.heads import build_head\n"
        "except KerasBackendError as error:\n"
        "    print(error)\n"
        "print(sorted({'keras', 'tensorflow', 'jax'} & set(sys.modules)))\n",
        KERAS_BACKEND="jax",
    )
    assert "the environment variable KERAS_BACKEND says jax. Set KERAS_BACKEND=tensorflow" in (
        done.stdout
    )
    assert done.stdout.endswith("[]\n")


def test_a_keras_that_was_imported_with_another_backend_is_refused(monkeypatch):
    # Stands for Keras on PyTorch, which is not installed for tests.
    other = SimpleNamespace(config=SimpleNamespace(backend=lambda: "torch"))
    monkeypatch.setitem(sys.modules, "keras", other)
    with pytest.raises(KerasBackendError, match="Keras was imported with torch"):
        start_keras()


@pytest.mark.integration
def test_the_command_takes_tensorflow_whatever_other_programs_are_told():
    done = run(
        "import sys\n"
        "from tripletkit.__main__ import main\n"
        "sys.argv = ['tripletkit', 'losses', '--json']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "sys.stdout.flush()\n"
        "from tripletkit.features.keras_start import start_keras\n"
        "start_keras()\n"
        "import keras\n"
        "print()\n"
        "print(keras.config.backend())\n",
        KERAS_BACKEND="jax",
    )
    assert (done.stdout.splitlines()[-1], done.returncode) == ("tensorflow", 0), done.stderr
