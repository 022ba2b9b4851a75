"""Keras runs on TensorFlow whoever calls the library, and nothing is set before it is needed."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import tripletkit
from tripletkit import TripletkitError
from tripletkit.features import keras_backend

PACKAGE = Path(tripletkit.__file__).parent

BUILD = """
import os, sys, tempfile
import tripletkit
before = os.environ.get("KERAS_BACKEND")
from tripletkit.model.heads import build_body
from tripletkit.model.settings import Settings
head = build_body(4, Settings(hidden=3, dim=2))
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
def test_keras_and_tensorflow_are_imported_through_one_module():
    """Anywhere else only for types, or later than that module."""
    importing = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and re.match(r"(from|import) (keras|tensorflow)\b", ast.unparse(node))
    }
    assert importing == {"keras_backend.py"}


@pytest.mark.integration
def test_the_library_chooses_tensorflow_where_nothing_is_said_of_a_backend(tmp_path):
    home, folder = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    folder.mkdir()
    # Keras's own file says otherwise; it counts only where nobody sets the variable.
    (home / "keras.json").write_text(json.dumps({"backend": "jax"}))
    done = run(BUILD, KERAS_HOME=str(home), TMPDIR=str(folder))
    assert done.stdout.startswith("None tensorflow (None, 2)\n"), done.stderr
    assert done.stderr == ""
    # TensorFlow leaves the code that it generates where its process is killed.
    name = Path(done.stdout.splitlines()[-1])
    assert name.parent.parent == folder
    assert list(folder.iterdir()) == []


@pytest.mark.integration
def test_another_backend_is_refused_before_anything_slow():
    done = run(
        "from tripletkit.errors import MissingExtraError\n"
        "import sys\n"
        "try:\n"
        "    from tripletkit.model.heads import build_body\n"
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
