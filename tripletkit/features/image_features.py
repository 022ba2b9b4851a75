"""Named images and their files: what training and answering start from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tripletkit.data.folder import find_meant_folder, locate_images, place_problems
from tripletkit.errors import (
    DataWarning,
    ImageNameError,
    describe_problems,
)
from tripletkit.features.contents import FileContents, hash_files
from tripletkit.features.given_features import GivenFeatures
from tripletkit.features.stores import Store


@dataclass(frozen=True)
class NamedFiles:
    """Names of images and where their files are.

    Attributes:
        names: distinct.
        places: where each was read (`train.txt:3`), for messages.
        paths: one a name; `None` where there is no such image.
        problems: index of a name -> what is wrong with it.
        has_folder: whether there is a folder of images at all; features may be given without.
    """

    names: Sequence[str]
    places: Sequence[str]
    paths: list[Path | None]
    problems: dict[int, str]
    has_folder: bool = True

    def is_there(self) -> np.ndarray:
        """Return `(n_names,)` bool: the image was found, or none has to be."""
        return np.array([not self.has_folder or path is not None for path in self.paths], bool)

    _contents: FileContents | None = field(default=None, compare=False, repr=False)

    def contents(self, store: Store) -> FileContents:
        """Return the content hash of each file: what an image is, whatever its name.

        They are computed when they are first asked for, and travel with the names from then on.

        Args:
            store: what remembers the hashes of files.
        """
        if self._contents is None:
            object.__setattr__(self, "_contents", hash_files(self.paths, store))
        return self._contents

    def take(self, rows: Sequence[int]) -> NamedFiles:
        """Return some of these files, in the order of their indices as given."""
        place_of = {index: place for place, index in enumerate(rows) if index in self.problems}
        contents = None
        if (known := self._contents) is not None:
            bad = {i: place for place, i in enumerate(rows) if i in known.problems}
            contents = FileContents(
                [known.hashes[index] for index in rows],
                {place: known.problems[index] for index, place in bad.items()},
            )
        return NamedFiles(
            [self.names[index] for index in rows],
            [self.places[index] for index in rows],
            [self.paths[index] for index in rows],
            {place: self.problems[index] for index, place in place_of.items()},
            self.has_folder,
            contents,
        )

    def joined(self, others: NamedFiles) -> NamedFiles:
        """Return these files and then others, which may have the same names."""
        n = len(self.names)
        contents = None
        if self._contents is not None and others._contents is not None:
            contents = FileContents(
                [*self._contents.hashes, *others._contents.hashes],
                self._contents.problems
                | {n + index: why for index, why in others._contents.problems.items()},
            )
        return NamedFiles(
            [*self.names, *others.names],
            [*self.places, *others.places],
            [*self.paths, *others.paths],
            self.problems | {n + index: why for index, why in others.problems.items()},
            self.has_folder,
            contents,
        )


def all_given(given: GivenFeatures) -> NamedFiles:
    """Return the names of all given features, which need no files."""
    nowhere: list[Path | None] = [None] * len(given.names)
    return NamedFiles(given.names, [str(given.path)] * len(nowhere), nowhere, {}, False)


def find_files(
    names: Sequence[str],
    places: Sequence[str],
    folder: Path | None,
    *,
    skip_bad: bool = False,
    follow_outside: bool = False,
) -> NamedFiles:
    """Find the file of every name; cheap, so that it can come before anything slow.

    Args:
        names: distinct names as a triplet file has them.
        places: where each was read.
        folder: the image folder; None where features are given and no image is needed.
        skip_bad: keep going where an image is missing.
        follow_outside: allow names and links that lead out of the folder.
    Raises:
        ImageNameError: if there is no such folder, or a name stands for no image, unless
            bad ones are to be skipped.
    """
    if folder is None:
        return NamedFiles(names, places, [None] * len(names), {}, has_folder=False)
    located = locate_images(names, folder, follow_outside=follow_outside)
    if located.problems and not skip_bad:
        if len(names) > 1 and not any(located.paths):
            raise ImageNameError(_describe_wrong_folder(names, places, folder, located.problems))
        raise ImageNameError(
            with_advice(describe_problems(place_problems(located.problems, places)))
        )
    return NamedFiles(names, places, located.paths, located.problems)


def find_same_images(files: NamedFiles, store: Store) -> np.ndarray:
    """Return `(n_names,)` int64: for each name the first one whose file has the same content.

    So `7`, `7.jpg` and a copy of it are one image, and a split cannot part them.

    Args:
        files: from `find_files`; a name without a readable file stands for itself.
        store: what remembers the hashes of files.
    """
    first_with: dict[bytes, int] = {}
    return np.array(
        [
            index if content is None else first_with.setdefault(content, index)
            for index, content in enumerate(files.contents(store).hashes)
        ],
        dtype=np.int64,
    )


def warn_of_missing(files: NamedFiles) -> None:
    """Say which names stand for no image, and are left out."""
    if files.problems:
        problems = place_problems(files.problems, files.places)
        warnings.warn(
            f"{len(problems):,} images are left out:\n{describe_problems(problems)}",
            DataWarning,
            stacklevel=2,
        )


def _describe_wrong_folder(
    names: Sequence[str], places: Sequence[str], folder: Path, problems: Mapping[int, str]
) -> str:
    meant = find_meant_folder(names[0], folder)
    hint = "Is it the right folder?" if meant is None else f"Did you mean {meant}?"
    return (
        f"{folder}: none of {len(names):,} images found. {hint} The first:\n"
        f"{places[0]}: {problems[0]}"
    )


def with_advice(problems: str) -> str:
    """Add to problems with images what can be done about them."""
    return f"{problems}\nMend these, or leave them out with `skip_bad=True`."
