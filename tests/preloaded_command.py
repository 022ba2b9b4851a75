"""The command in forks of one process that has imported everything, for tests that kill it often.

A process of its own spends seconds on imports, in which there is nothing to lose; a fork of this
one begins at once with what the command does. Run as a script it takes a line of JSON for each
command, the words of its call, and answers with the process id, and its exit code when it is over.
What the last of them said on stderr is in a file.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import tiny_backbone as tiny
from forked_commands import run_command

# Imported late, and by nearly every command.
_MODULES = (
    "h5py pandas pyarrow.parquet sklearn.decomposition scipy.stats faiss "
    "matplotlib.figure matplotlib.backends.backend_svg jinja2"
).split()


class PreloadedCommand:
    """The process that forks; `start` gives it one command after the other.

    Args:
        folder: where the commands run.
        environment: of the commands.
        errors: file that gets what the last command said on stderr.
        prefix: words of a call that runs the process with fewer rights.
    """

    def __init__(
        self, folder: Path, environment: dict[str, str], errors: Path, prefix: Sequence[str] = ()
    ) -> None:
        self.errors = errors
        self._process = subprocess.Popen(
            [*prefix, sys.executable, __file__, str(errors)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid
        self._read()

    def start(self, command: str) -> int:
        """Start a command and return its process id."""
        self._process.stdin.write(json.dumps(command.split()) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def wait(self, timeout_s: float) -> int | None:
        """Return the command's exit code, or None if it still runs after that time."""
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return int(self._read()) if ready else None

    def close(self) -> None:
        self._process.communicate(timeout=240)

    def _read(self) -> str:
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("the process that forks has ended")
        return line


def _run(arguments: list[str], errors: str) -> None:
    """Run the command in a fork, as if the process had just been started."""
    from tripletkit.data.unfinished import private_temporary_folder

    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = ["tripletkit", *arguments]
    private_temporary_folder.cache_clear()
    tempfile.tempdir = None
    tempfile.tempdir = str(private_temporary_folder())
    code = run_command(arguments)
    # No ordinary end, which waits for threads that the fork does not have.
    shutil.rmtree(private_temporary_folder(), ignore_errors=True)
    sys.stderr.flush()
    os._exit(code)


def _serve(errors: str) -> None:
    tiny.register()
    # Imported, but not used: TensorFlow's threads would not live on in a fork.
    import_module("tripletkit.features.keras_backend")
    for name in _MODULES:
        import_module(name)
    root = Path(__file__).parents[1]
    for path in (root / "tripletkit").rglob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            import_module(".".join(path.relative_to(root).with_suffix("").parts))
    import_module("tripletkit.features.onnx_engine")._import_onnxruntime()
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _run(json.loads(line), errors)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
