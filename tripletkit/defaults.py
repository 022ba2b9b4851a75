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

# How many examples `audit` shows of each kind of thing: enough to recognise a pattern.
AUDIT_EXAMPLES = 3

# A picture whose shorter side is below this (pixels) has little left to look at. CIFAR's 32 are
# the smallest that people train on.
TINY_SIDE_PX = 32

# A picture longer than this many times its shorter side is squeezed beyond recognition when it
# becomes a square.
EXTREME_ASPECT = 5

# Two pictures look alike when at most this many of the 64 bits of their perceptual hashes differ.
# Measured on 900 photos: 99.7% of brightened and all recompressed or halved copies are within 6
# bits, while 3 of 404,550 pairs of distinct photos are (the same wall or the same garment).
LOOK_ALIKE_BITS = 6

# `audit` says that a random split can be solved by remembering names when at least this share of
# the triplets has a pair that recurs, and at most that share of recurring pairs has both roles.
MEMORABLE_TRIPLETS_SHARE = 0.1
PURE_PAIRS_SHARE = 0.25

# Share kept for validation.
VAL_FRACTION = 0.2

# Bootstrap resamples of an interval: its ends then move by about 2% of its width from seed to seed.
N_RESAMPLES = 2000
