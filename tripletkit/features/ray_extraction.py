"""Extraction by Ray Data: an actor pool that encodes blocks of images and writes them.

Ray decides where what runs, and runs anew what was lost with a worker. What becomes of a block does
not depend on that; see `extraction`.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any

from tripletkit.data.images import Images
from tripletkit.data.outputs import private_temporary_folder
from tripletkit.errors import MissingExtraError, TripletkitError
from tripletkit.features.extraction import BlockEncoder, BlockResult

# More threads than this hardly make one encoder faster; more encoders do.
_THREADS_PER_ENCODER = 4
_FOLDER_CHARS = 40
_START_ATTEMPTS = 3
_LOOK_EVERY_S = 5.0
# What Ray is told of this process's wish for privacy: it would report statistics of its use.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Its remarks about its own insides.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# A proxy that is not there, for all but this machine itself.
_NO_WEB = {
    **dict.fromkeys(
        ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9"
    ),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
}
_KNOCK_S = 10.0


class RayRunner:
    """Runs blocks on a Ray cluster; a `Runner` of `extract_dataset`.

    Args:
        address: of the cluster; None for one that is started for the run and stopped.
        n_workers: encoders at a time. Defaults to one a GPU, else one for every four processors.
    """

    def __init__(self, address: str | None = None, n_workers: int | None = None) -> None:
        _import_ray()
        self.address, self.n_workers = address, n_workers

    def __call__(self, work: BlockEncoder, blocks: Sequence[Images]) -> Iterator[BlockResult]:
        """Yield what became of each block, as it is done."""
        work.prepare()
        with _cluster(self.address, self.n_workers) as ray:
            try:
                yield from _run(ray, work, blocks, self.n_workers)
            except ray.exceptions.RayError as error:
                raise _explain(error) from error


def _run(
    ray: ModuleType, work: BlockEncoder, blocks: Sequence[Images], n_workers: int | None
) -> Iterator[BlockResult]:
    import ray.data

    n_cpus = int(ray.cluster_resources().get("CPU", 1))
    n_gpus = int(ray.cluster_resources().get("GPU", 0))
    n_workers = n_workers or n_gpus or max(1, n_cpus // _THREADS_PER_ENCODER)
    n_workers = min(n_workers, len(blocks))
    n_threads = max(1, min(_THREADS_PER_ENCODER, n_cpus // n_workers))
    rows = [{"block": pickle.dumps(block)} for block in blocks]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Worker,
        fn_constructor_args=(pickle.dumps(work),),
        concurrency=n_workers,
        num_cpus=1,
        num_gpus=1 if n_gpus else 0,
        # Ray gives a worker as many threads as it asks for processors.
        runtime_env={"env_vars": {"OMP_NUM_THREADS": str(n_threads)}},
    )
    for row in _watched(ray, done.iter_rows()):
        yield pickle.loads(row["result"])


class _Worker:
    """Holds the networks."""

    def __init__(self, work: bytes) -> None:
        self._work: BlockEncoder = pickle.loads(work)

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        return {"result": pickle.dumps(self._work(pickle.loads(row["block"])))}


def _watched(ray: ModuleType, rows: Iterable[dict[str, bytes]]) -> Iterator[dict[str, bytes]]:
    """Yield rows as they come; stop where no node is left, for which Ray would wait for ever."""
    came: queue.Queue[dict[str, bytes] | BaseException | None] = queue.Queue()

    def take() -> None:
        try:
            for row in rows:
                came.put(row)
        except BaseException as error:
            came.put(error)
        else:
            came.put(None)

    threading.Thread(target=take, daemon=True).start()
    while True:
        try:
            found = came.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            if not any(node["Alive"] for node in ray.nodes()):
                raise _explain(ConnectionError("all nodes were lost")) from None
            continue
        if found is None:
            return
        if isinstance(found, BaseException):
            raise found
        yield found


@contextmanager
def _cluster(address: str | None, n_workers: int | None) -> Iterator[ModuleType]:
    """Connect to a cluster, or start one on this machine alone, and leave or stop it."""
    ray = _import_ray()
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    try:
        if address is None:
            with _offline():
                _start(ray, n_workers, quiet)
        else:
            _knock(address)
            ray.init(address, **quiet)
    # Ray raises a plain Exception where its processes do not come up.
    except Exception as error:
        raise TripletkitError(
            f"{address or 'a Ray of its own'}: expected a Ray cluster, got none: {error}"
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        # Ray prints remarks of its own to where data is expected.
        with redirect_stdout(sys.stderr):
            yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out in seconds that nobody answers at `host:port`; Ray would try for ten minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


@contextmanager
def _offline() -> Iterator[None]:
    """Let processes that are started meanwhile reach no web page.

    Ray looks for the cloud that it may run in, by addresses outside this machine, even where its
    statistics are off.
    """
    before = {name: os.environ.get(name) for name in _NO_WEB}
    os.environ.update(_NO_WEB)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _start(ray: ModuleType, n_workers: int | None, quiet: dict[str, Any]) -> None:
    """Start a Ray on this machine, again if its parts need longer than it waits for them.

    A raylet gives its helpers 30 seconds, which is too short on a busy machine where they have not
    been read from the disk yet.
    """
    n_cpus = max(len(os.sched_getaffinity(0)), n_workers or 1)
    folder = str(private_temporary_folder())
    # Its name has to leave room for the sockets in it: 107 characters in all.
    if len(folder) > _FOLDER_CHARS:
        folder = tempfile.mkdtemp(prefix="tripletkit-ray-", dir="/tmp")
    for n_left in reversed(range(_START_ATTEMPTS)):
        try:
            ray.init("local", num_cpus=n_cpus, include_dashboard=False, _temp_dir=folder, **quiet)
            return
        except Exception:
            ray.shutdown()
            if not n_left:
                raise


def _explain(error: BaseException) -> TripletkitError:
    """Return what a worker raised on purpose, else that the cluster is lost."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TripletkitError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return TripletkitError(
        f"The work on Ray broke off: {error}\nWhat was written is kept: run the command again "
        "to go on."
    )


def _import_ray() -> ModuleType:
    os.environ.update(_ENVIRONMENT)
    # Else a Ray that is started here gives way to everything else on its machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError(
            "Working on Ray needs the package ray, which is not installed. Install it with "
            "`pip install 'tripletkit[ray]'`, or leave out `ray`: one process does the same."
        ) from error
    return ray
