"""Measure how quick the pages of `collect` are while many judges answer and a model is trained.

    python examples/collect_load_benchmark.py images/ --judges 20 --answers 20

Starts a server on the loopback, and judges that each open six connections and the page, load its
images, think for half a second to one and a half, and answer. The model is trained in the
background as soon as 100 answers are there. Prints the milliseconds that replies took, by kind,
and whether every acknowledged answer is in the database once. `--kills 5` kills the server so many
times in the middle (SIGKILL) and starts it again; judges then send again, as the page does.
"""

from __future__ import annotations

import argparse
import html
import http.client
import json
import random
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import numpy as np

KINDS = ("page", "answer", "image")
CONNECTIONS = 6


class Judge(threading.Thread):
    """One simulated judge; `times_ms` are what the replies took, by kind."""

    def __init__(
        self, port: int, link: str, n_answers: int, seed: int, server_dies: bool = False
    ) -> None:
        super().__init__()
        self._server_dies = server_dies
        self._port, self._link, self._n_answers = port, link, n_answers
        self._rng = random.Random(seed)
        self.times_ms: dict[str, list[float]] = defaultdict(list)
        self.acknowledged: list[str] = []

    def run(self) -> None:
        # As many as a browser opens; images come by all of them in turn.
        self._connections = [
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            for _ in range(CONNECTIONS)
        ]
        for connection in self._connections:
            connection.connect()
        self._headers: dict[str, str] = {}
        reply, _ = self._ask("GET", self._link)
        self._headers["Cookie"] = reply.getheader("Set-Cookie").partition(";")[0]
        base = reply.getheader("Location")
        _, page = self._ask("GET", f"{base}ask", "page")
        text = page.decode()
        self._headers["X-Form-Token"] = re.search(r'data-form-token="(\w+)"', text)[1]
        state = json.loads(html.unescape(re.search(r'data-state="([^"]*)"', text)[1]))
        seen: set[int] = set()
        while state["screens"] and len(self.acknowledged) < self._n_answers:
            for screen in state["screens"]:
                for image in {screen["anchor"], *screen["shown"]} - seen:
                    seen.add(image)
                    self._ask("GET", f"/image/{image}/small", "image")
            time.sleep(self._rng.uniform(0.5, 1.5))
            client_id = secrets.token_hex(16)
            answer = {
                "client_id": client_id,
                "screen": state["screens"][0]["id"],
                "side": self._rng.choice(["left", "right"]),
                "places": [],
                "response_ms": 1000.0,
                "method": "keyboard",
            }
            reply, body = self._ask("POST", f"{base}answer", "answer", json.dumps(answer))
            assert reply.status == 200, body
            self.acknowledged.append(client_id)
            state = json.loads(body)
        for connection in self._connections:
            connection.close()

    def _ask(self, method: str, path: str, kind: str = "", body: str | None = None):
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        for _ in range(200):
            started_s = time.perf_counter()
            try:
                reply, data = self._send(method, path, body, headers)
                break
            except (http.client.HTTPException, OSError):
                # The server closes what was idle for long, and a browser opens another; or it is
                # being started again.
                self._connections[0].close()
                time.sleep(0.5 if self._server_dies else 0)
        if kind:
            self.times_ms[kind].append(1000 * (time.perf_counter() - started_s))
        return reply, data

    def _send(self, method: str, path: str, body: str | None, headers: dict[str, str]):
        connection = self._connections[0]
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        data = reply.read()
        self._connections.append(self._connections.pop(0))
        return reply, data


def measure(
    images: Path,
    n_judges: int,
    n_answers: int,
    backbone: str = "efficientnet-lite0",
    n_kills: int = 0,
) -> dict[str, np.ndarray]:
    """Return the milliseconds of all replies by kind.

    Raises:
        AssertionError: if an acknowledged answer is not in the database exactly once.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "judgements.sqlite"
        command = [sys.executable, "-m", "tripletkit", "collect", str(images), "--no-browser"]
        command += ["--db", str(database), "--port", str(port), "--backbone", backbone]
        for number in range(n_judges):
            command += ["--judge", f"judge{number:02}"]

        def start() -> subprocess.Popen:
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

        server = start()
        try:
            links = [server.stdout.readline().split()[1] for _ in range(n_judges)]
            paths = [link.partition(f":{port}")[2] for link in links]
            time.sleep(1)
            judges = [
                Judge(port, path, n_answers, n, server_dies=n_kills > 0)
                for n, path in enumerate(paths)
            ]
            for judge in judges:
                judge.start()
            for _ in range(n_kills):
                time.sleep(6)
                server.kill()
                server.wait()
                server.stdout.close()
                server = start()
            for judge in judges:
                judge.join()
            with closing(sqlite3.connect(database)) as connection:
                kept = [row[0] for row in connection.execute("SELECT client_id FROM answers")]
                (n_models,) = connection.execute("SELECT count(*) FROM models").fetchone()
            acknowledged = [client_id for judge in judges for client_id in judge.acknowledged]
            assert sorted(kept) == sorted(acknowledged)
            print(f"{len(kept):,} answers, each there once; {n_models} models trained meanwhile")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
            server.stdout.close()
    return {kind: np.concatenate([judge.times_ms[kind] for judge in judges]) for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--judges", type=int, default=20)
    parser.add_argument("--answers", type=int, default=20, help="of each judge")
    parser.add_argument("--kills", type=int, default=0, help="of the server, in the middle")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    options = parser.parse_args()
    found = measure(
        options.images, options.judges, options.answers, options.backbone, options.kills
    )
    found["all"] = np.concatenate(list(found.values()))
    print(f"{'':8}{'replies':>8}{'median':>8}{'95%':>8}{'99%':>8}{'most':>8}  ms")
    for kind, times in found.items():
        median, most_of, nearly_all = np.percentile(times, [50, 95, 99])
        print(
            f"{kind:8}{len(times):8,}{median:8.1f}{most_of:8.1f}{nearly_all:8.1f}{times.max():8.1f}"
        )
    for kind, limit in (("all", 100), ("answer", 300)):
        print(f"{kind} under {limit} ms: {np.mean(found[kind] < limit):.1%}")


if __name__ == "__main__":
    main()
