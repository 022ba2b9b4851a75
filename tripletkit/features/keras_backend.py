"""Keras and TensorFlow: the one module that imports them, after the backend is made sure of.

Modules that build or train networks take both from here. To import this module takes seconds,
so light modules do it inside a function.
"""

from __future__ import annotations

from tripletkit.features.keras_start import start_keras

start_keras()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import KerasTensor, ops  # noqa: E402

__all__ = ["KerasTensor", "keras", "ops", "tf"]
