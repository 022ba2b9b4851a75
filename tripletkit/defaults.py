"""Every default, with its unit and the reason for it."""

from __future__ import annotations

SEED = 0

# Anchors and negatives of triplets from labels: each image as often as any other, as it would be
# met, or each class as often as any other.
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

# Seconds without a byte after which a download counts as failed.
DOWNLOAD_TIMEOUT_S = 20

# Images in a batch of the backbone: past 32 two cores gain nothing, and memory grows.
EXTRACT_BATCH_SIZE = 32

# Images in a file of an extracted dataset: what a killed worker loses at most.
BLOCK_IMAGES = 512

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

# An image whose shorter side is below this (pixels) has little left to look at. CIFAR's 32 are
# the smallest that people train on.
TINY_SIDE_PX = 32

# An image longer than this many times its shorter side is squeezed beyond recognition when it
# becomes a square.
EXTREME_ASPECT = 5

# Of 0 to 255. An image whose channels each span no more than this is blank: a JPEG of one colour is
# hardly ever flat. One whose values all lie within so much of black or of white is faint.
BLANK_RANGE = 3
FAINT_RANGE = 25
# An image of 16 bits whose values stay below 2 to the power of this is nearly black as it is read.
FEW_BITS = 12

# Two images look alike when at most this many of the 64 bits of their perceptual hashes differ; see
# `docs/benchmarks.md`.
LOOK_ALIKE_BITS = 6

# `audit` says that a random split can be solved by remembering names when at least this share of
# the triplets has a pair that recurs, and at most that share of recurring pairs has both roles.
MEMORABLE_TRIPLETS_SHARE = 0.1
PURE_PAIRS_SHARE = 0.25

# Share of triplets (by component or at random) or of images (by image) set aside for validation:
# the customary fifth.
VAL_FRACTION = 0.2

# Share of the images that each of many draws holds out: a third leaves about 30% of triplets for
# training and 4% for the test, a half 12% for each.
TEST_IMAGES = 1 / 3

# The share of images that `train` sets aside by itself.
TRAIN_VAL_FRACTION = 0.1

# Triplets that `train` draws from class labels for each image, and the most in all: so many are
# gone through in seconds. Those for validation need only be enough to tell models apart.
TRIPLETS_PER_IMAGE = 25
MAX_DRAWN_TRIPLETS = 200_000
MAX_DRAWN_VAL_TRIPLETS = 5_000

# With fewer validation triplets (95% interval wider than 7 points) the epochs differ by less than
# chance.
MIN_VAL_TRIPLETS = 500

# What training and validation must not share: an image, a pair of images, or a question. The
# strictest first.
SPLIT_POLICIES = ("image", "component", "random")

# Accuracy at which `split` says how wide the 95% interval will be: what good models reach on the
# competition data.
EXPECTED_ACCURACY = 0.75

# Rows, and equally used images, below which there is no interval that allows for shared images:
# with 20 images it held the true value in 92 to 99% of simulated samples instead of 95.
MIN_INTERVAL_IMAGES = 25

# Images that most rows share, such as a few anchors, below which there is none either.
MIN_WEIGHING_IMAGES = 10

# Images in a batch of the head when embeddings are computed.
EMBED_BATCH_SIZE = 1024

# The head of recipe mlp: Dense 512, Dropout, Dense 10.
HIDDEN = 512
DIM = 10
DROPOUT = 0.5

# Between unit embeddings the Euclidean distance is 0 to 2.
DISTANCE = "l2"
MARGIN = 0.2

# What training makes of votes.
VOTES_AS = "weight"

# Passes over the triplets; small sets get more, up to so many steps or passes.
EPOCHS = 10
MIN_STEPS = 500
MAX_EPOCHS = 100
PATIENCE = 3

BATCH_SIZE = 256
LEARNING_RATE = 1e-3

# What offline mining takes of each image, and between which quantiles of all distances within
# classes, and between classes; see `docs/benchmarks.md`.
MINED_PER_IMAGE = 5
POSITIVE_QUANTILES = (0.0, 0.5)
NEGATIVE_QUANTILES = (0.25, 0.5)

# Share of the user's own triplets that `mine --triplets` keeps.
KEPT_TRIPLETS = 0.5

# The loss, which of its values count, and which triplets are learned from.
LOSS = "triplet"
REDUCTION = "all"
MINING = "none"

# A batch that is mined: so many classes with so many images each.
CLASSES_PER_BATCH = 10
IMAGES_PER_CLASS = 8

# Epochs after which the hardest positives of the combination of offline and online mining are
# looked for anew.
REFRESH = 5

# Of the cross-entropy beside a triplet loss, whose values are several times smaller.
CROSS_ENTROPY_WEIGHT = 0.2

# Of the center loss beside the cross-entropy, and how much of a class center stays when a batch
# moves it.
CENTER_WEIGHT = 1.0
CENTER_DECAY = 0.9

# Novelty of a test (0: new images of seen classes, 1: unseen classes) up to which nothing is new.
NOTHING_NEW = 0.07

# Answers come with a caution where at least so many of the images asked about, and such a share of
# them, are unlike those of the training. Of images of the same kind it is about 0.05.
SHIFTED_IMAGES = 3
SHIFTED_SHARE = 0.25

# Share of the images that is held out as whole classes, to see how a model does on classes that
# training has not seen; the clusters that images are divided into, the fewest that are of use,
# images in one on average, how often those held out are drawn, and how many of an ensemble's
# trainings go without others: one of them asks of two or three kinds, which says little.
UNSEEN_FRACTION = 0.25
N_CLUSTERS = 12
MIN_CLUSTERS = 4
MIN_GROUP_IMAGES = 5
UNSEEN_DRAWS = 50
UNSEEN_ROUNDS = 3

# Parts that `score` cuts the rows into by margin and by anchor: enough to see a slope, and each
# still has a fifth of the rows to be measured on.
N_SLICES = 5

# Training triplets up to which the baselines embed names by default: about 10 s on one core.
MAX_ORDINAL_TRIPLETS = 200_000

# Neighbours of a query, and triplets in a collage: a row of ten fits a page, as in the source.
NEIGHBORS = 10

# Images whose features are in memory at a time while a collection is embedded: 84 MB of 2,560
# numbers, and many enough that the start of each part does not count.
ENCODE_PART_IMAGES = 8192

# Vectors of a collection up to which an index keeps them as they are (bytes): a million of 250
# numbers. Past that it keeps codes of a byte for every so many numbers, is trained on so many
# vectors a cell, and looks at so many candidates for each neighbour by their own vectors.
INDEX_FLAT_BYTES = 1 << 30
INDEX_CODE_DIMS = 8
INDEX_TRAIN_PER_CELL = 40
INDEX_CANDIDATES = 20

# Images of the collection by which an index is measured against exact search.
RECALL_QUERIES = 200

# Share of its cells that an approximate index looks into, and how many at least. With an eighth
# it finds over 99% of the true neighbours among a million embeddings of 10 dimensions, and over 95%
# by L1 among 20,000; a sixteenth falls short there.
INDEX_CELLS_SHARE = 1 / 8
INDEX_MIN_CELLS = 16

# Side of an image in a collage, pixels.
COLLAGE_SIDE_PX = 144

# Training from pixels. Decoded images stay in memory up to this (bytes): 50,000 of 32 pixels
# take 150 MB, 7,000 of 224 pixels 1 GB.
KEEP_PIXELS_BYTES = 1 << 30

# Batches of pixels that wait for the network: decoding them is hidden behind one step, and a
# slow file behind the others.
BATCHES_AHEAD = 3

# Furthest shift of an image in training, as a share of its side: the 4 of 32 pixels that are
# usual for CIFAR-10.
SHIFT = 0.125

# Fine-tuning of a backbone's last blocks. A step sees fewer triplets than a head's, because each of
# their images goes through the backbone; an epoch ends when each image was seen so many times
# on average. See the README for what that gains and costs.
FINE_TUNE_BATCH_SIZE = 32
FINE_TUNE_VIEWS = 4
FINE_TUNE_EPOCHS = 5
FINE_TUNE_LEARNING_RATE = 1e-4

# Smallest and largest side of the images that a backbone can be asked to take, pixels: networks
# that halve five times see nothing below, and memory ends above.
MIN_IMAGE_SIZE_PX = 32
MAX_IMAGE_SIZE_PX = 1024

# Collecting judgements. The first answers are to questions of chance; then a head is trained after
# every so many more, and chooses this share of the questions. Questions of chance are what scores
# are computed on, repeats tell how a judge agrees with himself and with others.
ASK = "auto"
AUTO_ASK = "margin"
FIRST_RANDOM = 100
RETRAIN_EVERY = 100
CHOSEN_SHARE = 0.70
RANDOM_SHARE = 0.15
REPEAT_SHARE = 0.15
QUESTIONS_PER_JUDGE = 200
PAUSE_EVERY = 50
COLLECT_PORT = 8765
REPORT_PORT = 8766

# The heads that choose questions, how often an image may be part of a batch of theirs, and how
# many questions drawn by chance a batch is chosen from.
COMMITTEE_MEMBERS = 5
MAX_PER_IMAGE = 2
CHOICE_CANDIDATES = 20_000
CHOSEN_BATCH = 200

# A grid: images to choose from, and how many are picked. Eight fit a phone.
GRID_OF = 8
GRID_PICK = 3

# Rounds of held-out draws: so many folds, each held out once. With three, a head learns from two
# thirds of the images and a triplet of one class in 27 is held out; with more folds fewer are.
# Groups of triplets that share no image are drawn whole from so many on: three a fold.
DRAW_FOLDS = 3
MIN_DRAW_GROUPS = 9

# Held-out triplets that are pooled at least, by whole rounds, and rounds at most: 1,000 tell an
# accuracy to 2 points. Only `budget` makes it depend on the time that a draw takes.
POOLED_TRIPLETS = 1_000
# So many where parts of an ensemble are weighed, which takes more than to tell an accuracy. See
# `docs/benchmarks.md`.
WEIGHED_TRIPLETS = 10_000
MAX_DRAW_ROUNDS = 4

# What a model that starts from the frozen features keeps of them, and how much of the learned step
# is taken, where validation does not choose; see `docs/benchmarks.md`.
FROZEN_SHARE = 0.25
STRENGTH = 0.85

# Five epochs, because longer training gains little on classes of images that training has seen and
# loses several points on others.
RESIDUAL_EPOCHS = 5
