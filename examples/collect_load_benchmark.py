"""Measure how quick the pages of `collect` are while many judges answer and a model is trained.

    python examples/collect_load_benchmark.py images/ --judges 100 --answers 20 --kills 5

Starts a server on the loopback, and judges who arrive within ten seconds. Each has six connections
as a browser has, which stay open; takes the page, its script and its style; asks for an image once;
loads those of the next questions while looking at this one; and thinks for a time around the
median of 2.3 s that an answer took in a trial. Prints the milliseconds of replies by kind, from the
moment that the page wants them, and whether every acknowledged answer is in the database once. The
model is trained in the background as soon as 100 answers are there.

`--kills 5` kills the server so many times in the middle (SIGKILL) and starts it again; judges then
send again after 1, 2, 4 s and so on, as the page does. A reply's time is that of the request that
got it; how many had to be sent again is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import json
import math
import random
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import numpy as np

KINDS = ("page", "answer", "image")
CONNECTIONS = 6
ARRIVE_S = 10
# Median of a trial with 597 answers, and how much times of answers spread.
THINK_S, SPREAD = 2.3, 0.5
_FIRST_MODEL = """
SELECT 86400 * (julianday(min(made_at)) - julianday((
    SELECT answered_at FROM answers ORDER BY answered_at LIMIT 1 OFFSET 99))) FROM models
"""


class Browser:
    """Six connections to the server, each with one request at a time."""

    def __init__(self, port: int, times_ms: dict[str, list[float]]) -> None:
        self._port, self._times_ms = port, times_ms
        self._free: asyncio.Queue = asyncio.Queue()
        self._fixed = f"Host: 127.0.0.1:{port}\r\n"
        self.n_asked_again = 0

    async def open(self) -> None:
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await self._connect())

    async def _connect(self):
        """Return a connection as soon as there is a server, which the page tries as often."""
        wait_s = 1
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, 10)

    def keep(self, header: str) -> None:
        """Send a header with every request from now on."""
        self._fixed += f"{header}\r\n"

    async def ask(self, method: str, path: str, kind: str = "", body: str = ""):
        """Return head and body of a reply, asking again until there is one."""
        text = f"{method} {path} HTTP/1.1\r\n{self._fixed}"
        if body:
            text += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        request = f"{text}\r\n{body}".encode()
        started_s = time.perf_counter()
        while True:
            streams = await self._free.get()
            try:
                reader, writer = streams = streams or await self._connect()
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                data = await reader.readexactly(
                    int(re.search(r"(?i)content-length: (\d+)", head)[1])
                )
                break
            except (OSError, EOFError):
                # The server closed what was idle for long, and a browser opens another; or it is
                # being started again.
                streams = await self._connect()
                self.n_asked_again += 1
                started_s = time.perf_counter()
            finally:
                self._free.put_nowait(streams)
        if kind:
            self._times_ms[kind].append(1000 * (time.perf_counter() - started_s))
        return head, data

    def close(self) -> None:
        while not self._free.empty():
            if (streams := self._free.get_nowait()) is not None:
                streams[1].close()


async def judge(browser: Browser, link: str, n_answers: int, seed: int) -> list[str]:
    """Answer so many questions, and return the ids of the answers that were acknowledged."""
    rng = random.Random(seed)
    await asyncio.sleep(rng.uniform(0, ARRIVE_S))
    await browser.open()
    head, _ = await browser.ask("GET", link)
    browser.keep("Cookie: " + re.search(r"Set-Cookie: ([^;]*)", head)[1])
    base = re.search(r"Location: (\S+)", head)[1]
    _, page = await browser.ask("GET", f"{base}ask", "page")
    text = page.decode()
    await asyncio.gather(
        *(browser.ask("GET", f"/static/collect.{kind}", "page") for kind in ("js", "css"))
    )
    browser.keep("X-Form-Token: " + re.search(r'data-form-token="(\w+)"', text)[1])
    root = html.unescape(re.search(r'data-root="([^"]*)"', text)[1])
    state = json.loads(html.unescape(re.search(r'data-state="([^"]*)"', text)[1]))
    asked: dict[int, asyncio.Task] = {}
    acknowledged: list[str] = []
    while state["screens"] and len(acknowledged) < n_answers:
        for screen in state["screens"]:
            for image in (screen["anchor"], *screen["shown"]):
                if image not in asked:
                    address = root.replace("/0/?", f"/{image}/small?")
                    asking = browser.ask("GET", address, "image")
                    asked[image] = asyncio.create_task(asking)
        shown = state["screens"][0]
        await asyncio.gather(*(asked[image] for image in (shown["anchor"], *shown["shown"])))
        await asyncio.sleep(THINK_S * math.exp(rng.gauss(0, SPREAD)))
        answer = {
            "client_id": secrets.token_hex(16),
            "screen": shown["id"],
            "side": rng.choice(["left", "right"]),
            "places": [],
            "response_ms": 1000.0,
            "method": "keyboard",
        }
        head, body = await browser.ask("POST", f"{base}answer", "answer", json.dumps(answer))
        assert " 200 " in head.partition("\r")[0], body
        acknowledged.append(answer["client_id"])
        state = json.loads(body)
    await asyncio.gather(*asked.values())
    browser.close()
    return acknowledged


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
        times_ms: dict[str, list[float]] = defaultdict(list)

        async def answer_all() -> list[str]:
            nonlocal server
            browsers = [Browser(port, times_ms) for _ in paths]
            pairs = enumerate(zip(browsers, paths, strict=True))
            judges = asyncio.gather(*(judge(b, path, n_answers, n) for n, (b, path) in pairs))
            for _ in range(n_kills):
                await asyncio.sleep(8)
                server.kill()
                server.wait()
                server.stdout.close()
                server = start()
            found = [client_id for each in await judges for client_id in each]
            if n_kills:
                print(f"{sum(b.n_asked_again for b in browsers):,} requests were sent again")
            return found

        try:
            links = [server.stdout.readline().split()[1] for _ in range(n_judges)]
            paths = [link.partition(f":{port}")[2] for link in links]
            acknowledged = asyncio.run(answer_all())
            with closing(sqlite3.connect(database)) as connection:
                kept = [row[0] for row in connection.execute("SELECT client_id FROM answers")]
                (n_models,) = connection.execute("SELECT count(*) FROM models").fetchone()
                first_model = connection.execute(_FIRST_MODEL).fetchone()
            assert sorted(kept) == sorted(acknowledged)
            print(f"{len(kept):,} answers, each there once; {n_models} models trained meanwhile")
            if n_models:
                print(f"{first_model[0]:.1f} s from the 100th answer to a first model")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
            server.stdout.close()
    return {kind: np.array(times_ms[kind]) for kind in KINDS}


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
