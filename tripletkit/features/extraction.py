"""Features of very many images into a dataset, by this process or by workers that Ray runs.

What is done is decided by the dataset: images that have a row in it are left alone, so a run that
was killed, however, is finished by the next one. Whoever encodes a block of images writes it as one
file, whole or not at all. A vector depends on nothing but its image, so it does not matter who.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit.data.images import Images
from tripletkit.data.outputs import explain_failure, remove_unfinished
from tripletkit.errors import (
    DataWarning,
    FeatureFileError,
    ImageNameError,
    SettingsError,
    caution,
    describe_problems,
)
from tripletkit.features.encoder import Encoder
from tripletkit.features.extract import FeatureFunction
from tripletkit.features.feature_dataset import (
    DTYPES,
    DatasetFacts,
    DatasetPart,
    keep_rows,
    list_parts,
    write_part,
)
from tripletkit.features.store import FeatureStore, file_stamp
from tripletkit.progress import Progress, no_progress
from tripletkit.results import Result, Section

# Images in a file of an extracted dataset: what a killed worker loses at most.
BLOCK_IMAGES = 512
# Beside the features: networks that were written on first use, for all workers.
_OWN_FOLDER = ".tripletkit"


# What became of a block: how many images it has, and which have no features, with the reason.
BlockResult = tuple[int, dict[str, str]]


@dataclass(repr=False)
class ExtractionResult(Result):
    """What an extraction came to.

    Attributes:
        output: the folder of the features.
        n_images: that were asked for.
        n_stored: that were there.
        n_computed: that were encoded.
        problems: name -> why it has no features, from this run or an earlier one.
    """

    output: Path
    n_images: int
    n_stored: int = 0
    n_computed: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return vars(self) | {"output": str(self.output)}

    def _summary(self) -> str:
        return (
            f"{self.n_images:,} images: {self.n_computed:,} computed, {self.n_stored:,} were in "
            f"{self.output}."
        )

    def _sections(self) -> list[Section]:
        return [[self._summary()]]


class BlockEncoder:
    """Encodes blocks of images and writes each as a file of a dataset; survives `pickle`."""

    def __init__(self, encoder: Encoder, folder: Path, dtype: str) -> None:
        self.encoder, self.folder = encoder, folder
        self.facts = DatasetFacts(dict(encoder.facts), encoder.n_features, dtype)
        self._functions: list[FeatureFunction] = []

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_functions": []}

    def __call__(self, block: Images) -> BlockResult:
        """Encode a block and write it."""
        with FeatureStore(self.folder, in_memory=True) as store:
            functions = self._load_functions()
            found = self.encoder.load(block, store, tell=False, functions=functions)
            contents = block.contents(store).hashes
        problems = {
            # The path goes, which the row's name stands for.
            block.names[row]: why.removeprefix(f"{block.paths[row]}: ")
            for row, why in found.problems.items()
        }
        reasons = list(map(problems.get, block.names))
        try:
            write_part(self.folder, block.names, contents, found.features, reasons, self.facts)
        except FeatureFileError as error:
            if self.facts.dtype == DTYPES[0]:
                raise
            raise FeatureFileError(f"{error} Or take `dtype={DTYPES[0]}`.") from error
        return len(block.names), problems

    def prepare(self) -> None:
        """Write networks where workers find them, so that none of them needs Keras for that."""
        for parts, function in zip(self.encoder.networks, self._load_functions(), strict=True):
            backbone = parts[0].backbone
            shape = (backbone.batch_size, backbone.input_size_px, backbone.input_size_px, 3)
            function(np.random.default_rng(0).integers(0, 256, shape, np.uint8))

    def _load_functions(self) -> list[FeatureFunction]:
        if not self._functions:
            self._functions = self.encoder.network_functions(self.folder / _OWN_FOLDER)
        return self._functions


# Runs blocks: yields what became of each, in any order.
_Runner = Callable[[BlockEncoder, Sequence[Images]], Iterator[BlockResult]]


def extract_dataset(
    images: Images,
    encoder: Encoder,
    folder: Path,
    dtype: str | None = None,
    run: _Runner = map,
    progress: Progress = no_progress,
) -> ExtractionResult:
    """Write the features of images as a dataset, but for those that are there.

    Args:
        images: that are wanted; those that are missing or cannot be read get a row with the reason.
        folder: of the dataset, made if it is new.
        dtype: how numbers are kept, one of `DTYPES`. Defaults to what is there, then to float32.
        run: does the work; a plain loop is this process.
        progress: told (done, total) in images.
    """
    if encoder.is_given:
        raise SettingsError("features", "expected an encoder, `features` are there already")
    if bad := [name for name in images.names if not _is_utf8(name)]:
        raise ImageNameError(f"{bad[0]!r}: expected names in UTF-8. Rename the file.")
    parts = _open_folder(folder)
    there = parts[0].facts if parts else None
    work = BlockEncoder(encoder, folder, dtype or (there.dtype if there else DTYPES[0]))
    if there is not None and there != work.facts:
        is_same = there.features == work.facts.features
        what = "numbers of another type" if is_same else "features of another encoder"
        raise FeatureFileError(f"{folder}: holds {what}. Choose another folder.")
    result = ExtractionResult(folder, len(images.names))
    blocks = _plan(images, parts, result)
    n_left = sum(len(block.names) for block in blocks)
    result.n_stored = result.n_images - n_left
    if blocks:
        (folder / _OWN_FOLDER).mkdir(exist_ok=True)
        n_done = 0
        for n_images, problems in run(work, blocks):
            n_done += n_images
            result.problems |= problems
            result.n_computed += n_images - len(problems)
            progress(n_done, n_left)
    if result.problems:
        shown = describe_problems([f"{name}: {why}" for name, why in result.problems.items()])
        caution(f"{len(result.problems):,} images have no features:\n{shown}", DataWarning)
    return result


def choose_share(images: Images, text: str) -> Images:
    """Return one of several equal shares of images: `3/16` is the third of sixteen."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise SettingsError(
            "shard", f"`shard`: expected a share such as 3/16, from 1/16 to 16/16, got {text}."
        )
    return images.take(range(number - 1, len(images.names), of))


def _open_folder(folder: Path) -> list[DatasetPart]:
    """Return what is in a folder, made if it is new; refuse one with something else in it."""
    with explain_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    parts = list_parts(folder)
    strange = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if strange and not parts:
        raise FeatureFileError(
            f"{folder}: expected a new folder or one that `extract` wrote, there is {strange[0]} "
            "in it. Choose another folder."
        )
    return parts


def _plan(images: Images, parts: Sequence[DatasetPart], result: ExtractionResult) -> list[Images]:
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
            keep_rows(part, kept)
    result.problems |= {name: why for name in images.names if (why := done.get(name))}
    left = [row for row, name in enumerate(images.names) if name not in done]
    chunks = (left[start : start + BLOCK_IMAGES] for start in range(0, len(left), BLOCK_IMAGES))
    return [images.take(rows).usable() for rows in chunks]


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
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() != content
    except OSError:
        return False


def _is_utf8(name: str) -> bool:
    return name.encode("utf-8", "replace").decode("utf-8") == name
