"""Keras and TensorFlow: the one module that imports them, after the backend is made sure of.

Modules that build or train networks take both from here. To import this module takes seconds,
so light modules do it inside a function.
"""

from __future__ import annotations

import random

from tripletkit.features.keras_start import start_keras

start_keras()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import KerasTensor, ops  # noqa: E402

__all__ = ["KerasTensor", "keras", "ops", "seed_layers", "tf"]


def seed_layers(seed: int) -> None:
    """Seed what layers draw their weights and the seeds of their dropout from as they are built.

    That is Python's own generator. `keras.utils.set_random_seed` seeds TensorFlow's besides, which
    no layer draws from, and has TensorFlow optimise every compiled function anew: 0.2 s for each
    of the many short trainings of held-out draws.
    """
    random.seed(seed)
