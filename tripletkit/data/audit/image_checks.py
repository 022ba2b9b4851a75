"""Look at every image that triplets name: can it be read, is it odd, is it there twice?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from tripletkit.data.decoding import read_hidden, read_image, read_size_and_frames
from tripletkit.data.images import Images, thread_pool
from tripletkit.data.outputs import hash_file
from tripletkit.data.questions import Tally, show_names
from tripletkit.errors import ImageReadError
from tripletkit.progress import Progress

# An image whose shorter side is below this has little left to look at; one longer than so many
# times its shorter side is squeezed beyond recognition when it becomes a square.
_TINY_SIDE_PX = 32
_EXTREME_ASPECT = 5
# Of 0 to 255. An image whose channels each span no more than this is blank: a JPEG of one colour is
# hardly ever flat. One whose values all lie within so much of black or of white is faint.
_BLANK_RANGE = 3
_FAINT_RANGE = 25
# An image of 16 bits whose values stay below 2 to the power of this is nearly black as it is read.
_FEW_BITS = 12
# Bits of 64 in which two images that look alike differ at most; see `docs/benchmarks.md`.
_LOOK_ALIKE_BITS = 6
# The hash looks at 32 x 32 pixels; a large JPEG need not be decoded at full size for that.
_HASH_SIDE_PX = 32
# Hashes that are compared with all others at a time, which takes memory.
_HASHES_AT_ONCE = 256
# What the images are counted for: label, attribute, and whether it is a fault.
_LINES = (
    ("names without exactly one image", "unlocated", True),
    ("cannot be decoded", "unreadable", True),
    ("several frames or pages (the first is used)", "several_frames", False),
    (f"tiny: below {_TINY_SIDE_PX} pixels", "tiny", False),
    (f"extreme: over {_EXTREME_ASPECT} times as long as wide", "extreme", False),
    ("blank: of one colour", "blank", True),
    ("nearly black or white all over", "faint", True),
    (f"16 bits, of which {_FEW_BITS} or fewer are used", "few_bits", True),
    ("white on transparent ground", "transparent", True),
    ("same content as another name", "same_content", False),
    ("pairs that look alike", "look_alike", False),
)
_ADVICE = (
    (
        ("unlocated", "unreadable"),
        "Training and answering need these: mend them, or pass `skip_bad=True`.",
    ),
    (
        ("blank", "faint"),
        "There is little to see in images of one colour or nearly black or white: no model can "
        "tell such images apart by more than that shade.",
    ),
    (
        ("few_bits",),
        "65,535 is the white of 16 bits, so these images are read as nearly black: multiply their "
        "values so that the brightest comes near it, or save them with 8 bits.",
    ),
    (
        ("transparent",),
        "Transparent pixels are read as white, on which white cannot be seen: put these images on "
        "a ground that shows them, such as black, and save that.",
    ),
    (
        ("same_content", "look_alike"),
        "The same image under two names can stand on both sides of a split. Give it one name, or "
        "keep both names on one side.",
    ),
)


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

    def items(self) -> Iterator[str | tuple[str, Tally | int, bool]]:
        """Yield label, what was counted, and whether it is a fault; and what to do."""
        yield "decoded", self.n_read, True
        for label, kind, is_fault in _LINES:
            yield label, getattr(self, kind), is_fault
        for kinds, advice in _ADVICE:
            if any(getattr(self, kind).count for kind in kinds):
                yield advice


@dataclass(frozen=True)
class _Look:
    """What one look at an image file tells."""

    content: bytes  # SHA-256 of the file
    hash: np.uint64  # perceptual hash of its pixels
    oddities: dict[str, str]  # attribute of `ImageChecks` -> what a message says of the image


@dataclass(frozen=True)
class InspectedImages:
    """Every image of a list of distinct names, looked at once."""

    names: Sequence[str]
    looks: list[_Look | None]  # None where there is a problem
    unlocated: dict[int, str]  # index of a name -> why it stands for no single image
    unreadable: dict[int, str]  # index of a name -> why its file cannot be decoded
    n_examples: int

    @classmethod
    def of(cls, images: Images, n_examples: int, progress: Progress) -> InspectedImages:
        """Decode every image once, in threads."""
        looks: list[_Look | None] = [None] * len(images.names)
        unreadable: dict[int, str] = {}
        wanted = [(index, path) for index, path in enumerate(images.paths) if path is not None]
        with thread_pool() as pool:
            outcomes = pool.map(_look_or_error, [path for _, path in wanted])
            for done, ((index, _), outcome) in enumerate(zip(wanted, outcomes, strict=True), 1):
                if isinstance(outcome, ImageReadError):
                    unreadable[index] = str(outcome)
                else:
                    looks[index] = outcome
                progress(done, len(wanted))
        return cls(images.names, looks, images.problems, unreadable, n_examples)

    def check(self, places: Sequence[str]) -> ImageChecks:
        """Gather what the first images show, those of one file: one for each place of a name."""
        looks = {i: look for i, look in enumerate(self.looks[: len(places)]) if look is not None}

        said = {"unlocated": self.unlocated, "unreadable": self.unreadable}
        for kind in "several_frames tiny extreme blank faint few_bits transparent".split():
            said[kind] = {
                index: f"{show_names(self.names, [index])} {look.oddities[kind]}"
                for index, look in looks.items()
                if kind in look.oddities
            }
        tallies = {}
        for kind, of_kind in said.items():
            shown = [f"{places[i]}: {of_kind[i]}" for i in sorted(of_kind) if i < len(places)]
            tallies[kind] = Tally.of(len(shown), shown, self.n_examples)
        ours = np.arange(len(places))
        return ImageChecks(
            n_read=len(looks),
            **tallies,
            same_content=self.find_same_content(ours),
            look_alike=self.find_look_alikes(ours),
        )

    def find_same_content(self, ours: np.ndarray, theirs: np.ndarray | None = None) -> Tally:
        """Tally names whose file is an earlier one of ours, byte for byte; or one of theirs.

        Both are indices of names; names of both count as ours.
        """
        first_with: dict[bytes, int] = {}
        for index, look in self._looks_at(ours if theirs is None else np.setdiff1d(theirs, ours)):
            first_with.setdefault(look.content, index)
        found = [(first_with.get(look.content, i), i) for i, look in self._looks_at(ours)]
        pairs = [pair if theirs is None else pair[::-1] for pair in found if pair[0] != pair[1]]
        return Tally.of(
            len(pairs), (show_names(self.names, pair) for pair in pairs), self.n_examples
        )

    def find_look_alikes(self, ours: np.ndarray, theirs: np.ndarray | None = None) -> Tally:
        """Tally close pairs with other bytes, the closest first; or pairs of ours and theirs."""
        found = self._looks_at(ours if theirs is None else np.union1d(ours, theirs))
        indices = np.array([index for index, _ in found], dtype=np.int64)
        contents = np.array([look.content for _, look in found], dtype=object)
        pairs, distances = _find_close_hashes(
            np.array([look.hash for _, look in found], np.uint64), _LOOK_ALIKE_BITS
        )
        left, right = pairs.T
        is_wanted = contents[left] != contents[right]
        if theirs is not None:
            is_ours = np.isin(indices, ours)
            is_wanted &= is_ours[left] != is_ours[right]
        chosen = np.flatnonzero(is_wanted)
        chosen = chosen[np.argsort(distances[chosen], kind="stable")]
        examples = (
            f"{show_names(self.names, indices[pairs[pair]])} ({distances[pair]} of 64 bits differ)"
            for pair in chosen
        )
        return Tally.of(len(chosen), examples, self.n_examples)

    def _looks_at(self, indices: np.ndarray) -> list[tuple[int, _Look]]:
        return [(i, look) for i in indices.tolist() if (look := self.looks[i]) is not None]


def _look_or_error(path: Path) -> _Look | ImageReadError:
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
        ("tiny", short < _TINY_SIDE_PX),
        ("extreme", long > _EXTREME_ASPECT * short),
    ):
        if is_so:
            oddities[kind] = f"is {width_px} x {height_px} pixels{frames}"
    return _Look(content, _hash_image(image), oddities)


def _find_emptiness(image: Image.Image, path: Path) -> dict[str, str]:
    """Return why an image that was decoded, RGB on white, shows little; the closest cause."""
    lows, highs = zip(*(band.getextrema() for band in image.split()), strict=True)
    low, high = min(lows), max(highs)
    is_blank = max(np.subtract(highs, lows)) <= _BLANK_RANGE
    is_light = low >= 255 - _FAINT_RANGE
    if not (is_blank or is_light or high <= _FAINT_RANGE):
        return {}
    largest, has_shape = read_hidden(path)
    if largest is not None and largest < 2**_FEW_BITS:
        n_bits = largest.bit_length()
        said = f"has 16 bits and no value above {largest:,} of 65,535 ({n_bits} bits)"
        return {"few_bits": said}
    if is_light and has_shape:
        return {"transparent": "is white on transparent ground, which is read as white"}
    if is_blank:
        return {"blank": f"is of one colour ({', '.join(map(str, highs))})"}
    shade = "white" if is_light else "black"
    return {"faint": f"is nearly {shade}: its values are {low} to {high} of 0 to 255"}


def _hash_image(image: Image.Image) -> np.uint64:
    """Return a 64-bit hash that scaling, recompression and small changes of tone hardly move.

    Reference:
        Zauner. Implementation and Benchmarking of Perceptual Image Hash Functions. 2010
        (the DCT hash, as the library ImageHash has it).
    """
    return np.packbits(imagehash.phash(image).hash).view(np.uint64)[0]


def _find_close_hashes(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of hashes `(n,)` uint64 that differ in few bits, and in how many.

    Groups of equal hashes are linked to their first member only, so that a thousand blank images
    are a thousand pairs and not half a million. Pairs are sorted, the smaller index first.
    """
    distinct, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    others = np.flatnonzero(first[group] != np.arange(len(hashes)))
    pairs = [np.stack([first[group[others]], others], axis=1)]
    # Cut into one part more than bits may differ, two close hashes agree in a part entirely.
    for bits in np.array_split(np.arange(64, dtype=np.uint64), max_distance + 1):
        keys = distinct & np.bitwise_or.reduce(np.uint64(1) << bits)
        order = np.argsort(keys, kind="stable")
        for alike in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for start in range(0, len(alike), _HASHES_AT_ONCE):
                left, right = alike[start : start + _HASHES_AT_ONCE], alike[start:]
                is_close = np.bitwise_count(distinct[left, None] ^ distinct[right]) <= max_distance
                one, other = np.nonzero(np.triu(is_close, 1))
                pairs.append(first[np.stack([left[one], right[other]], axis=1)])
    found = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return found, np.bitwise_count(hashes[found[:, 0]] ^ hashes[found[:, 1]])
