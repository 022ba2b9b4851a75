"""A collection of named images with their features: what training and answering start from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tripletkit.data.folder import find_meant_folder, locate_images, place_problems
from tripletkit.errors import (
    DataWarning,
    FeatureFileError,
    ImageNameError,
    ImageReadError,
    describe_problems,
)
from tripletkit.features.contents import FileContents, hash_files
from tripletkit.features.encoders import FeatureSource
from tripletkit.features.exported_networks import load_network_function
from tripletkit.features.extract import extract_features
from tripletkit.features.given_features import GivenFeatures, GivenSource
from tripletkit.features.stores import Store
from tripletkit.progress import Progress

logger = logging.getLogger("tripletkit")


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


@dataclass(frozen=True)
class Collection:
    """Features of named images.

    Attributes:
        features: `(n_images, n_features)` float32, in the order of the names; NaN where an
            image is missing or broken.
        problems: what is wrong with those, each with its place.
        n_computed: images that a backbone had to look at; two names of one content are one image.
        n_stored: images whose features were in the store.
    """

    features: np.ndarray
    problems: list[str]
    n_computed: int
    n_stored: int = 0

    def is_usable(self) -> np.ndarray:
        """Return `(n_images,)` bool: the image has features."""
        return np.isfinite(self.features[:, 0])


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
            _with_advice(describe_problems(place_problems(located.problems, places)))
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


def load_collection(
    files: NamedFiles,
    source: FeatureSource | GivenSource,
    store: Store,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Collection:
    """Return the features of named images, from the store or the backbones.

    Args:
        files: from `find_files`.
        source: what the features are of.
        store: where features are kept.
        skip_bad: give NaN where an image cannot be read.
        progress: told (done, total) in images, of each backbone anew.
    Raises:
        ImageReadError: if an image cannot be read, unless bad ones are to be skipped. All
            readable ones are in the store by then.
    """
    if isinstance(source, GivenSource):
        return _take_given(files, source, skip_bad=skip_bad)
    paths, contents = list(files.paths), files.contents(store)
    problems: dict[int, str] = {}
    computed: set[bytes] = set()
    of_parts: list[np.ndarray] = []
    for parts in source.networks:
        extracted = extract_features(
            paths,
            parts[0].backbone,
            [part.space for part in parts],
            store,
            partial(load_network_function, parts, store.folder),
            progress,
            source.views,
            contents,
        )
        ends = np.cumsum([part.n_features for part in parts])[:-1]
        of_parts += np.split(extracted.values, ends, axis=1)
        computed |= extracted.computed
        problems |= extracted.problems
        for index in extracted.problems:
            # The next backbone could not read it either.
            paths[index] = None
    if problems and not skip_bad:
        raise ImageReadError(
            _with_advice(describe_problems(place_problems(problems, files.places)))
        )
    placed = place_problems(files.problems | problems, files.places)
    usable = {
        content
        for path, content in zip(paths, contents.hashes, strict=True)
        if path is not None and content is not None
    }
    return Collection(source.join(of_parts), placed, len(computed), len(usable - computed))


def open_collection(
    files: NamedFiles,
    source: FeatureSource | GivenSource,
    store: Store,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Collection:
    """Load the features of images and say how many were computed; see `load_collection`."""
    collection = load_collection(files, source, store, skip_bad=skip_bad, progress=progress)
    tell_collection(collection, source, len(files.names))
    return collection


def tell_collection(
    collection: Collection, source: FeatureSource | GivenSource, n_images: int
) -> None:
    """Say how many images' features were computed and stored, and which are left out."""
    if n_bad := len(collection.problems):
        warnings.warn(
            f"{n_bad:,} images are left out:\n{describe_problems(collection.problems)}",
            DataWarning,
            stacklevel=3,
        )
    if not source.parts:
        logger.info("Features: %s images given.", f"{n_images - n_bad:,}")
        return
    logger.info(
        "Features: %s images computed, %s from the store.",
        f"{collection.n_computed:,}",
        f"{collection.n_stored:,}",
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


def _take_given(files: NamedFiles, source: GivenSource, *, skip_bad: bool) -> Collection:
    features = source.take(files.names)
    problems = {
        index: f"{files.names[index]}: has no features in {source.given.path}"
        for index in np.flatnonzero(np.isnan(features[:, 0]))
        if index not in files.problems
    }
    if problems and not skip_bad:
        raise FeatureFileError(
            _with_advice(describe_problems(place_problems(problems, files.places)))
        )
    return Collection(features, place_problems(files.problems | problems, files.places), 0)


def _describe_wrong_folder(
    names: Sequence[str], places: Sequence[str], folder: Path, problems: Mapping[int, str]
) -> str:
    meant = find_meant_folder(names[0], folder)
    hint = "Is it the right folder?" if meant is None else f"Did you mean {meant}?"
    return (
        f"{folder}: none of {len(names):,} images found. {hint} The first:\n"
        f"{places[0]}: {problems[0]}"
    )


def _with_advice(problems: str) -> str:
    return f"{problems}\nMend these, or leave them out with `skip_bad=True`."
