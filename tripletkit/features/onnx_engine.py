"""Networks run by ONNX Runtime, on the processor or on a GPU whose provider is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from tripletkit.errors import NetworkFileError
from tripletkit.features.backbones import Preprocessing

if TYPE_CHECKING:
    import onnxruntime

# In the order of preference. Others convert the network first, which takes minutes or changes
# numbers, or run it on another machine.
_GPU_PROVIDERS = (
    ("CUDAExecutionProvider", {"use_tf32": "0"}),
    ("ROCMExecutionProvider", {}),
    ("DmlExecutionProvider", {}),
)
_THREADS_VARIABLE = "OMP_NUM_THREADS"

# Builds for Linux and macOS otherwise write an identifier of the user into the home folder and a
# file into the temporary folder, and report to their maker, from the import on: before
# `disable_telemetry_events` can be called, which stops only some of it.
_NO_TELEMETRY_VARIABLES = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")


def import_onnxruntime() -> ModuleType:
    """Return ONNX Runtime, which reports nothing to its maker."""
    for variable in _NO_TELEMETRY_VARIABLES:
        os.environ.setdefault(variable, "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # for Windows, which knows no such variable
    return onnxruntime


def open_session(network: Path | bytes) -> onnxruntime.InferenceSession:
    """Return a session of a network.

    Args:
        network: an ONNX file, or what is in one.
    Raises:
        NetworkFileError: if ONNX Runtime cannot run it.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _count_threads()
    # Threads that wait asleep leave the processor to those that decode images, and to others:
    # a fifth less processor time an image on a busy machine. Smaller pieces keep both busy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
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


def make_onnx_function(
    session: onnxruntime.InferenceSession, how: Preprocessing
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from images to features of a network that tripletkit wrote.

    Args:
        session: with one input `(batch, side, side, 3)` float32 and one output.
        how: what its images go through first.
    Returns:
        A function from `(batch, side, side, 3)` uint8 to `(batch, n_features)` float32.
    """
    (pixels_input,) = session.get_inputs()

    def compute(pixels: np.ndarray) -> np.ndarray:
        (features,) = session.run(None, {pixels_input.name: prepare_pixels(pixels, how)})
        return features

    return compute


def prepare_pixels(pixels: np.ndarray, how: Preprocessing) -> np.ndarray:
    """Return images as a backbone was trained on.

    Args:
        pixels: `(batch, height, width, 3)` uint8, RGB; not changed.
        how: the backbone's own.
    Returns:
        `(batch, height, width, 3)` float32.
    """
    prepared = (pixels[..., ::-1] if how.reverse_channels else pixels).astype(np.float32)
    prepared -= np.asarray(how.mean, np.float32)
    prepared /= np.asarray(how.divisor, np.float32)
    return prepared


def _count_threads() -> int:
    """Return how many threads to use: as many as the process may use processors."""
    asked = os.environ.get(_THREADS_VARIABLE, "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
