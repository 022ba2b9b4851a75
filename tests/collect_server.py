"""A real server of `tripletkit collect`, in a process of its own, for tests.

It trains with the backbone `tiny`, which the fixture `tiny_backbone` has ready for it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import tiny_backbone as tiny


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class CollectServer:
    """The command, started; `links` are what it printed."""

    def __init__(self, images: Path, database: Path, *options: object, port: int | None = None):
        self.port = port or free_port()
        self.database = database
        self.log = database.with_suffix(".log")
        command = [sys.executable, tiny.__file__, "collect", images, "--db", database]
        command += ["--no-browser", "--port", self.port, "--backbone", "tiny"]
        self._out = self.log.open("a")
        self.process = subprocess.Popen(
            [str(part) for part in [*command, *options]],
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
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/static/icon.svg", timeout=5)
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        """End it as a power cut would, the process that trains as well."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.process.stdout.close()
        self._out.close()

    def stop(self) -> str:
        """Stop it as Ctrl-C does, and return what it said."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        finally:
            if self.process.poll() is None:
                self.kill()
        self.process.stdout.close()
        self._out.close()
        return self.log.read_text()
