"""Which slow modules commands load: each command runs in a fork of one process.

A process of its own for each would spend most of its time on the same imports, and in one process
for all of them each would see what those before it loaded.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import tiny_backbone as tiny


class Run(NamedTuple):
    """What a command ended with, what it said on stderr, and what of the watched it loaded."""

    code: int
    stderr: str
    loaded: list[str]


def run_watched(
    commands: Mapping[str, Sequence[object]],
    watched: Iterable[str],
    folder: Path,
    preloaded: Iterable[str] = (),
) -> dict[str, Run]:
    """Run commands one after the other in a folder, and know `--backbone tiny` if it has weights.

    Args:
        watched: modules; empty ones stand for them, so that even a test that fails is quick.
        preloaded: modules that several of the commands import, imported once.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs forks; what a command loads is the same on systems that have them")
    with tempfile.TemporaryDirectory() as empty_modules:
        for name in watched:
            Path(empty_modules, f"{name}.py").touch()
        paths = [empty_modules, *filter(None, [os.environ.get("PYTHONPATH")])]
        calls = {name: [str(word) for word in words] for name, words in commands.items()}
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps([calls, sorted(watched), list(preloaded)]),
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    return {name: Run(*told) for name, told in json.loads(done.stdout).items()}


def run_command(words: list[str]) -> int:
    """Run a command in this process, and return what it ended with; a traceback is on stderr."""
    from tripletkit.cli.main import tripletkit

    try:
        tripletkit(words, prog_name="tripletkit")
    except SystemExit as stop:
        return stop.code or 0
    except BaseException:
        traceback.print_exc()
    return 1


def _run(words: list[str], watched: list[str], said: int, loaded: int) -> NoReturn:
    """Run a command in a fork, and end it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said, 2)
    code = run_command(words)
    os.write(loaded, json.dumps(sorted({*watched} & {*sys.modules})).encode())
    # To take Python apart would touch, and so copy, all that the fork shares.
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(code)


def _main() -> None:
    if tiny.WEIGHTS_VARIABLE in os.environ:
        tiny.register()
    calls, watched, preloaded = json.load(sys.stdin)
    for name in ("tripletkit.cli.main", *preloaded):
        import_module(name)
    told = {}
    for name, words in calls.items():
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as loaded:
            if not (pid := os.fork()):
                _run(words, watched, said.fileno(), loaded.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            said.seek(0)
            loaded.seek(0)
            told[name] = Run(code, said.read(), json.loads(loaded.read() or "null"))
    print(json.dumps(told))


if __name__ == "__main__":
    _main()
