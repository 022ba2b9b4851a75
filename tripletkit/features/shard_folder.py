"""The folder of a shared feature store: its mark, its feature spaces, and looking after them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from tripletkit.data.outputs import open_output
from tripletkit.data.unfinished import remove_unfinished
from tripletkit.errors import StoreError
from tripletkit.features.shards import DTYPES, count_rows, import_arrow, list_shards
from tripletkit.features.store import FeatureSpace
from tripletkit.features.store_care import SpaceUse

MARK_NAME = "shared-store.json"
FORMAT_VERSION = 1
_SPACE_NAME = "space.json"
_FINGERPRINT_CHARS = 32


def is_shared_store(folder: Path) -> bool:
    """Tell whether a folder holds a shared store."""
    return (folder / MARK_NAME).is_file()


def make_shared_store(folder: Path, dtype: str | None = None) -> None:
    """Make a shared store in a new or empty folder, unless it is one.

    Args:
        folder: made if it is missing.
        dtype: of its vectors, among `DTYPES`. Defaults to what it has, float32 for a new one.
    Raises:
        StoreError: if the folder holds something else, or vectors of another dtype.
        MissingExtraError: if pyarrow is not installed.
    """
    import_arrow()
    if is_shared_store(folder):
        if dtype is not None and dtype != (got := read_dtype(folder)):
            raise StoreError(
                f"{folder}: expected vectors as {dtype}, the store there has {got}. Leave "
                "`dtype` out, or choose another folder."
            )
        return
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise StoreError(
            f"{folder}: expected a shared feature store, or an empty folder to make one in, got "
            "something else. Choose another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror}") from error
    with open_output(folder / MARK_NAME) as file:
        json.dump({"format_version": FORMAT_VERSION, "dtype": dtype or DTYPES[0]}, file)


def read_dtype(folder: Path) -> str:
    """Return the dtype of a shared store's vectors.

    Raises:
        StoreError: if it is from a newer tripletkit, or its mark is damaged.
    """
    path = folder / MARK_NAME
    try:
        mark = json.loads(path.read_text("utf-8"))
        version, dtype = mark["format_version"], mark["dtype"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StoreError(
            f"{path}: expected the mark of a shared feature store, cannot be read as one: {error}"
        ) from error
    if version != FORMAT_VERSION or dtype not in DTYPES:
        raise StoreError(
            f"{path}: expected a shared feature store of format {FORMAT_VERSION}, got "
            f"{version!r} with {dtype!r}. Update tripletkit, or choose another folder as `cache`."
        )
    return dtype


def files_folder(folder: Path) -> Path:
    """Return where the hashes of files are kept."""
    return folder / "files"


def space_folder(folder: Path, space: FeatureSpace) -> Path:
    """Return where the features of a space are kept."""
    return folder / "features" / space.fingerprint[:_FINGERPRINT_CHARS]


def make_space(folder: Path, space: FeatureSpace) -> Path:
    """Return the folder of a space, made if it is new, with its facts in it.

    Raises:
        OutputError: if it cannot be written.
    """
    of_space = space_folder(folder, space)
    if not (of_space / _SPACE_NAME).is_file():
        of_space.mkdir(parents=True, exist_ok=True)
        with open_output(of_space / _SPACE_NAME) as file:
            json.dump({"facts": space.facts, "n_features": space.n_features}, file, sort_keys=True)
    return of_space


def touch_space(folder: Path, space: FeatureSpace) -> None:
    """Note that a space was used; it does not matter if that fails."""
    try:
        os.utime(space_folder(folder, space) / _SPACE_NAME)
    except OSError:
        return


def list_uses(folder: Path) -> list[SpaceUse]:
    """Return how much each feature space takes, the last used first."""
    uses = []
    for of_space in _space_folders(folder):
        shards = list_shards(of_space)
        try:
            facts = json.loads((of_space / _SPACE_NAME).read_text("utf-8"))["facts"]
        except (OSError, ValueError, LookupError, TypeError):
            facts = {}
        n_images = sum(count_rows(shard)[0] for shard in shards)
        size_bytes = sum(shard.stat().st_size for shard in shards)
        uses.append(SpaceUse(facts, n_images, size_bytes, int(_last_used_s(of_space))))
    return sorted(uses, key=lambda use: -use.last_used_s)


def prune(folder: Path, unused_days: int) -> int:
    """Drop spaces that were not used for so long; see `ShardStore.prune`."""
    oldest_s = time.time() - unused_days * 86_400
    n_dropped = 0
    for of_space in _space_folders(folder):
        if _last_used_s(of_space) < oldest_s:
            n_dropped += sum(sum(count_rows(shard)) for shard in list_shards(of_space))
            _remove_shards(of_space)
    return n_dropped


def tidy(folder: Path) -> None:
    """Remove what killed writers have left half written."""
    for inside in (folder, files_folder(folder), *_space_folders(folder)):
        remove_unfinished(inside)


def clear_shared_store(folder: Path) -> int:
    """Delete the files of a shared store; who reads it meanwhile computes anew what is gone.

    Returns:
        How many bytes that freed.
    Raises:
        StoreError: if a file cannot be deleted.
    """
    size_bytes = shared_store_bytes(folder)
    try:
        for inside in (files_folder(folder), *_space_folders(folder)):
            _remove_shards(inside)
        shutil.rmtree(folder / "features", ignore_errors=True)
        (folder / MARK_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be deleted: {error.strerror}") from error
    return size_bytes


def shared_store_bytes(folder: Path) -> int:
    """Return the bytes that a shared store takes."""
    inside = [files_folder(folder), *_space_folders(folder)]
    return sum(shard.stat().st_size for each in inside for shard in list_shards(each))


def _space_folders(folder: Path) -> list[Path]:
    inside = folder / "features"
    return sorted(path for path in inside.iterdir() if path.is_dir()) if inside.is_dir() else []


def _last_used_s(of_space: Path) -> float:
    try:
        return (of_space / _SPACE_NAME).stat().st_mtime
    except FileNotFoundError:
        return of_space.stat().st_mtime


def _remove_shards(folder: Path) -> None:
    remove_unfinished(folder)
    for path in [*list_shards(folder), folder / _SPACE_NAME]:
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
