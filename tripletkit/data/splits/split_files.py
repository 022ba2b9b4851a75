"""The files of a split, for this program and for others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit.data.outputs import (
    Destination,
    OutputForm,
    Outputs,
    explain_failure,
    hash_file,
    open_output,
)
from tripletkit.data.splits.policies import Split
from tripletkit.data.triplets import Triplets, write_triplets
from tripletkit.data.unfinished import unfinished_files
from tripletkit.results import Result, Section, Table

# At which it is said how wide the 95% interval will be: what good models reach.
_EXPECTED_ACCURACY = 0.75


def draw_truth(n_questions: int, seed: int) -> np.ndarray:
    """Return `(n_questions,)` int64 in chance order: half 1, the rest 0; of an odd one more 0."""
    return np.random.default_rng(seed).permutation(np.arange(n_questions) % 2)


def write_questions(
    questions: Destination,
    truth_file: Destination,
    names: Sequence[str],
    rows: np.ndarray,
    truth: np.ndarray,
) -> None:
    """Write questions and, under the heading `label`, their truth; both or neither.

    `rows` are anchor, positive, negative; where `truth` is 1 the positive is to stand first.
    """
    with open_output(truth_file) as file:
        file.write("label\n" + "".join(f"{label}\n" for label in truth))
        write_triplets(
            questions,
            names,
            np.where(truth[:, None] == 1, rows, rows[:, [0, 2, 1]]),
            is_answered=False,
        )


@dataclass(frozen=True, repr=False)
class SplitPrice(Result):
    """What a split keeps and drops."""

    n_train: int  # triplets
    n_val: int
    n_dropped: int
    n_train_images: int  # images that the triplets kept on a side name
    n_val_images: int
    n_shared_images: int  # images named on both sides
    # Of the 95% Wilson interval of an accuracy of `_EXPECTED_ACCURACY` on the validation triplets,
    # 0 to 1: the least, as triplets that share images tell less than as many independent ones.
    half_width: float

    @property
    def n_triplets(self) -> int:
        return self.n_train + self.n_val + self.n_dropped

    def _summary(self) -> str:
        return (
            f"{self.n_train:,} triplets for training, {self.n_val:,} for validation, "
            f"{self.n_dropped:,} dropped"
        )

    def _sections(self) -> list[Section]:
        rows = [["", "triplets", "share", "images"]]
        for label, n, n_images in (
            ("kept for training", self.n_train, f"{self.n_train_images:,}"),
            ("kept for validation", self.n_val, f"{self.n_val_images:,}"),
            ("dropped", self.n_dropped, ""),
        ):
            rows.append([label, f"{n:,}", f"{n / self.n_triplets:.2%}", n_images])
        rows.append(["on both sides", "", "", f"{self.n_shared_images:,}"])
        note = (
            f"An accuracy of {_EXPECTED_ACCURACY:.0%} on this validation set is known to "
            f"±{100 * self.half_width:.1f} points at best (95%, Wilson)."
        )
        return [[Table(rows, right=[1, 2, 3]), note]]


def price_split(triplets: Triplets, split: Split) -> SplitPrice:
    """Count what a split keeps and drops."""
    train_images = np.unique(triplets.rows[split.train_rows])
    val_images = np.unique(triplets.rows[split.val_rows])
    n_val = len(split.val_rows)
    return SplitPrice(
        n_train=len(split.train_rows),
        n_val=n_val,
        n_dropped=len(split.dropped_rows),
        n_train_images=len(train_images),
        n_val_images=len(val_images),
        n_shared_images=len(np.intersect1d(train_images, val_images)),
        half_width=_wilson_half_width(_EXPECTED_ACCURACY, n_val),
    )


def _wilson_half_width(share: float, n: int) -> float:
    """Return half the width of Wilson's 95% interval of a share of n rows."""
    if not n:
        return 0.5
    z = 1.959963984540054
    return z * float(np.sqrt(share * (1 - share) / n + (z / n / 2) ** 2)) / (1 + z**2 / n)


SPLIT_FILES = ("train.txt", "val.txt", "val_truth.csv", "val_triplets.txt")
# Says which files a split wrote, by their hashes: only these are ever replaced.
RECORD_FILE = "split.json"
_FORMAT_VERSION = 1


def check_split_folder(folder: Path, n_splits: int, outputs: Outputs) -> None:
    """Refuse a folder that cannot take the files of a split, or has others of these names."""
    written = OutputForm(
        f"a file that a split wrote (by {RECORD_FILE} beside it)",
        lambda path: hash_file(path).hex() in _read_record(folder / RECORD_FILE),
    )
    record = OutputForm("the record of a split", lambda path: bool(_read_record(path)))
    outputs.files_in(folder, dict.fromkeys(_names(n_splits), written) | {RECORD_FILE: record})


def write_splits(
    folder: Path,
    triplets: Triplets,
    splits: Sequence[Split],
    seed: int,
    outputs: Outputs | None = None,
) -> None:
    """Write one split into a folder, or several into its subfolders `fold1`, `fold2` ...

    `train.txt` and `val_triplets.txt` hold anchor positive negative; `val.txt` has the
    validation questions with B and C in chance order, and `val_truth.csv` under the heading
    `label` 1 where B is the nearer. `split.json` has the hash of each, and of what was split. They
    appear together. `outputs` is what `check_split_folder` was called with.
    """
    if outputs is None:
        outputs = Outputs()
        check_split_folder(folder, len(splits), outputs)
    with explain_failure(folder), unfinished_files(folder, outputs.check_again) as partial:
        for subfolder, split in zip(_subfolders(len(splits)), splits, strict=True):
            (partial / subfolder).mkdir(exist_ok=True)
            _write_split(partial / subfolder, triplets, split, seed)
        hashes = {name: hash_file(partial / name).hex() for name in _names(len(splits))}
        with open_output(partial / RECORD_FILE) as file:
            record = {"format_version": _FORMAT_VERSION, "seed": seed, "files": hashes}
            file.write(json.dumps(record, indent=2) + "\n")


def _read_record(path: Path) -> set[str]:
    """Return the hashes of all files that a split wrote into a folder; none without a record."""
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))["files"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()


def _subfolders(n_splits: int) -> list[str]:
    return ["."] if n_splits == 1 else [f"fold{fold}" for fold in range(1, n_splits + 1)]


def _names(n_splits: int) -> list[str]:
    return [str(Path(part) / name) for part in _subfolders(n_splits) for name in SPLIT_FILES]


def _write_split(folder: Path, triplets: Triplets, split: Split, seed: int) -> None:
    train, val, truth_file, val_triplets = (folder / name for name in SPLIT_FILES)
    write_triplets(train, triplets.names, triplets.rows[split.train_rows])
    answered = triplets.rows[split.val_rows]
    write_triplets(val_triplets, triplets.names, answered)
    truth = np.random.default_rng(seed).integers(0, 2, len(answered))
    write_questions(val, truth_file, triplets.names, answered, truth)
