"""An ordinal embedding of names: what triplets alone tell, with no look at an image.

Every name gets a free vector, moved until the triplets hold. With images in common between
training and validation it can answer without having seen any; it is a baseline, no model.
"""

from __future__ import annotations

import numpy as np

from tripletkit import defaults

# On the competition's file: 96.6% of a random validation split in about 2 s on one core; twice the
# epochs at half the rate give the same.
N_DIMS = 32
N_EPOCHS = 20
BATCH_SIZE = 2048
LEARNING_RATE = 0.02
MARGIN = 3.0  # squared Euclidean distance; only its ratio to the start's size matters
START_SIZE = 0.1

_FIRST_DECAY, _SECOND_DECAY, _TINY = 0.9, 0.999, 1e-8


def embed_names(rows: np.ndarray, n_names: int, seed: int = defaults.SEED) -> np.ndarray:
    """Find a vector for each name so that most triplets hold.

    Minimises the hinge max(0, |a - p|^2 - |a - n|^2 + margin) with Adam over mini-batches.

    Args:
        rows: `(n_triplets, 3)` integers: anchor, positive, negative.
        n_names: how many names there are.
        seed: start of the vectors and of the order of rows.
    Returns:
        `(n_names, N_DIMS)` float32; names in no triplet keep their vector by chance.
    Reference:
        Agarwal et al. Generalized non-metric multidimensional scaling. AISTATS 2007 (hinge loss
        on comparisons; we compare two distances from one anchor). Kingma, Ba. Adam. ICLR 2015.
    """
    generator = np.random.default_rng(seed)
    vectors = generator.normal(scale=START_SIZE, size=(n_names, N_DIMS)).astype(np.float32)
    first, second = np.zeros_like(vectors), np.zeros_like(vectors)
    step = 0
    for _ in range(N_EPOCHS):
        order = generator.permutation(len(rows))
        for start in range(0, len(rows), BATCH_SIZE):
            gradient = _hinge_gradient(vectors, rows[order[start : start + BATCH_SIZE]])
            step += 1
            first += (1 - _FIRST_DECAY) * (gradient - first)
            second += (1 - _SECOND_DECAY) * (gradient * gradient - second)
            size = np.sqrt(second / (1 - _SECOND_DECAY**step)) + _TINY
            vectors -= LEARNING_RATE / (1 - _FIRST_DECAY**step) * first / size
    return vectors


def name_margins(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return `(n_triplets,)` float32, how much nearer the first is (squared Euclidean distance).

    Example:
        >>> name_margins(np.array([[0.0], [1.0], [3.0]]), np.array([[0, 1, 2]]))  # 9 - 1
        array([8.])
    """
    anchor, first, second = (vectors[column] for column in rows.T)
    return ((anchor - second) ** 2 - (anchor - first) ** 2).sum(axis=1)


def _hinge_gradient(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the gradient of a batch's mean hinge, `(n_names, n_dims)`."""
    # SciPy takes a fifth of a second to start, which commands without a baseline need not wait for.
    from scipy.sparse import csr_array

    broken = rows[name_margins(vectors, rows) < MARGIN]
    anchor, positive, negative = (vectors[column] for column in broken.T)
    slots = np.concatenate([negative - positive, positive - anchor, anchor - negative])
    # A sparse product sums the slots of each name; numpy's `add.at` takes several times longer.
    n_slots = len(slots)
    ones = np.ones(n_slots, dtype=np.float32)
    sums = csr_array(
        (ones, broken.T.ravel(), np.arange(n_slots + 1)), shape=(n_slots, len(vectors))
    )
    return (sums.T @ slots) * np.float32(2 / len(rows))
