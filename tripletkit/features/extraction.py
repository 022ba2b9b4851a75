"""Features of very many images into a dataset, by this process or by workers that Ray runs.

What is done is decided by the dataset: images that have a row in it are left alone, so a run that
was killed, however, is finished by the next one. Whoever encodes a block of images writes it as one
file, whole or not at all. A vector depends on nothing but its image, so it does not matter who.

Ray decides where what runs, and runs anew what was lost with a worker: an actor pool encodes blocks
and writes them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import queue
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tripletkit.data.images import Images
from tripletkit.data.outputs import (
    explain_failure,
    private_temporary_folder,
    remove_unfinished,
)
from tripletkit.errors import (
    DataWarning,
    FeatureFileError,
    ImageNameError,
    SettingsError,
    TripletkitError,
    caution,
    describe_problems,
)
from tripletkit.features.backbones import FeatureFunction
from tripletkit.features.encoder import Encoder
from tripletkit.features.given_features import (
    DTYPES,
    DatasetPart,
    describe_vectors,
    list_parts,
    write_part,
)
from tripletkit.features.store import FeatureStore, file_stamp
from tripletkit.progress import Progress, no_progress
from tripletkit.registry import import_extra
from tripletkit.results import Result

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

# Images in a file of an extracted dataset: what a killed worker loses at most.
BLOCK_IMAGES = 512
# Beside the features: networks that were written on first use, for all workers.
_OWN_FOLDER = ".tripletkit"


# What became of a block: how many images it has, and which have no features, with the reason.
_BlockResult = tuple[int, dict[str, str]]


@dataclass(repr=False)
class ExtractionResult(Result):
    """What an extraction came to.

    Attributes:
        output: the folder of the features.
        n_images: that were asked for.
        n_stored: that were there.
        n_computed: that were encoded.
        problems: name -> why it has no features, from this run or an earlier one.
    """

    output: Path
    n_images: int
    n_stored: int = 0
    n_computed: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def _summary(self) -> str:
        return (
            f"{self.n_images:,} images: {self.n_computed:,} computed, {self.n_stored:,} were in "
            f"{self.output}."
        )


class _BlockEncoder:
    """Encodes blocks of images and writes each as a file of a dataset; survives `pickle`."""

    def __init__(self, encoder: Encoder, folder: Path, dtype: str) -> None:
        self.encoder, self.folder = encoder, folder
        self.about = describe_vectors(dict(encoder.facts), encoder.n_features, dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_functions"}

    @cached_property
    def _functions(self) -> list[FeatureFunction]:
        return self.encoder.network_functions(self.folder / _OWN_FOLDER)

    def __call__(self, block: Images) -> _BlockResult:
        with FeatureStore(self.folder, in_memory=True) as store:
            found = self.encoder.load(block, store, tell=False, functions=self._functions)
            contents = block.contents(store).hashes
        problems = {
            # The path goes, which the row's name stands for.
            block.names[row]: why.removeprefix(f"{block.paths[row]}: ")
            for row, why in found.problems.items()
        }
        reasons = list(map(problems.get, block.names))
        try:
            write_part(self.folder, block.names, contents, found.features, reasons, self.about)
        except FeatureFileError as error:
            if self.about["dtype"] == DTYPES[0]:
                raise
            raise FeatureFileError(f"{error} Or take `dtype={DTYPES[0]}`.") from error
        return len(block.names), problems

    def prepare(self) -> None:
        """Write networks where workers find them, so that none of them needs Keras for that."""
        for parts, function in zip(self.encoder.networks, self._functions, strict=True):
            backbone = parts[0].backbone
            shape = (backbone.batch_size, backbone.input_size_px, backbone.input_size_px, 3)
            function(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def extract_dataset(
    images: Images,
    encoder: Encoder,
    folder: Path,
    dtype: str | None = None,
    ray: bool | str = False,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> ExtractionResult:
    """Write the features of images that a dataset lacks; a bad image is a row with the reason.

    This process works, or the Ray cluster at an address, or one started for this run (`ray=True`),
    with `workers` encoders, else one a GPU or one for every four processors.
    """
    if ray:
        _import_ray()
    if encoder.is_given:
        raise SettingsError("features", "expected an encoder, `features` are there already")
    if bad := [name for name in images.names if name.encode("utf-8", "ignore").decode() != name]:
        raise ImageNameError(f"{bad[0]!r}: expected names in UTF-8. Rename the file.")
    parts = _open_folder(folder)
    there = parts[0].about if parts else None
    work = _BlockEncoder(encoder, folder, dtype or (there["dtype"] if there else DTYPES[0]))
    if there is not None and there != work.about:
        is_same = there["features"] == work.about["features"]
        what = "numbers of another type" if is_same else "features of another encoder"
        raise FeatureFileError(f"{folder}: holds {what}. Choose another folder.")
    result = ExtractionResult(folder, len(images.names))
    blocks = _plan(images, parts, result)
    n_left = sum(len(block.names) for block in blocks)
    result.n_stored = result.n_images - n_left
    if blocks:
        (folder / _OWN_FOLDER).mkdir(exist_ok=True)
        n_done = 0
        address = ray if isinstance(ray, str) else None
        done = _run_on_ray(work, blocks, address, workers) if ray else map(work, blocks)
        for n_images, problems in done:
            n_done += n_images
            result.problems |= problems
            result.n_computed += n_images - len(problems)
            progress(n_done, n_left)
    if result.problems:
        shown = describe_problems([f"{name}: {why}" for name, why in result.problems.items()])
        caution(f"{len(result.problems):,} images have no features:\n{shown}", DataWarning)
    return result


def choose_share(images: Images, text: str) -> Images:
    """Return one of several equal shares of images: `3/16` is the third of sixteen."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise SettingsError(
            "shard", f"`shard`: expected a share such as 3/16, from 1/16 to 16/16, got {text}."
        )
    return images.take(range(number - 1, len(images.names), of))


def _open_folder(folder: Path) -> list[DatasetPart]:
    """Return what is in a folder, made if it is new; refuse one with something else in it."""
    with explain_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    parts = list_parts(folder)
    strange = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if strange and not parts:
        raise FeatureFileError(
            f"{folder}: expected a new folder or one that `extract` wrote, there is {strange[0]} "
            "in it. Choose another folder."
        )
    return parts


def _plan(images: Images, parts: Sequence[DatasetPart], result: ExtractionResult) -> list[Images]:
    """Return what is left to do; rows of images that changed since are taken away."""
    path_of = dict(zip(images.names, images.paths, strict=True))
    done: dict[str, str | None] = {}
    for part in parts:
        written_ns = part.path.stat().st_mtime_ns
        kept = [
            row
            for row, name in enumerate(part.names)
            if name not in done
            and not _has_changed(path_of.get(name), part.contents[row], written_ns)
        ]
        done |= {part.names[row]: part.problems[row] for row in kept}
        if len(kept) < len(part.names):
            part.keep_rows(kept)
    result.problems |= {name: why for name in images.names if (why := done.get(name))}
    left = [row for row, name in enumerate(images.names) if name not in done]
    chunks = (left[start : start + BLOCK_IMAGES] for start in range(0, len(left), BLOCK_IMAGES))
    return [images.take(rows).usable() for rows in chunks]


def _has_changed(path: Path | None, content: bytes | None, written_ns: int) -> bool:
    """Return whether a file holds something else than when its row was written."""
    if path is None:
        return False
    if content is None:
        # It could not be read then; it may be whole now.
        return path.is_file()
    try:
        if file_stamp(path.stat())[1] < written_ns:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() != content
    except OSError:
        return False


def _run_on_ray(
    work: _BlockEncoder, blocks: Sequence[Images], address: str | None, n_workers: int | None
) -> Iterator[_BlockResult]:
    """Yield what became of each block as it is done, on a cluster or one that is started for it."""
    work.prepare()
    with _cluster(address, n_workers) as ray:
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
        self._work: _BlockEncoder = pickle.loads(work)

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
    except ray.exceptions.RayError as error:
        raise _explain(error) from error
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out in seconds that nobody answers at `host:port`; Ray would try for ten minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


@contextmanager
def _offline() -> Iterator[None]:
    """Keep started processes off the network: Ray looks for its cloud even without statistics."""
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
    """Start a Ray here, again if its parts are slow: a raylet gives its helpers 30 seconds, too few
    on a busy machine where they have not been read from the disk yet."""
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
    missing = (
        "Working on Ray needs the package ray, which is not installed. Install it with "
        "`pip install 'tripletkit[ray]'`, or leave out `ray`: one process does the same."
    )
    return import_extra(missing, "ray", "ray.data")[0]
