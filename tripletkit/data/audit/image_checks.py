"""Look at every image that triplets name: can it be read, is it odd, is it there twice?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from tripletkit.data.decoding import read_hidden, read_image, read_size_and_frames
from tripletkit.data.folder import locate_images
from tripletkit.data.images import thread_pool
from tripletkit.data.outputs import hash_file
from tripletkit.data.questions import Tally, show_names, tally
from tripletkit.errors import ImageReadError

# An image whose shorter side is below this has little left to look at; one longer than so many
# times its shorter side is squeezed beyond recognition when it becomes a square.
TINY_SIDE_PX = 32
EXTREME_ASPECT = 5
# Of 0 to 255. An image whose channels each span no more than this is blank: a JPEG of one colour is
# hardly ever flat. One whose values all lie within so much of black or of white is faint.
_BLANK_RANGE = 3
_FAINT_RANGE = 25
# An image of 16 bits whose values stay below 2 to the power of this is nearly black as it is read.
FEW_BITS = 12
# Bits of 64 in which two images that look alike differ at most; see `docs/benchmarks.md`.
_LOOK_ALIKE_BITS = 6

_HASH_BITS = 64


def _hash_image(image: Image.Image) -> np.uint64:
    """Return a 64-bit hash that scaling, recompression and small changes of tone hardly move.

    Reference:
        Zauner. Implementation and Benchmarking of Perceptual Image Hash Functions. 2010
        (the DCT hash, as the library ImageHash has it).
    """
    bits = imagehash.phash(image).hash
    return np.packbits(bits).view(np.uint64)[0]


def _find_close_hashes(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of hashes `(n,)` uint64 that differ in few bits, equal ones included.

    Cut into `max_distance + 1` parts, two such hashes agree in at least one part entirely, so
    only hashes that share a part are compared: near linear in practice. Groups of equal hashes
    are linked to their first member only, so that a thousand blank images are a thousand
    pairs and not half a million.

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


# The hash looks at 32 x 32 pixels; a large JPEG need not be decoded at full size for that.
_HASH_SIDE_PX = 32


@dataclass(frozen=True)
class _InspectedImage:
    """What one look at an image file tells."""

    content: bytes  # SHA-256 of the file
    look: np.uint64  # perceptual hash of its pixels
    oddities: dict[str, str]  # attribute of `ImageChecks` -> what a message says of the image


@dataclass(frozen=True)
class InspectedImages:
    """Every image of a list of distinct names, looked at once."""

    names: list[str]
    images: list[_InspectedImage | None]  # None where there is a problem
    unlocated: dict[int, str]  # index of a name -> why it stands for no single image
    unreadable: dict[int, str]  # index of a name -> why its file cannot be decoded

    def read(self, indices: Iterable[int]) -> dict[int, _InspectedImage]:
        """Return those of some names' images that could be read, by index."""
        return {i: image for i in indices if (image := self.images[i]) is not None}


@dataclass(frozen=True)
class ImageChecks:
    """What is wrong or odd about the images of one triplet file."""

    n_read: int  # images that could be decoded
    unlocated: Tally  # names that stand for no image, for several, or for one outside the folder
    unreadable: Tally
    several_frames: Tally  # animations and multi-page files; only the first frame is used
    tiny: Tally
    extreme: Tally  # in their proportions
    blank: Tally  # of one colour
    faint: Tally  # nearly black or nearly white all over
    few_bits: Tally  # of 16 bits, and nearly black as it is read
    transparent: Tally  # blank or faint on white, and drawn by their transparency: white ink
    same_content: Tally  # names whose file equals that of an earlier name, byte for byte
    look_alike: Tally  # pairs of images with other bytes whose perceptual hashes are close


def inspect_images(
    names: Sequence[str],
    folder: Path,
    *,
    follow_outside: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> InspectedImages:
    """Decode every image once, in threads.

    Raises:
        ImageNameError: if there is no such folder.
    """
    located = locate_images(names, folder, follow_outside=follow_outside)
    images: list[_InspectedImage | None] = [None] * len(names)
    unreadable: dict[int, str] = {}
    wanted = [(index, path) for index, path in enumerate(located.paths) if path is not None]
    with thread_pool() as pool:
        outcomes = pool.map(_inspect_or_error, [path for _, path in wanted])
        for done, ((index, _), outcome) in enumerate(zip(wanted, outcomes, strict=True), 1):
            if isinstance(outcome, ImageReadError):
                unreadable[index] = str(outcome)
            else:
                images[index] = outcome
            progress(done, len(wanted))
    return InspectedImages(list(names), images, located.problems, unreadable)


def check_images(inspected: InspectedImages, places: Sequence[str], n_examples: int) -> ImageChecks:
    """Gather what the images of one triplet file show: the first, and where each was read."""
    names = inspected.names
    read = inspected.read(range(len(places)))

    def problematic(problems: dict[int, str]) -> Tally:
        found = sorted(index for index in problems if index < len(places))
        shown = (f"{places[index]}: {problems[index]}" for index in found)
        return tally(len(found), shown, n_examples)

    def odd(kind: str) -> Tally:
        said = {i: image.oddities[kind] for i, image in read.items() if kind in image.oddities}
        shown = (f"{places[i]}: {show_names(names, [i])} {said[i]}" for i in said)
        return tally(len(said), shown, n_examples)

    indices, contents, looks = _columns(read)
    return ImageChecks(
        n_read=len(read),
        unlocated=problematic(inspected.unlocated),
        unreadable=problematic(inspected.unreadable),
        several_frames=odd("several_frames"),
        tiny=odd("tiny"),
        extreme=odd("extreme"),
        blank=odd("blank"),
        faint=odd("faint"),
        few_bits=odd("few_bits"),
        transparent=odd("transparent"),
        same_content=_same_content(indices, contents, names, n_examples),
        look_alike=_look_alike(indices, contents, looks, names, n_examples),
    )


def same_content_across(
    inspected: InspectedImages, ours: np.ndarray, theirs: np.ndarray, n_examples: int
) -> Tally:
    """Tally our names whose file is also there under one of their names, byte for byte.

    Both are indices into `inspected`; names of both count as ours.
    """
    theirs_only = inspected.read(np.setdiff1d(theirs, ours)[::-1].tolist())
    with_content = {image.content: index for index, image in theirs_only.items()}
    pairs = [
        (index, with_content[image.content])
        for index, image in inspected.read(ours.tolist()).items()
        if image.content in with_content
    ]
    return _tally_pairs(pairs, inspected.names, n_examples)


def look_alike_across(
    inspected: InspectedImages, ours: np.ndarray, theirs: np.ndarray, n_examples: int
) -> Tally:
    """Tally pairs of one of our images and one of theirs that look alike; see above."""
    read = inspected.read(np.union1d(ours, theirs).tolist())
    is_ours = np.isin(np.fromiter(read, dtype=np.int64), ours)
    return _look_alike(*_columns(read), inspected.names, n_examples, side=is_ours)


def _inspect_or_error(path: Path) -> _InspectedImage | ImageReadError:
    try:
        image = read_image(path, at_least_px=_HASH_SIDE_PX)
        content = hash_file(path)
        (width_px, height_px), n_frames = read_size_and_frames(path)
        oddities = _find_emptiness(image, path)
    except ImageReadError as error:
        return error
    except OSError as error:
        return ImageReadError(f"{path}: cannot be read: {error.strerror or error}")
    frames = f", {n_frames} frames" if n_frames > 1 else ""
    short, long = sorted((width_px, height_px))
    for kind, is_so in (
        ("several_frames", n_frames > 1),
        ("tiny", short < TINY_SIDE_PX),
        ("extreme", long > EXTREME_ASPECT * short),
    ):
        if is_so:
            oddities[kind] = f"is {width_px} x {height_px} pixels{frames}"
    return _InspectedImage(content, _hash_image(image), oddities)


def _find_emptiness(image: Image.Image, path: Path) -> dict[str, str]:
    """Return why an image that was decoded, RGB on white, shows little; the closest cause."""
    lows, highs = zip(*(band.getextrema() for band in image.split()), strict=True)
    low, high = min(lows), max(highs)
    is_blank = max(np.subtract(highs, lows)) <= _BLANK_RANGE
    is_light = low >= 255 - _FAINT_RANGE
    if not (is_blank or is_light or high <= _FAINT_RANGE):
        return {}
    largest, has_shape = read_hidden(path)
    if largest is not None and largest < 2**FEW_BITS:
        n_bits = largest.bit_length()
        said = f"has 16 bits and no value above {largest:,} of 65,535 ({n_bits} bits)"
        return {"few_bits": said}
    if is_light and has_shape:
        return {"transparent": "is white on transparent ground, which is read as white"}
    if is_blank:
        return {"blank": f"is of one colour ({', '.join(map(str, highs))})"}
    shade = "white" if is_light else "black"
    return {"faint": f"is nearly {shade}: its values are {low} to {high} of 0 to 255"}


def _columns(read: dict[int, _InspectedImage]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `(n,)` indices, numbers of contents, and hashes."""
    indices = np.fromiter(read, dtype=np.int64)
    contents, _ = pd.factorize(np.array([p.content for p in read.values()], dtype=object))
    looks = np.array([image.look for image in read.values()], dtype=np.uint64)
    return indices, contents, looks


def _same_content(
    indices: np.ndarray, contents: np.ndarray, names: Sequence[str], n_examples: int
) -> Tally:
    _, first = np.unique(contents, return_index=True)
    later = np.flatnonzero(first[contents] != np.arange(len(contents)))
    pairs = np.stack([indices[first[contents[later]]], indices[later]], axis=1).tolist()
    return _tally_pairs(pairs, names, n_examples)


def _look_alike(
    indices: np.ndarray,
    contents: np.ndarray,
    looks: np.ndarray,
    names: Sequence[str],
    n_examples: int,
    side: np.ndarray | None = None,
) -> Tally:
    """Tally close pairs with other bytes, the closest first; only across sides if given."""
    pairs, distances = _find_close_hashes(looks, _LOOK_ALIKE_BITS)
    left, right = pairs.T
    is_wanted = contents[left] != contents[right]
    if side is not None:
        is_wanted &= side[left] != side[right]
    chosen = np.flatnonzero(is_wanted)
    chosen = chosen[np.argsort(distances[chosen], kind="stable")]
    examples = (
        f"{show_names(names, indices[pairs[pair]])} ({distances[pair]} of 64 bits differ)"
        for pair in chosen
    )
    return tally(len(chosen), examples, n_examples)


def _tally_pairs(pairs: Sequence[Sequence[int]], names: Sequence[str], n_examples: int) -> Tally:
    return tally(len(pairs), (show_names(names, pair) for pair in pairs), n_examples)
