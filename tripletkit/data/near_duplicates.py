"""Images that look the same: perceptual hashes and the search for close ones."""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image

_HASH_BITS = 64


def hash_image(image: Image.Image) -> np.uint64:
    """Return a 64-bit hash that scaling, recompression and small changes of tone hardly move.

    Reference:
        Zauner. Implementation and Benchmarking of Perceptual Image Hash Functions. 2010
        (the DCT hash, as the library ImageHash has it).
    """
    bits = imagehash.phash(image).hash
    return np.packbits(bits).view(np.uint64)[0]


def find_close_hashes(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of hashes that differ in few bits, equal ones included.

    Cut into `max_distance + 1` parts, two such hashes agree in at least one part entirely, so
    only hashes that share a part are compared: near linear in practice. Groups of equal hashes
    are linked to their first member only, so that a thousand blank images are a thousand
    pairs and not half a million.

    Args:
        hashes: `(n,)` uint64.
        max_distance: bits in which two may differ, 0 to 63.
    Returns:
        `(n_pairs, 2)` int64 indices, the smaller first, sorted; and `(n_pairs,)` distances.
    """
    distinct, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    others = np.flatnonzero(first[group] != np.arange(len(hashes)))
    pairs = [np.stack([first[group[others]], others], axis=1)]
    for bits in np.array_split(np.arange(_HASH_BITS, dtype=np.uint64), max_distance + 1):
        mask = np.bitwise_or.reduce(np.uint64(1) << bits)
        pairs.append(first[_close_within_part(distinct, mask, max_distance)])
    found = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return found, np.bitwise_count(hashes[found[:, 0]] ^ hashes[found[:, 1]])


def _close_within_part(distinct: np.ndarray, mask: np.uint64, max_distance: int) -> np.ndarray:
    """Return `(n_pairs, 2)` indices of close hashes that agree in the bits of the mask."""
    keys = distinct & mask
    order = np.argsort(keys, kind="stable")
    keys, hashes = keys[order], distinct[order]
    found = [np.empty((0, 2), dtype=np.int64)]
    # In sorted order, compare each with its next neighbour, then the one after, as long as any
    # still shares the part.
    lefts, step = np.arange(len(keys)), 1
    while len(lefts):
        lefts = lefts[lefts + step < len(keys)]
        lefts = lefts[keys[lefts] == keys[lefts + step]]
        is_close = np.bitwise_count(hashes[lefts] ^ hashes[lefts + step]) <= max_distance
        found.append(np.stack([order[lefts[is_close]], order[lefts[is_close] + step]], axis=1))
        step += 1
    return np.concatenate(found)
