"""Networks run by ONNX Runtime, on the processor or on a GPU whose provider is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Timer
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from tripletkit.errors import NetworkFileError
from tripletkit.features.backbones import Preprocessing

if TYPE_CHECKING:
    import onnxruntime

# In the order of preference. Others convert the network first, which takes minutes or changes
# numbers, or run it on another machine.
_GPU_PROVIDERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("CUDAExecutionProvider", {"use_tf32": "0"}),
    ("ROCMExecutionProvider", {}),
    ("DmlExecutionProvider", {}),
)

# Builds for Linux and macOS otherwise write an identifier of the user into the home folder and a
# file into the temporary folder, and report to their maker, from the import on: before
# `disable_telemetry_events` can be called, which stops only some of it.
_NO_TELEMETRY_VARIABLES = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")


def _import_onnxruntime() -> ModuleType:
    """Return ONNX Runtime, which reports nothing to its maker."""
    for variable in _NO_TELEMETRY_VARIABLES:
        os.environ.setdefault(variable, "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # for Windows, which knows no such variable
    return onnxruntime


def open_session(network: Path | bytes) -> onnxruntime.InferenceSession:
    """Return a session of a network: an ONNX file, or what is in one."""
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _count_threads()
    # Threads that wait asleep leave the processor to those that decode images, and to others:
    # a fifth less processor time an image on a busy machine. Smaller pieces keep both busy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    if _bound_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    # Errors come as exceptions; its warnings are about graphs that others wrote.
    options.log_severity_level = 4
    installed = onnxruntime.get_available_providers()
    providers = [provider for provider in _GPU_PROVIDERS if provider[0] in installed]
    source = network if isinstance(network, bytes) else os.fspath(network)
    try:
        return onnxruntime.InferenceSession(
            source, options, providers=[*providers, "CPUExecutionProvider"]
        )
    # ONNX Runtime's own exceptions have no common base but this.
    except Exception as error:
        name = "network" if isinstance(network, bytes) else network
        raise NetworkFileError(
            f"{name}: expected a network that ONNX Runtime can run, it says: "
            f"{' '.join(str(error).split())}"
        ) from error


def run_network(
    session: onnxruntime.InferenceSession,
    outputs: Sequence[str] | None,
    inputs: Mapping[str, np.ndarray],
    name: str,
    limit_s: float | None = None,
) -> list[np.ndarray]:
    """Return outputs of a network, all where none is named; whatever fails ends in one line."""
    options = _import_onnxruntime().RunOptions()
    options.log_severity_level = 4
    watch = None
    if limit_s is not None:
        watch = Timer(limit_s, setattr, (options, "terminate", True))
        watch.daemon = True
        watch.start()
    try:
        return session.run(outputs, inputs, options)
    # ONNX Runtime's own exceptions have no common base but this.
    except Exception as error:
        if options.terminate:
            raise NetworkFileError(
                f"{name}: took longer than {limit_s:g} s on an image."
            ) from error
        shapes = ", ".join(str(tuple(value.shape)) for value in inputs.values())
        raise NetworkFileError(
            f"{name}: cannot be run on images of shape {shapes}: {_explain(error)}"
        ) from error
    finally:
        if watch is not None:
            watch.cancel()


def _explain(error: Exception) -> str:
    """Return what ONNX Runtime says in one line, without the places in its source."""
    text = " ".join(str(error).split())
    if re.search("Available memory of|bad_alloc|Failed to allocate", text):
        return "it takes more memory than there is. Take smaller images."
    return text.rpartition("Status Message: ")[2]


@cache
def _bound_memory() -> bool:
    """Bound the memory of all sessions of this process; return whether that could be done."""
    n_bytes = _memory_bytes()
    if n_bytes is None:
        return False
    runtime = _import_onnxruntime()
    arena = runtime.OrtArenaCfg(
        {
            "max_mem": n_bytes * 3 // 4,
            "arena_extend_strategy": -1,
            "initial_chunk_size_bytes": -1,
            "max_dead_bytes_per_chunk": -1,
        }
    )
    place = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    try:
        runtime.create_and_register_allocator(place, arena)
    # Another program in this process may have done so.
    except Exception:
        return False
    return True


def _memory_bytes() -> int | None:
    """Return the memory of the machine, or what the process may have of it; None if not known."""
    limits = []
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits, default=None)


def make_onnx_function(
    session: onnxruntime.InferenceSession, how: Preprocessing
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from images to features of a network that tripletkit wrote."""
    (pixels_input,) = session.get_inputs()

    def compute(pixels: np.ndarray) -> np.ndarray:
        given = {pixels_input.name: prepare_pixels(pixels, how)}
        return run_network(session, None, given, "network")[0]

    return compute


def prepare_pixels(
    pixels: np.ndarray, how: Preprocessing, dtype: type[np.generic] = np.float32
) -> np.ndarray:
    """Return uint8 RGB images as an encoder takes them: one channel or three, uint8 or scaled."""
    if how.is_gray:
        # Pillow's own weights.
        weighed = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
        pixels = ((weighed + (1 << 15)) >> 16).astype(np.uint8)[..., None]
    elif how.reverse_channels:
        pixels = pixels[..., ::-1]
    if dtype is np.uint8:
        return pixels
    prepared = pixels.astype(np.float32)
    prepared -= np.asarray(how.mean, np.float32)
    prepared /= np.asarray(how.divisor, np.float32)
    return prepared


def _count_threads() -> int:
    """Return how many threads to use: as many as the process may use processors."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
