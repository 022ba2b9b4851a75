"""A few-layer stand-in for a real backbone: quick, seeded, and good enough to tell colours apart.

Run as a script it is the `tripletkit` command with this backbone registered, for tests that need
a process of their own; `TINY_TRAP` says at which function it is to meet which signal, and the how
manieth call, as in `tripletkit.features.store:FeatureStore.write/9/2`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import tripletkit as tk
from tripletkit import defaults
from tripletkit.features.backbones import BACKBONES, Backbone

NAME = "tiny"
OTHER_NAME = "tiny-other"
WEIGHTS_VARIABLE = "TINY_WEIGHTS"
TRAP_VARIABLE = "TINY_TRAP"
SIDE_PX = 32
N_FEATURES = 24


def weights_path() -> Path:
    return Path(os.environ[WEIGHTS_VARIABLE])


def build(weights: Path | None, side_px: int = SIDE_PX, name: str = NAME):
    import keras

    image = keras.Input((side_px, side_px, 3))
    x = keras.layers.Conv2D(12, 3, strides=2, use_bias=False, name="stem")(image)
    x = keras.layers.BatchNormalization(name="stem_norm")(x)
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=True, name="depthwise")(x)
    x = keras.layers.BatchNormalization(name="depthwise_norm")(x)
    x = keras.layers.Conv2D(N_FEATURES, 1, use_bias=False, activation="relu", name="widen")(x)
    # Behind an activation, so it cannot be folded into the convolution.
    x = keras.layers.BatchNormalization(name="last_norm")(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x), name=name)
    if weights is not None:
        model.load_weights(weights)
    return model


def build_other(weights: Path | None, side_px: int = SIDE_PX):
    return build(weights, side_px, OTHER_NAME)


def write_weights(path: Path, seed: int = 5) -> None:
    """Write seeded weights whose normalisations do something."""
    import numpy as np

    rng = np.random.default_rng(seed)
    model = build(None)
    model.set_weights(
        [
            rng.uniform(0.5, 1.5, value.shape)
            if value.ndim == 1
            else rng.normal(0, 0.3, value.shape)
            for value in model.get_weights()
        ]
    )
    model.save_weights(path)


def register(name: str = NAME, build: str = "build", **how) -> Backbone:
    tk.register_backbone(
        name,
        f"tiny_backbone:{build}",
        n_features=N_FEATURES,
        input_size_px=SIDE_PX,
        weights="tiny_backbone:weights_path",
        licence="MIT",
        paper="none",
        blocks=("stem", "depthwise", "widen|last_norm"),
        stages={"stem_relu": 12, "widen": N_FEATURES},
        **({"mean": (127.5, 127.5, 127.5), "divisor": 127.5} | how),
    )
    return BACKBONES[name]


def register_other() -> Backbone:
    """Register a second one, which has its images resized in another way."""
    how = {"mean": (0.0, 0.0, 0.0), "divisor": 255.0, "resample": "bicubic"}
    return register(OTHER_NAME, "build_other", reverse_channels=True, **how)


def shorten_trainings() -> None:
    """Do in a process of its own what the fixture `short_trainings` does within one."""
    defaults.MAX_DRAW_ROUNDS, defaults.MAX_EPOCHS = 1, 10


def unregister() -> None:
    for name in (NAME, OTHER_NAME):
        BACKBONES.pop(name, None)


def set_trap(description: str) -> None:
    place, signal, nth = description.split("/")
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, n_calls = getattr(owner, name), 0

    def trapped(*args, **kwargs):
        nonlocal n_calls
        n_calls += 1
        if n_calls == int(nth):
            os.kill(os.getpid(), int(signal))
        return original(*args, **kwargs)

    setattr(owner, name, trapped)


if __name__ == "__main__":
    from tripletkit.cli.main import tripletkit

    register()
    shorten_trainings()
    if (trap := os.environ.get(TRAP_VARIABLE)) is not None:
        # The modules of that room import Keras.
        if trap.startswith("tripletkit.training."):
            import_module("tripletkit.features.keras_backend")
        set_trap(trap)
    tripletkit(sys.argv[1:], prog_name="tripletkit")
