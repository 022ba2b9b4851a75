"""Every default, with its unit and the reason for it."""

from __future__ import annotations

SEED = 0

# The environment variable that moves the feature store.
CACHE_VARIABLE = "TRIPLETKIT_CACHE"

# Where `train` writes and `predict` looks when nothing is said.
MODEL_FOLDER = "tripletkit-model"

# Seconds without a byte after which a download counts as failed.
DOWNLOAD_TIMEOUT_S = 20

# Pictures in a batch of the backbone: past 32 two cores gain nothing, and memory grows.
EXTRACT_BATCH_SIZE = 32

# Pictures decoded ahead of the backbone; three batches hide a slow disk.
DECODE_AHEAD = 96
