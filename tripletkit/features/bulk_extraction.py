"""Filling a shared store with the features of a folder or a list of images, in blocks.

What is done is decided by the store: images that have a row in it are left alone. So a run that was
killed, however, is finished by the next one. Blocks are cut from the whole list, not from what is
left of it, so that two runs over one list write the same files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from stat import S_ISREG

import numpy as np

from tripletkit import defaults
from tripletkit.data.folder import list_images
from tripletkit.data.text_files import check_text, content_lines, read_bytes
from tripletkit.errors import ImageNameError, SettingsError, describe_problems
from tripletkit.features.blocks import (
    Block,
    BlockJob,
    BlockResult,
    encode_block,
    read_image,
    write_block,
)
from tripletkit.features.decoded_images import read_ahead
from tripletkit.features.encoder import Encoder
from tripletkit.features.shard_store import ShardStore
from tripletkit.features.shards import is_among
from tripletkit.progress import Progress, no_progress

# Runs blocks: yields what became of each, in any order.
Runner = Callable[[Sequence[Block], BlockJob], Iterator[BlockResult]]


@dataclass(frozen=True)
class ImageList:
    """Images whose features are wanted.

    Attributes:
        names: distinct: below the folder, or as they stand in the list.
        paths: of the files.
        inside: the real folder that they have to lie in; None where they may lie anywhere.
    """

    names: Sequence[str]
    paths: Sequence[str]
    inside: Path | None = None

    def share(self, text: str) -> ImageList:
        """Return one of several equal shares: `3/16` is the third of sixteen.

        Raises:
            SettingsError: if the text is none.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of:
            raise SettingsError(
                "shard", f"`shard`: expected a share such as 3/16, from 1/16 to 16/16, got {text}."
            )
        return replace(self, names=self.names[number - 1 :: of], paths=self.paths[number - 1 :: of])


@dataclass
class BulkResult:
    """What an extraction came to.

    Attributes:
        n_images: that were asked for.
        n_stored: that needed nothing.
        n_computed: contents that a network looked at.
        problems: name -> why it has no features, from this run or an earlier one.
    """

    n_images: int
    n_stored: int = 0
    n_computed: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def describe_problems(self) -> str:
        """Return the first images without features, and how many there are."""
        shown = describe_problems([f"{name}: {why}" for name, why in self.problems.items()])
        return f"{len(self.problems):,} images have no features:\n{shown}"


def list_sources(
    images: Path, *, follow_outside: bool = False, share: str | None = None
) -> ImageList:
    """Return the images below a folder, or those that a text file lists, or a share of them.

    A list has a path a line, absolute or from the folder that the list is in; blank lines and `#`
    comments are left out.

    Raises:
        ImageNameError: if there is none.
        TripletFileError: if the list is no text.
        SettingsError: if the share is none.
    """
    if images.is_dir():
        names = list_images(images)
        paths = [f"{images}/{name}" for name in names]
        inside = None if follow_outside else images.resolve()
    else:
        data, shown = read_bytes(images)
        lines = (line.strip(" \t") for _, _, line in content_lines(check_text(data, shown)))
        names = list(dict.fromkeys(lines))
        paths = [str(images.parent / name) for name in names]
        inside = None
    if not names:
        raise ImageNameError(f"{images}: expected images, there is none in it")
    listed = ImageList(names, paths, inside)
    return listed if share is None else listed.share(share)


def extract_in_bulk(
    listed: ImageList,
    source: Encoder,
    store: ShardStore,
    run: Runner | None = None,
    progress: Progress = no_progress,
) -> BulkResult:
    """Write the features of images into a shared store, unless they are there.

    Args:
        listed: the images.
        source: what features are of.
        store: to write to.
        run: does the work. Defaults to this process.
        progress: told (done, total) in images, of each network anew.
    Raises:
        StoreError: if the store cannot be written.
        BackboneError, WeightsError: if the weights cannot be had.
    """
    store.tidy()
    result = BulkResult(len(listed.names))
    hashes = _stored_hashes(listed, store)
    for parts in source.networks:
        job = BlockJob(parts, source.views, store.folder, listed.inside)
        blocks, job = _plan(listed, hashes, job, store, result)
        n_left = sum(map(len, blocks))
        n_done = 0
        for done in (run or run_here)(blocks, job) if blocks else ():
            n_done += done.n_images
            result.n_computed += done.n_computed
            result.problems |= done.problems
            progress(n_done, n_left)
        result.n_stored += len(listed.names) - n_left
    result.n_stored //= len(source.networks)
    return result


def run_here(blocks: Sequence[Block], job: BlockJob) -> Iterator[BlockResult]:
    """Do the work in this process: files are read in threads, ahead of the network."""
    function = None
    paths = (path for block in blocks for path in block.paths)
    images = read_ahead(lambda path: read_image(path, job), paths, defaults.DECODE_AHEAD)
    with ShardStore(job.store_folder) as store:
        for block in blocks:
            found = list(islice(images, len(block)))
            if function is None and any(image.pixels is not None for image in found):
                function = job.load_function()
            yield write_block(encode_block(block, found, job, function), job, store)


def prepare_network(job: BlockJob) -> None:
    """Write the network where workers find it, so that none of them needs Keras for that."""
    side = job.backbone.input_size_px
    shape = (defaults.EXTRACT_BATCH_SIZE, side, side, 3)
    job.load_function()(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def _stored_hashes(listed: ImageList, store: ShardStore) -> list[bytes | None]:
    """Return the hash that is kept for each file; None where it is new, changed, or gone."""
    hashes: list[bytes | None] = [None] * len(listed.names)
    if not store.knows_files():
        return hashes
    indices, stats = [], []
    for index, stat in enumerate(read_ahead(_stat, listed.paths, defaults.DECODE_AHEAD)):
        if stat is not None:
            indices.append(index)
            stats.append(stat)
    known = store.content_hashes([Path(listed.paths[index]) for index in indices], stats)
    for index, content in zip(indices, known, strict=True):
        hashes[index] = content
    return hashes


def _plan(
    listed: ImageList,
    hashes: Sequence[bytes | None],
    job: BlockJob,
    store: ShardStore,
    result: BulkResult,
) -> tuple[list[Block], BlockJob]:
    """Return what is left of each block, and what workers have to know of the store."""
    known: np.ndarray | None = None
    unreadable: dict[str, str] = {}
    for _, space, _ in job.spaces:
        of_space = store.content_starts(space)
        known = of_space if known is None else np.intersect1d(known, of_space)
        unreadable |= store.unreadable(space)
    indices = [index for index, content in enumerate(hashes) if content is not None]
    contents = [hashes[index] for index in indices]
    starts = np.frombuffer(b"".join(content[:8] for content in contents), "<u8")
    is_done = np.zeros(len(hashes), bool)
    is_done[np.array(indices, np.int64)] = is_among(starts, known)
    done = [index for index in indices if is_done[index]]
    reason_of = store.reasons(job.spaces[0][1], {hashes[index] for index in done})
    result.problems |= {
        listed.names[index]: reason_of[hashes[index]]
        for index in done
        if hashes[index] in reason_of
    }
    blocks = []
    for start in range(0, len(listed.names), job.block_images):
        end = min(start + job.block_images, len(listed.names))
        left = start + np.flatnonzero(~is_done[start:end])
        if len(left):
            names, paths = (
                [values[row] for row in left] for values in (listed.names, listed.paths)
            )
            blocks.append(Block(tuple(names), tuple(paths)))
    return blocks, replace(job, known=known, unreadable=frozenset(unreadable.items()))


def _stat(path: str) -> os.stat_result | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat if S_ISREG(stat.st_mode) else None
