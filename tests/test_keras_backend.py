"""Keras runs on TensorFlow whoever calls the library, and nothing is set before it is needed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

import tripletkit
from tripletkit import TripletkitError
from tripletkit.features import keras_backend

PACKAGE = Path(tripletkit.__file__).parent
SLOW = {"keras", "tensorflow"}
DOOR = "features/keras_backend.py"

BUILD = """
import os, sys, tempfile
import tripletkit
before = os.environ.get("KERAS_BACKEND")
from tripletkit.model.heads import build_head
head = build_head(4, 3, 2, 0.5)
import keras
print(before, keras.config.backend(), head.output_shape)
print(tempfile.NamedTemporaryFile(delete=False).name)
"""
# Stands for Keras, which runs on what the variable says and takes seconds to load.
KERAS = """
import os
from types import SimpleNamespace
used = os.environ["KERAS_BACKEND"]
config = SimpleNamespace(backend=lambda: used)
KerasTensor = ops = None
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


@pytest.mark.slow
def test_keras_and_tensorflow_are_imported_through_one_door():
    importing = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if runtime_imports(ast.parse(path.read_text(encoding="utf-8"))) & SLOW
    ]
    assert importing == [DOOR]


class Built(NamedTuple):
    """A process that built a network by the library, and its folder of temporary files."""

    process: subprocess.CompletedProcess
    folder: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    home, folder = (tmp_path_factory.mktemp(name) for name in ("home", "temporary"))
    # Keras's own file says otherwise; it counts only where nobody sets the variable.
    (home / "keras.json").write_text(json.dumps({"backend": "jax"}))
    return Built(run(BUILD, KERAS_HOME=str(home), TMPDIR=str(folder)), folder)


@pytest.mark.integration
def test_the_library_chooses_tensorflow_where_nothing_is_said_of_a_backend(built):
    assert built.process.stdout.startswith("None tensorflow (None, 2)\n"), built.process.stderr
    assert built.process.stderr == ""


@pytest.mark.integration
def test_what_libraries_write_lands_in_the_private_folder(built):
    """TensorFlow leaves the code that it generates where its process is killed."""
    name = Path(built.process.stdout.splitlines()[-1])
    assert name.parent.parent == built.folder
    assert list(built.folder.iterdir()) == []


@pytest.mark.integration
def test_another_backend_is_refused_before_anything_slow():
    done = run(
        "from tripletkit.errors import MissingExtraError\n"
        "import sys\n"
        "try:\n"
        "    from tripletkit.model.heads import build_head\n"
        "except MissingExtraError as error:\n"
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
    with pytest.raises(TripletkitError, match="Keras was imported with torch"):
        keras_backend._start()


@pytest.mark.integration
def test_the_command_takes_tensorflow_whatever_other_programs_are_told(tmp_path):
    (tmp_path / "tensorflow.py").touch()
    (tmp_path / "keras.py").write_text(KERAS)
    paths = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    done = run(
        "import sys\n"
        "from tripletkit.__main__ import main\n"
        "sys.argv = ['tripletkit', 'losses', '--json']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "sys.stdout.flush()\n"
        "import tripletkit.features.keras_backend\n"
        "import keras\n"
        "print()\n"
        "print(keras.config.backend())\n",
        KERAS_BACKEND="jax",
        PYTHONPATH=os.pathsep.join(paths),
    )
    assert (done.stdout.splitlines()[-1], done.returncode) == ("tensorflow", 0), done.stderr
