"""Losses: pure functions of distances, embeddings and classes, and mining within a batch.

`TripletLoss` is for Keras users; with it TensorFlow is loaded.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "TripletLoss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tripletkit.losses.functions import TripletLoss

    return TripletLoss
