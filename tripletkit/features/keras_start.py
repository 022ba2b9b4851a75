"""Import of Keras on TensorFlow without its start-up talk, only when a network is needed."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import import_module

from tripletkit.data.unfinished import private_temporary_folder


def start_keras() -> None:
    """Import TensorFlow as Keras's backend; takes seconds the first time, nothing after.

    Its C++ part writes to file descriptor 2 before any log level counts, so the descriptor
    itself is turned away while it loads.
    """
    if "tensorflow" in sys.modules:
        return
    # TensorFlow writes the code that it generates to temporary files, and leaves them if killed.
    tempfile.tempdir = str(private_temporary_folder())
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
