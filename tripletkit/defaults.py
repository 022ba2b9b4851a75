"""Every default, with its unit and the reason for it."""

from __future__ import annotations

SEED = 0

# The environment variable that moves the feature store.
CACHE_VARIABLE = "TRIPLETKIT_CACHE"

# Where `train` writes and `predict` looks when nothing is said.
MODEL_FOLDER = "tripletkit-model"
