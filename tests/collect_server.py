"""A real server of `tripletkit collect`, in a process of its own, for tests.

It trains with the backbone `tiny`, which the fixture `tiny_backbone` has ready for it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import tiny_backbone as tiny


class CollectServer:
    """The command, started; `links` are what it printed."""

    def __init__(self, images: Path, database: Path, *options: object, port: int = 0):
        self.database, self.log = database, database.with_suffix(".log")
        command = [sys.executable, tiny.__file__, "collect", images, "--db", database]
        command += ["--no-browser", "--port", port, "--backbone", "tiny", *options]
        self._out = self.log.open("a")
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdout=subprocess.PIPE,
            stderr=self._out,
            text=True,
            start_new_session=True,
        )
        self.links: dict[str, str] = {}
        while "owner" not in self.links:
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            if found := re.fullmatch(r"(.+?)  +(http://\S+)\n", line):
                self.links[found[1]] = found[2]
        self.port = int(re.search(r":(\d+)/", self.links["owner"])[1])
        for _ in range(200):
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/static/icon.svg", timeout=5)
                return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        """End it as a power cut would, the process that trains as well."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self._close()

    def stop(self) -> str:
        """Stop it as Ctrl-C does, and return what it said."""
        self.process.send_signal(signal.SIGINT)
        self._close()
        return self.log.read_text()

    def _close(self) -> None:
        self.process.wait(20)
        self.process.stdout.close()
        self._out.close()


@contextmanager
def opened_servers(images: Path, database: Path) -> Iterator[Callable[..., CollectServer]]:
    """Yield a function that starts servers on one database; all are stopped at the end."""
    pytest.importorskip("flask")
    servers: list[CollectServer] = []

    def serve(*options: object, port: int = 0) -> CollectServer:
        servers.append(CollectServer(images, database, *options, port=port))
        return servers[-1]

    try:
        yield serve
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.kill()
