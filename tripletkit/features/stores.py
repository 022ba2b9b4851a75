"""Feature stores behind one interface: that of one machine, and the shared one.

Which one a folder holds, the folder says itself: `extract` makes a shared one, everything else that
of one machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from tripletkit.errors import StoreError
from tripletkit.features.shard_folder import (
    clear_shared_store,
    is_shared_store,
    make_shared_store,
    shared_store_bytes,
)
from tripletkit.features.shard_store import ShardStore
from tripletkit.features.store import (
    FILE_NAME,
    FeatureSpace,
    FeatureStore,
    SpaceUse,
    default_folder,
)
from tripletkit.features.store_care import clear_store


class Store(Protocol):
    """What every feature store does; see `FeatureStore`, which explains each.

    Attributes:
        folder: where it is; networks are kept there, too.
        path: of the file or folder with the features, for messages.
    """

    folder: Path
    path: Path

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def content_hashes(self, paths: Sequence[Path], stats: Sequence[os.stat_result]) -> list: ...
    def remember_files(self, files: Iterable[tuple[Path, os.stat_result, bytes]]) -> None: ...
    def forget_files(self, paths: Iterable[Path]) -> None: ...
    def missing(self, space: FeatureSpace, contents: Iterable[bytes]) -> list[bytes]: ...
    def write(
        self, space: FeatureSpace, contents: Sequence[bytes], features: np.ndarray
    ) -> None: ...
    def hold_written(self) -> None: ...
    def read(self, space: FeatureSpace, contents: Sequence[bytes]) -> np.ndarray: ...
    def uses(self) -> list[SpaceUse]: ...
    def prune(self, unused_days: int) -> int: ...


def open_store(folder: Path | None = None) -> Store:
    """Open the store in a folder, whichever it is; a new one is that of one machine.

    Args:
        folder: made if missing. Defaults to `default_folder()`.
    Raises:
        StoreError: if it cannot be opened, is no store, or is from a newer tripletkit.
        MissingExtraError: if it is a shared one and pyarrow is not installed.
    """
    folder = folder or default_folder()
    return ShardStore(folder) if is_shared_store(folder) else FeatureStore(folder)


def open_shared_store(folder: Path, dtype: str | None = None) -> ShardStore:
    """Open a shared store, made if the folder is new or empty; see `make_shared_store`.

    Raises:
        StoreError: if the folder holds something else, such as the store of one machine.
    """
    if (folder / FILE_NAME).exists():
        raise StoreError(
            f"{folder}: expected a shared feature store, got that of one machine, which "
            "several cannot fill. Choose another folder."
        )
    make_shared_store(folder, dtype)
    return ShardStore(folder)


def find_store(folder: Path | None = None) -> tuple[Path, int | None]:
    """Return the file or folder that holds a store, and its bytes; None where there is none."""
    folder = folder or default_folder()
    if is_shared_store(folder):
        return folder, shared_store_bytes(folder)
    path = folder / FILE_NAME
    if not path.is_file():
        return path, None
    return path, sum(file.stat().st_size for file in folder.glob(f"{FILE_NAME}*"))


def empty_store(folder: Path | None = None) -> int:
    """Empty the store in a folder, beside other processes that use it too.

    Returns:
        How many bytes that freed; 0 where there was no store.
    Raises:
        StoreError: if a file cannot be deleted.
    """
    folder = folder or default_folder()
    return clear_shared_store(folder) if is_shared_store(folder) else clear_store(folder)
