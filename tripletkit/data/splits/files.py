"""The files of a split, for this program and for others."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tripletkit.data.competition import write_questions
from tripletkit.data.splits.policies import Split
from tripletkit.data.triplet_files import write_triplets
from tripletkit.data.triplets import Triplets
from tripletkit.errors import OutputError, describe_problems

SPLIT_FILES = ("train.txt", "val.txt", "val_truth.csv", "val_triplets.txt")


def write_splits(
    folder: Path,
    triplets: Triplets,
    splits: Sequence[Split],
    seed: int,
    *,
    source: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write one split into a folder, or several into its subfolders `fold1`, `fold2` ...

    `train.txt` and `val_triplets.txt` hold anchor positive negative; `val.txt` has the
    validation questions with B and C in chance order, and `val_truth.csv` under the heading
    `label` 1 where B is the nearer. All are written elsewhere first and moved in when whole.

    Args:
        folder: where to; made if it is missing.
        triplets: what was split.
        splits: one, or one a fold.
        seed: start of the chance order.
        source: the file that was split, which is never overwritten.
        overwrite: replace files of an earlier split.
    Raises:
        OutputError: if something would be overwritten or cannot be written.
    """
    check_split_folder(folder, len(splits), source=source, overwrite=overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".split.") as temporary:
            new_folders = _subfolders(Path(temporary), len(splits))
            for new_folder, split in zip(new_folders, splits, strict=True):
                new_folder.mkdir(exist_ok=True)
                _write_split(new_folder, triplets, split, seed)
            for new_folder, last in zip(new_folders, _subfolders(folder, len(splits)), strict=True):
                last.mkdir(exist_ok=True)
                for name in SPLIT_FILES:
                    (new_folder / name).replace(last / name)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def check_split_folder(
    folder: Path, n_splits: int, *, source: Path | None = None, overwrite: bool = False
) -> None:
    """Refuse early what `write_splits` would refuse.

    Raises:
        OutputError: if a file is there already and `overwrite` is not given, or is the one that
            is to be split, or a file is where a folder should be.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder to write to, got a file")
    targets = [part / name for part in _subfolders(folder, n_splits) for name in SPLIT_FILES]
    existing = [target for target in targets if target.exists()]
    if source is not None and any(target.samefile(source) for target in existing):
        raise OutputError(
            f"{source}: would be overwritten by its own split. Choose another `folder`."
        )
    if existing and not overwrite:
        shown = describe_problems([str(target) for target in existing])
        raise OutputError(
            f"these files are there already; `overwrite=True` replaces them:\n{shown}"
        )


def _subfolders(folder: Path, n_splits: int) -> list[Path]:
    if n_splits == 1:
        return [folder]
    return [folder / f"fold{fold}" for fold in range(1, n_splits + 1)]


def _write_split(folder: Path, triplets: Triplets, split: Split, seed: int) -> None:
    train, val, truth_file, val_triplets = (folder / name for name in SPLIT_FILES)
    write_triplets(train, triplets.names, triplets.rows[split.train_rows])
    answered = triplets.rows[split.val_rows]
    write_triplets(val_triplets, triplets.names, answered)
    truth = np.random.default_rng(seed).integers(0, 2, len(answered))
    write_questions(val, truth_file, triplets.names, answered, truth)
