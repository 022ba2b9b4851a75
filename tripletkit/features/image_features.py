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


def all_given(given: GivenFeatures) -> Images:
    """Return the names of all given features, which need no files."""
    return open_images(None, given.names, [str(given.path)] * len(given.names))


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
