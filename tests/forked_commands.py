"""Commands in forks of one process that has imported what they need.

A process of its own spends seconds on imports: too long for tests that kill a command often, or
that look at what each of many commands loads. Run as a script it takes a line of JSON for each
command, the words of its call, and answers with the process id, and its exit code when it is over.
What the last of them said on stderr, and what it had loaded, is in two files.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import tiny_backbone as tiny

# Imported late, and by nearly every command.
_LATE = (
    "h5py pandas pyarrow.parquet sklearn.decomposition scipy.stats faiss "
    "matplotlib.figure matplotlib.backends.backend_svg jinja2"
).split()


class PreloadedCommand:
    """The process that forks; `start` gives it one command after the other.

    `errors` gets what the last command said on stderr, `prefix` is a call that runs the process
    with fewer rights, and `modules` (by default everything) are imported once.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        errors: Path,
        prefix: Sequence[str] = (),
        modules: Iterable[str] | None = None,
    ) -> None:
        self.errors = errors
        words = [__file__, str(errors), "everything" if modules is None else json.dumps([*modules])]
        self._process = subprocess.Popen(
            [*prefix, sys.executable, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid
        self._read()

    def start(self, words: Sequence[str]) -> int:
        """Start a command and return its process id."""
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def wait(self, timeout_s: float) -> int | None:
        """Return the command's exit code, or None if it still runs after that time."""
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return int(self._read()) if ready else None

    def loaded(self) -> set[str]:
        """Return the modules that the last command had in the end."""
        return set(json.loads(self.errors.with_suffix(".loaded").read_text()))

    def close(self) -> None:
        self._process.communicate(timeout=240)

    def _read(self) -> str:
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("the process that forks has ended")
        return line


class Run(NamedTuple):
    """What a command ended with, what it said on stderr, and what of the watched it loaded."""

    code: int | None
    stderr: str
    loaded: list[str]


def run_watched(
    commands: Mapping[str, Sequence[object]],
    watched: set[str],
    folder: Path,
    preloaded: Iterable[str] = (),
) -> dict[str, Run]:
    """Run commands one after the other in a folder, and know `--backbone tiny` if it has weights.

    Empty modules stand for those that are watched, so that even a test that fails is quick.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs forks; what a command loads is the same on systems that have them")
    runs = {}
    with tempfile.TemporaryDirectory() as empty:
        for name in watched:
            Path(empty, f"{name}.py").touch()
        paths = [empty, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        process = PreloadedCommand(
            folder, environment, Path(empty, "stderr"), modules=["tripletkit.cli.main", *preloaded]
        )
        for name, words in commands.items():
            process.start([str(word) for word in words])
            code = process.wait(120)
            runs[name] = Run(code, process.errors.read_text(), sorted(watched & process.loaded()))
        process.close()
    return runs


def run_command(words: list[str]) -> int:
    """Run a command in this process, and return what it ended with; a traceback is on stderr."""
    from tripletkit.cli.main import tripletkit

    try:
        tripletkit(words, prog_name="tripletkit")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    return 1


def _run(words: list[str], errors: Path) -> NoReturn:
    """Run the command in a fork, as if the process had just been started, and end it."""
    from tripletkit.data.outputs import private_temporary_folder

    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = ["tripletkit", *words]
    private_temporary_folder.cache_clear()
    tempfile.tempdir = None
    tempfile.tempdir = str(private_temporary_folder())
    code = run_command(words)
    # No ordinary end, which waits for threads that the fork does not have, and takes Python apart.
    shutil.rmtree(private_temporary_folder(), ignore_errors=True)
    with suppress(OSError):  # no file of that size is allowed
        errors.with_suffix(".loaded").write_text(json.dumps([*sys.modules]))
    sys.stderr.flush()
    os._exit(code)


def _import_everything() -> None:
    # Imported, but not used: TensorFlow's threads would not live on in a fork.
    import_module("tripletkit.features.keras_backend")
    for name in _LATE:
        import_module(name)
    root = Path(__file__).parents[1]
    for path in (root / "tripletkit").rglob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            import_module(".".join(path.relative_to(root).with_suffix("").parts))
    import_module("tripletkit.features.onnx_engine")._import_onnxruntime()


def _serve(errors: Path, modules: str) -> None:
    if tiny.WEIGHTS_VARIABLE in os.environ:
        tiny.register()
        tiny.shorten_trainings()
    if modules == "everything":
        _import_everything()
    else:
        for name in json.loads(modules):
            import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        if not (pid := os.fork()):
            _run(json.loads(line), errors)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
