"""Defaults that several modules share, with their units and reasons; see docs/benchmarks.md."""

from __future__ import annotations

from typing import Literal

SEED = 0

# Each image, or each class, is as often an anchor and a negative as any other.
TRIPLET_BALANCES = ("image", "class")
TRIPLET_BALANCE = "image"

# Triplets for each image: it is then seen some thirty times a pass, in all three roles.
TRIPLETS_PER_ANCHOR = 10

# Positives, and negatives, of which a hard or easy triplet keeps one. More would keep the same few
# mislabelled images again and again.
DIFFICULTY_CANDIDATES = 8

# The environment variable that moves the feature store.
CACHE_VARIABLE = "TRIPLETKIT_CACHE"

# How the frozen features of a backbone are compared; L2 does worse on every set tried.
FROZEN_DISTANCE = "cosine"

# ResNet50 where its weights can be had, else EfficientNet-Lite0.
BACKBONE = "auto"

# Where `train` writes and `predict` looks when nothing is said.
MODEL_FOLDER = "tripletkit-model"

# Images in a batch of the backbone: past 32 two cores gain nothing, and memory grows.
EXTRACT_BATCH_SIZE = 32

# `cache prune` drops the features of a backbone that no run used for so many days.
PRUNE_UNUSED_DAYS = 90

# Where in a backbone features are taken: at its end, at earlier stages, or both.
DEPTHS = ("last", "early", "all")
DEPTH = DEPTHS[0]

# What of an image the backbone sees: the whole. Each further view costs as much again.
VIEWS = "original"

# Images decoded ahead of the backbone; three batches hide a slow disk.
DECODE_AHEAD = 96

# How many examples `audit` shows of each kind of thing: enough to recognise a pattern.
AUDIT_EXAMPLES = 3

# Share of triplets (by component or at random) or of images (by image) set aside for validation:
# the customary fifth.
VAL_FRACTION = 0.2

# The share of images that `train` sets aside by itself.
TRAIN_VAL_FRACTION = 0.1

# With fewer validation triplets (95% interval wider than 7 points) the epochs differ by less than
# chance.
MIN_VAL_TRIPLETS = 500

# What training and validation must not share: an image, a pair of images, or a question. The
# strictest first.
SPLIT_POLICIES = ("image", "component", "random")

# The head of recipe mlp: Dense 512, Dropout, Dense 10.
HIDDEN = 512
DIM = 10
DROPOUT = 0.5

# Between unit embeddings the Euclidean distance is 0 to 2.
DISTANCE = "l2"
MARGIN = 0.2

# What training makes of votes.
VOTES_AS: Literal["weight"] = "weight"

# Passes over the triplets; small sets get more, up to so many steps or passes.
EPOCHS = 10
MIN_STEPS = 500
MAX_EPOCHS = 100

BATCH_SIZE = 256
LEARNING_RATE = 1e-3

# What offline mining takes of each image, and between which quantiles of all distances within
# classes, and between classes; see `docs/benchmarks.md`.
MINED_PER_IMAGE = 5
POSITIVE_QUANTILES = (0.0, 0.5)
NEGATIVE_QUANTILES = (0.25, 0.5)

# Share of the user's own triplets that `mine --triplets` keeps.
KEPT_TRIPLETS = 0.5

# The loss, and which of its values count.
LOSS = "triplet"
REDUCTION = "all"

# A batch that is mined: so many classes with so many images each.
CLASSES_PER_BATCH = 10
IMAGES_PER_CLASS = 8

# Novelty of a test (0: new images of seen classes, 1: unseen classes) up to which nothing is new.
NOTHING_NEW = 0.07

# Share of the images that is held out as whole classes, clusters that images without labels are
# divided into, and images in one on average.
UNSEEN_FRACTION = 0.25
N_CLUSTERS = 12
MIN_GROUP_IMAGES = 5
UNSEEN_ROUNDS = 3

# Training triplets up to which the baselines embed names by default: about 10 s on one core.
MAX_ORDINAL_TRIPLETS = 200_000

# Neighbours of a query, and triplets in a collage: a row of ten fits a page, as in the source.
NEIGHBORS = 10

# Batches of pixels that wait for the network: two of them hide a slow file.
BATCHES_AHEAD = 3

# An epoch of fine-tuning ends when each image was seen so many times on average.
FINE_TUNE_VIEWS = 4
FINE_TUNE_EPOCHS = 5

# Of collecting: so many first questions are drawn by chance, then a model chooses most of them.
AUTO_ASK = "margin"
FIRST_RANDOM = 100
QUESTIONS_PER_JUDGE = 200
PAUSE_EVERY = 50
REPORT_PORT = 8766

# How often an image may be part of a batch that is chosen, and from how many drawn by chance.
MAX_PER_IMAGE = 2
CHOICE_CANDIDATES = 20_000
CHOSEN_BATCH = 200

# A grid: images to choose from, and how many are picked. Eight fit a phone.
GRID_OF = 8
GRID_PICK = 3

# A round of held-out draws has so many folds, each held out once: a head learns from two thirds of
# the images, and a triplet of one class in 27 is held out; with more folds fewer are.
DRAW_FOLDS = 3

# Held-out triplets that are pooled at least, by whole rounds, and rounds at most: 1,000 tell an
# accuracy to 2 points; weights of parts take more.
POOLED_TRIPLETS = 1_000
WEIGHED_TRIPLETS = 10_000
MAX_DRAW_ROUNDS = 4

# What a model that starts from the frozen features keeps of them, and how much of the learned step
# is taken, where validation does not choose.
FROZEN_SHARE = 0.25
STRENGTH = 0.85

# Longer training gains little on classes that training has seen and loses several points on others.
RESIDUAL_EPOCHS = 5
