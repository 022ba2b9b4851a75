"""Keras and TensorFlow: the one module that imports them, after the backend is made sure of.

Modules that build or train networks take both from here. To import this module takes seconds,
so light modules do it inside a function.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from tripletkit.data.outputs import private_temporary_folder
from tripletkit.errors import MissingExtraError

_VARIABLE = "KERAS_BACKEND"
_BACKEND = "tensorflow"
_BUILDING = threading.RLock()


def _start() -> None:
    """Import TensorFlow as Keras's backend without its start-up talk.

    C++ writes that to descriptor 2, which is turned away meanwhile. `KERAS_BACKEND` is set only
    here, so that `import tripletkit` alone changes nothing.
    """
    if "keras" in sys.modules:
        _check(import_module("keras").config.backend(), "Keras was imported with")
        return
    _check(os.environ.setdefault(_VARIABLE, _BACKEND), f"the environment variable {_VARIABLE} says")
    # TensorFlow writes the code that it generates to temporary files, and leaves them if killed.
    tempfile.tempdir = str(private_temporary_folder())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import_module("tensorflow")
        import_module("keras")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        raise MissingExtraError(
            f"expected TensorFlow and Keras, which training and Keras's networks need; "
            f"{error.name} is not installed. Run: pip install tensorflow"
        ) from error
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check(backend: str, where: str) -> None:
    if backend != _BACKEND:
        raise MissingExtraError(
            f"expected Keras on {_BACKEND}, {where} {backend}. Set {_VARIABLE}={_BACKEND} before "
            "Keras is imported (in a notebook: before its first cell that imports it, after a "
            "restart of the kernel)."
        )


_start()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import KerasTensor, ops  # noqa: E402

__all__ = ["KerasTensor", "building_layers", "keras", "ops", "tf"]


@contextmanager
def building_layers(seed: int | None = None) -> Iterator[None]:
    """Seed Python's generator, from which layers draw as one thread at a time builds them.

    `keras.utils.set_random_seed` would also have TensorFlow optimise every function anew: 0.2 s for
    each of the many short trainings of held-out draws.
    """
    with _BUILDING:
        if seed is not None:
            random.seed(seed)
        yield
