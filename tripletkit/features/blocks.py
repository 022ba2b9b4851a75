"""A block of images on its way into a shared store: read, encoded, written.

One process does the three one after another, or Ray many of them at once on many machines. Whoever
does it, a block becomes the same rows: batches have one shape, so a vector depends on nothing but
its image.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.errors import ImageReadError
from tripletkit.features.backbones import Backbone
from tripletkit.features.exported_networks import load_network_function
from tripletkit.features.extract import FeatureFunction, view_space
from tripletkit.features.feature_parts import FeaturePart
from tripletkit.features.image_views import View, read_views
from tripletkit.features.shard_store import ShardStore
from tripletkit.features.shards import ImageRow
from tripletkit.features.store import FeatureSpace
from tripletkit.features.store_file import file_stamp

# Read twice, not kept in memory beside its pixels.
_LARGE_FILE_BYTES = 1 << 26


@dataclass(frozen=True)
class Block:
    """Images that become one shard of each feature space.

    Attributes:
        names: as they are to be kept.
        paths: of the files.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class BlockJob:
    """What is done to blocks: one network, at some depths, over some views.

    Attributes:
        parts: of one network.
        views: of each image.
        store_folder: of the shared store.
        inside: the real folder that images have to lie in; None where they may lie anywhere.
        known: `(n,)` uint64, sorted: the first 8 bytes of the contents that need nothing more.
        unreadable: (name, reason) of files that could not be read before.
    """

    parts: tuple[FeaturePart, ...]
    views: tuple[View, ...]
    store_folder: Path
    inside: Path | None = None
    known: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64), compare=False)
    unreadable: frozenset[tuple[str, str]] = frozenset()

    @property
    def backbone(self) -> Backbone:
        return self.parts[0].backbone

    @property
    def block_images(self) -> int:
        """How many images a block has: fewer of those that take more room."""
        usual_px = defaults.BLOCK_SIDE_PX**2
        pixels = self.backbone.input_size_px**2 * len(self.views)
        batches = defaults.BLOCK_BATCHES * min(1.0, usual_px / pixels)
        return max(1, int(batches)) * defaults.EXTRACT_BATCH_SIZE

    @cached_property
    def spaces(self) -> list[tuple[int, FeatureSpace, slice]]:
        """Each feature space: number of its view, itself, its columns of the network's output."""
        ends = np.cumsum([part.n_features for part in self.parts]).tolist()
        columns = list(map(slice, [0, *ends], ends))
        return [
            (number, view_space(part.space, view), of_part)
            for number, view in enumerate(self.views)
            for part, of_part in zip(self.parts, columns, strict=False)
        ]

    def load_function(self) -> FeatureFunction:
        """Return the function of the network; see `load_network_function`."""
        return load_network_function(self.parts, self.store_folder)


@dataclass(frozen=True)
class ReadImage:
    """What was found in a file.

    Attributes:
        content: SHA-256; None where it could not be read.
        stamp: size in bytes and time in ns of the last change.
        pixels: `(n_views, side, side, 3)` uint8; None where there is a reason, or no need.
        reason: why there are none.
    """

    content: bytes | None = None
    stamp: tuple[int, int] | None = None
    pixels: np.ndarray | None = None
    reason: str | None = None


@dataclass(frozen=True)
class EncodedBlock:
    """A block with its vectors.

    Attributes:
        block: its names and paths.
        images: what was found in the files, without pixels.
        rows: those images that are to be written.
        features: `(n_views, len(rows), n_features of all parts)` float32; NaN where there are none.
    """

    block: Block
    images: Sequence[ReadImage]
    rows: list[int]
    features: np.ndarray


@dataclass(frozen=True)
class BlockResult:
    """What became of a block.

    Attributes:
        n_images: that it has.
        n_computed: that the network looked at.
        problems: name -> why it has no features.
    """

    n_images: int
    n_computed: int
    problems: dict[str, str]


def read_image(path: str, job: BlockJob) -> ReadImage:
    """Read, hash and decode a file; what is wrong with it is a reason, not an error."""
    try:
        if job.inside is not None and not Path(path).resolve().is_relative_to(job.inside):
            return ReadImage(
                reason="a link that leads out of the image folder; `follow_outside=True` allows it"
            )
        return _read(Path(path), job)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return ReadImage(reason=f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _read(path: Path, job: BlockJob) -> ReadImage:
    how = job.backbone.preprocessing
    with path.open("rb") as file:
        before = file_stamp(os.fstat(file.fileno()))
        is_large = before[0] > _LARGE_FILE_BYTES
        source = file if is_large else io.BytesIO(file.read())
        content = hashlib.file_digest(source, "sha256").digest()
        if _is_known(content, job.known):
            return ReadImage(content, before)
        source.seek(0)
        try:
            pixels = read_views(path, job.backbone.input_size_px, how, job.views, source)
        except ImageReadError as error:
            return ReadImage(content, before, reason=str(error).removeprefix(f"{path}: "))
        if is_large and file_stamp(os.fstat(file.fileno())) != before:
            return ReadImage(reason="changed while it was being read; run the command again")
    return ReadImage(content, before, pixels)


def encode_block(
    block: Block, images: Sequence[ReadImage], job: BlockJob, function: FeatureFunction
) -> EncodedBlock:
    """Compute the vectors of a block, each distinct content once."""
    first_of: dict[bytes | None, int] = {}
    for row, image in enumerate(images):
        if image.pixels is not None:
            first_of.setdefault(image.content, row)
    with_pixels = sorted(first_of.values())
    n_features = sum(part.n_features for part in job.parts)
    computed = np.full((len(job.views), len(images), n_features), np.nan, np.float32)
    size = defaults.EXTRACT_BATCH_SIZE
    for start in range(0, len(with_pixels), size):
        rows = with_pixels[start : start + size]
        pixels = np.stack([images[row].pixels for row in rows])
        filled = np.zeros((size, *pixels.shape[1:]), np.uint8)
        filled[: len(rows)] = pixels
        for number in range(len(job.views)):
            batch = np.ascontiguousarray(filled[:, number])
            computed[number, rows] = function(batch)[: len(rows)]
    rows = _rows_to_write(images, set(with_pixels))
    without_pixels = [ReadImage(image.content, image.stamp, None, image.reason) for image in images]
    return EncodedBlock(block, without_pixels, rows, computed[:, rows])


def write_block(encoded: EncodedBlock, job: BlockJob, store: ShardStore) -> BlockResult:
    """Write the rows of a block that are new, and remember its files.

    Raises:
        StoreError: if it cannot be written.
    """
    block, images = encoded.block, encoded.images
    reasons = {row: images[row].reason for row in range(len(block)) if images[row].reason}
    for number, space, columns in job.spaces:
        features = encoded.features[number, :, columns]
        stored = store.as_stored(features)
        rows, kept = [], []
        for place, row in enumerate(encoded.rows):
            reason = images[row].reason
            if reason is None and not np.isfinite(stored[place]).all():
                is_finite = np.isfinite(features[place]).all()
                reason = f"its features are too large for {store.dtype}"
                if not is_finite:
                    reason = "the backbone gives no finite numbers for it"
                reasons[row] = reason
            if images[row].content is None and (block.names[row], reason) in job.unreadable:
                continue
            rows.append(ImageRow(images[row].content, block.names[row], reason))
            kept.append(place)
        if rows:
            store.write_rows(space, rows, features[kept])
    store.remember_stamps(
        [
            (path, image.stamp, image.content)
            for path, image in zip(block.paths, images, strict=True)
            if image.content is not None and image.stamp is not None
        ]
    )
    n_computed = sum(images[row].reason is None for row in encoded.rows)
    problems = {block.names[row]: reason for row, reason in reasons.items() if reason}
    return BlockResult(len(block), n_computed, problems)


def _rows_to_write(images: Sequence[ReadImage], with_pixels: set[int]) -> list[int]:
    """Return images that have new vectors, or a reason for none, each content once."""
    rows, seen = [], set()
    for row, image in enumerate(images):
        if image.reason is not None and (image.content is None or image.content not in seen):
            seen.add(image.content)
            rows.append(row)
        elif row in with_pixels:
            rows.append(row)
    return rows


def _is_known(content: bytes, known: np.ndarray) -> bool:
    start = np.frombuffer(content[:8], "<u8")[0]
    place = np.searchsorted(known, start)
    return bool(place < len(known) and known[place] == start)
