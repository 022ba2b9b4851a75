"""Features of very many images into a dataset, by this process or by workers that Ray runs.

What is done is decided by the dataset: images that have a row in it are left alone, so a run that
was killed, however, is finished by the next one. Whoever encodes a block of images writes it as one
file, whole or not at all. A vector depends on nothing but its image, so it does not matter who.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit.data.images import Images, open_usable_images
from tripletkit.data.unfinished import remove_unfinished
from tripletkit.errors import FeatureFileError, ImageNameError, SettingsError, describe_problems
from tripletkit.features.encoder import Encoder
from tripletkit.features.exported_networks import load_network_function
from tripletkit.features.extract import FeatureFunction
from tripletkit.features.feature_dataset import (
    DTYPES,
    DatasetFacts,
    DatasetPart,
    keep_rows,
    list_parts,
    write_part,
)
from tripletkit.features.feature_parts import FeaturePart
from tripletkit.features.store import MemoryStore
from tripletkit.features.store_file import file_stamp
from tripletkit.progress import Progress, no_progress

# Images in a file of an extracted dataset: what a killed worker loses at most.
BLOCK_IMAGES = 512

logger = logging.getLogger("tripletkit")

# Beside the features: networks that were written on first use, for all workers.
_OWN_FOLDER = ".tripletkit"


@dataclass(frozen=True)
class Block:
    """Images that become one file.

    Attributes:
        names: of the images.
        paths: of their files; None where there is none.
        reasons: why there is none; None elsewhere.
    """

    names: list[str]
    paths: list[str | None]
    reasons: list[str | None]


@dataclass(frozen=True)
class BlockResult:
    """What became of a block: how many images it has, and which have no features."""

    n_images: int
    problems: dict[str, str]


# Runs blocks: yields what became of each, in any order.
Runner = Callable[["BlockEncoder", Sequence[Block]], Iterator[BlockResult]]


@dataclass
class ExtractionResult:
    """What an extraction came to.

    Attributes:
        n_images: that were asked for.
        n_stored: that were there.
        n_computed: that were encoded.
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


class BlockEncoder:
    """Encodes blocks of images and writes each as a file of a dataset; survives `pickle`.

    Args:
        encoder: what vectors are of.
        folder: of the dataset.
        dtype: how numbers are kept, one of `DTYPES`.
    """

    def __init__(self, encoder: Encoder, folder: Path, dtype: str) -> None:
        self.encoder, self.folder = encoder, folder
        self.facts = DatasetFacts(dict(encoder.facts), encoder.n_features, dtype)
        self._functions: dict[str, FeatureFunction] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_functions": {}}

    def __call__(self, block: Block) -> BlockResult:
        """Encode a block and write it.

        Raises:
            FeatureFileError: if the dataset's type cannot hold a number.
            StoreError: if it cannot be written.
        """
        images = open_usable_images(
            [Path(path or name) for name, path in zip(block.names, block.paths, strict=True)],
            block.names,
        )
        store = MemoryStore(self.folder / _OWN_FOLDER)
        found = self.encoder.load(images, store, load_network=self._load_network)
        problems = [
            why or _without(path, found.problems.get(row))
            for row, (path, why) in enumerate(zip(block.paths, block.reasons, strict=True))
        ]
        try:
            write_part(
                self.folder,
                block.names,
                images.contents(store).hashes,
                found.features,
                problems,
                self.facts,
            )
        except FeatureFileError as error:
            if self.facts.dtype == DTYPES[0]:
                raise
            raise FeatureFileError(f"{error} Or take `dtype={DTYPES[0]}`.") from error
        pairs = zip(block.names, problems, strict=True)
        return BlockResult(len(block.names), {name: why for name, why in pairs if why is not None})

    def prepare(self) -> None:
        """Write networks where workers find them, so that none of them needs Keras for that."""
        for parts in self.encoder.networks:
            side = parts[0].backbone.input_size_px
            shape = (parts[0].backbone.batch_size, side, side, 3)
            noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            self._load_network(parts, self.folder / _OWN_FOLDER)(noise)

    def _load_network(self, parts: Sequence[FeaturePart], folder: Path) -> FeatureFunction:
        key = " ".join(part.space.fingerprint for part in parts)
        if key not in self._functions:
            self._functions[key] = load_network_function(parts, folder)
        return self._functions[key]


def extract_dataset(
    images: Images,
    encoder: Encoder,
    folder: Path,
    dtype: str | None = None,
    run: Runner | None = None,
    progress: Progress = no_progress,
) -> ExtractionResult:
    """Write the features of images as a dataset, but for those that are there.

    Args:
        images: that are wanted; those that are missing or cannot be read get a row with the reason.
        encoder: what features are of.
        folder: of the dataset, made if it is new.
        dtype: how numbers are kept, one of `DTYPES`. Defaults to what is there, then to float32.
        run: does the work. Defaults to this process.
        progress: told (done, total) in images.
    Raises:
        FeatureFileError: if the folder holds something else, is damaged, or the type cannot hold a
            number.
        StoreError: if it cannot be written.
        BackboneError, WeightsError: if weights cannot be had.
        NetworkFileError: if an encoder cannot be run, or answers wrongly.
    """
    if encoder.is_given:
        raise SettingsError("features", "expected an encoder, `features` are there already")
    if bad := [name for name in images.names if not _is_utf8(name)]:
        raise ImageNameError(f"{bad[0]!r}: expected names in UTF-8. Rename the file.")
    parts, there = _open_folder(folder)
    work = BlockEncoder(encoder, folder, dtype or (there.dtype if there else DTYPES[0]))
    if there is not None and there != work.facts:
        what = "numbers of another type" if there.features == work.facts.features else (
            "features of another encoder"
        )  # fmt: skip
        raise FeatureFileError(f"{folder}: holds {what}. Choose another folder.")
    result = ExtractionResult(len(images.names))
    blocks = _plan(images, parts, work.facts, result)
    n_left = sum(len(block.names) for block in blocks)
    result.n_stored = result.n_images - n_left
    if blocks:
        (folder / _OWN_FOLDER).mkdir(exist_ok=True)
        n_done = 0
        for done in (run or _run_here)(work, blocks):
            n_done += done.n_images
            result.problems |= done.problems
            result.n_computed += done.n_images - len(done.problems)
            progress(n_done, n_left)
    return result


def choose_share(images: Images, text: str) -> Images:
    """Return one of several equal shares of images: `3/16` is the third of sixteen.

    Raises:
        SettingsError: if the text is none.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise SettingsError(
            "shard", f"`shard`: expected a share such as 3/16, from 1/16 to 16/16, got {text}."
        )
    return images.take(range(number - 1, len(images.names), of))


def _run_here(work: BlockEncoder, blocks: Sequence[Block]) -> Iterator[BlockResult]:
    return map(work, blocks)


def _open_folder(folder: Path) -> tuple[list[DatasetPart], DatasetFacts | None]:
    """Return what is in a folder, made if it is new.

    Raises:
        FeatureFileError: if something else is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    parts, facts = list_parts(folder)
    strange = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if facts is None and strange:
        raise FeatureFileError(
            f"{folder}: expected a new folder or one that `extract` wrote, there is "
            f"{sorted(strange)[0]} in it. Choose another folder."
        )
    return parts, facts


def _plan(
    images: Images, parts: Sequence[DatasetPart], facts: DatasetFacts, result: ExtractionResult
) -> list[Block]:
    """Return what is left to do; rows of images that changed since are taken away."""
    path_of = dict(zip(images.names, images.paths, strict=True))
    done: dict[str, str | None] = {}
    for part in parts:
        written_ns = part.path.stat().st_mtime_ns
        kept = [
            row
            for row, name in enumerate(part.names)
            if name not in done
            and not _has_changed(path_of.get(name), part.contents[row], written_ns)
        ]
        done |= {part.names[row]: part.problems[row] for row in kept}
        if len(kept) < len(part.names):
            keep_rows(part, kept, facts)
    result.problems |= {name: why for name in images.names if (why := done.get(name))}
    left = [row for row, name in enumerate(images.names) if name not in done]
    size = BLOCK_IMAGES
    return [
        Block(
            [images.names[row] for row in left[start : start + size]],
            [_text(images.paths[row]) for row in left[start : start + size]],
            [images.problems.get(row) for row in left[start : start + size]],
        )
        for start in range(0, len(left), size)
    ]


def _has_changed(path: Path | None, content: bytes | None, written_ns: int) -> bool:
    """Return whether a file holds something else than when its row was written."""
    if path is None:
        return False
    if content is None:
        # It could not be read then; it may be whole now.
        return path.is_file()
    try:
        if file_stamp(path.stat())[1] < written_ns:
            return False
    except OSError:
        return False
    memory = MemoryStore(path.parent)
    return open_usable_images([path]).contents(memory).hashes != [content]


def _without(path: str | None, problem: str | None) -> str | None:
    """Return a problem without the path, which the row's name stands for."""
    return problem and problem.removeprefix(f"{path}: ")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _is_utf8(name: str) -> bool:
    return name.encode("utf-8", "replace").decode("utf-8") == name
