"""Divide triplets into training and validation so that the validation score can be believed.

Three policies, by what the two sides may have in common:

- `image`: no image. The score tells how new images will do. It costs every triplet whose
  images lie on both sides.
- `component`: no pair of images, nor anything linked to it by triplets. Every triplet is kept,
  and nothing can be answered by remembering pairs. The score tells how known images do in new
  questions.
- `random`: no question. Where pairs recur in one role, remembering names solves it.

In all of them repeats and mirrors (A, C, B) of a row are on its own side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.outputs import Destination, OutputForm, Outputs, hash_file, open_output
from tripletkit.data.questions import PairGraph, Questions, join_nodes
from tripletkit.data.triplets import Triplets, write_triplets
from tripletkit.errors import SettingsError, SplitError
from tripletkit.results import Result, Section, Table

# The search for images to set apart: swaps an image and in all, which bound its time.
_SEARCH_SWAPS_PER_IMAGE = 5
_SEARCH_SWAPS = 200_000
# Above this many images, several are swapped at once, because looking for the best costs more than
# moving it.
_SEARCH_IMAGES_PER_SWAP = 2_000
# Swaps during which an image that was moved stays put.
_SEARCH_TENURE = 50
# What a triplet kept for training is first worth beside one kept for validation, and by which power
# of e that grows or falls with each swap that leaves training short or not.
_SEARCH_TRAIN_WEIGHT = 0.05
_SEARCH_WEIGHT_STEP = 0.02


class _HoldOutGoal:
    """Most triplets in group 1 (validation), with no fewer than a floor in group 0 (training).

    `inside` counts the triplets within each group; `adapt` shifts `weights`, what one is worth
    there now, towards the group that falls short.
    """

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.train_weight = _SEARCH_TRAIN_WEIGHT

    def weights(self) -> np.ndarray:
        return np.array([self.train_weight, 1.0])

    def score(self, inside: np.ndarray) -> float:
        return float(inside[1]) if inside[0] >= self.floor else -np.inf

    def adapt(self, inside: np.ndarray) -> None:
        step = _SEARCH_WEIGHT_STEP
        self.train_weight *= np.exp(step if inside[0] < self.floor else -step)


class _FoldsGoal:
    """Most triplets in the group that has fewest, so that every fold validates on enough."""

    def __init__(self, n_groups: int) -> None:
        self.logs = np.zeros(n_groups)

    def weights(self) -> np.ndarray:
        return np.exp(self.logs - self.logs.mean())

    def score(self, inside: np.ndarray) -> float:
        return float(inside.min())

    def adapt(self, inside: np.ndarray) -> None:
        self.logs += _SEARCH_WEIGHT_STEP * np.sign(inside.mean() - inside)


def _divide_images(
    rows: np.ndarray,
    n_names: int,
    sizes: np.ndarray,
    goal: _HoldOutGoal | _FoldsGoal,
    rng: np.random.Generator,
    strata: np.ndarray | None = None,
) -> np.ndarray:
    """Divide images into groups of given sizes by a tabu search of swaps.

    Starts from a chance division. Between two groups drawn by chance, the best move there and the
    best move back are made, even where they do harm, and both images stay put for a while; the
    best division on the way counts. The number of swaps is fixed by the input, so the same seed
    gives the same groups on a fast and on a slow machine. Every group gets its share of each of the
    `strata`, and images are swapped within one alone: without, a search over class data takes whole
    classes, since their triplets lie together.

    Reference:
        Fiduccia, Mattheyses. A linear-time heuristic for improving network partitions. DAC 1982
        (the gains kept per move); Glover. Tabu search. ORSA J. Computing 1989. The weights
        follow a Lagrangian relaxation of the floor.
    """
    n_groups = len(sizes)
    division = _Division(rows, _deal(sizes, strata, rng), n_groups)
    best, best_group = goal.score(division.inside), division.group.copy()

    batch = min(1 + n_names // _SEARCH_IMAGES_PER_SWAP, int(min(sizes)))
    if strata is not None:
        batch = 1
    tenure = min(_SEARCH_TENURE, int(min(sizes)) // (4 * batch))
    n_swaps = min(_SEARCH_SWAPS_PER_IMAGE * n_names, _SEARCH_SWAPS)
    free_at = np.zeros(n_names, dtype=np.int64)
    for step in range(n_swaps // batch):
        there, back = rng.permutation(n_groups)[:2]
        is_apart = np.zeros(n_names, dtype=bool)
        if strata is not None:
            is_apart = strata != strata[rng.integers(n_names)]
            free = division.group[~is_apart & (free_at <= step)]
            if there not in free or back not in free:
                continue
        for source, target in ((back, there), (there, back)):
            gains = division.gains(source, target, goal.weights())
            gains[free_at > step] = -np.inf
            gains[is_apart] = -np.inf
            moved = np.array([gains.argmax()])
            if batch > 1:
                moved = np.argpartition(gains, -batch)[-batch:]
            for name in moved.tolist():
                division.move(name, source, target)
            free_at[moved] = step + 1 + tenure
        goal.adapt(division.inside)
        if (score := goal.score(division.inside)) > best:
            best, best_group = score, division.group.copy()
    return best_group


def _deal(sizes: np.ndarray, strata: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_names,)` int64: a chance division into groups of these sizes."""
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    if strata is None:
        return groups
    n_names = len(groups)
    by_chance = rng.permutation(n_names)
    order = by_chance[np.argsort(strata[by_chance], kind="stable")]
    # Each group's places lie evenly over all strata.
    evenly = np.concatenate([(np.arange(size) + rng.random()) / size for size in sizes])
    places = np.argsort(evenly, kind="stable")
    dealt = np.empty(n_names, dtype=np.int64)
    dealt[order] = np.repeat(np.arange(len(sizes)), sizes)[places]
    return dealt


class _Division:
    """Groups of images, and what moving each image elsewhere would change.

    `near` counts, for each group and image, the triplets whose two other images both lie in the
    group, and which therefore lie in it whole as long as this image does too; `inside` the triplets
    that lie whole within each group.
    """

    def __init__(self, rows: np.ndarray, group: np.ndarray, n_groups: int) -> None:
        n_names = len(group)
        owner = rows.T.ravel()
        order = np.argsort(owner, kind="stable")
        self._left = rows[:, [1, 0, 0]].T.ravel()[order]
        self._right = rows[:, [2, 2, 1]].T.ravel()[order]
        self._starts = np.searchsorted(owner[order], np.arange(n_names + 1))
        self.group = group
        left_group = group[self._left]
        is_together = left_group == group[self._right]
        places = left_group[is_together] * n_names + owner[order][is_together]
        n_near = np.bincount(places, minlength=n_groups * n_names)
        self.near = n_near.reshape(n_groups, n_names).astype(np.float64)
        own = self.near[group, np.arange(n_names)]
        self.inside = np.bincount(group, own, n_groups) / 3

    def gains(self, source: int, target: int, weights: np.ndarray) -> np.ndarray:
        """Return the worth of moving each image there; `-inf` if it is not in the source."""
        gains = weights[target] * self.near[target] - weights[source] * self.near[source]
        gains[self.group != source] = -np.inf
        return gains

    def move(self, name: int, source: int, target: int) -> None:
        """Move one image from its group to another."""
        self.inside[source] -= self.near[source, name]
        self.inside[target] += self.near[target, name]
        of_name = slice(self._starts[name], self._starts[name + 1])
        left, right = self._left[of_name], self._right[of_name]
        for one, other in ((left, self.group[right]), (right, self.group[left])):
            np.subtract.at(self.near[source], one[other == source], 1.0)
            np.add.at(self.near[target], one[other == target], 1.0)
        self.group[name] = target


# So many chance divisions of groups of images are looked at; the best of them is taken.
_GROUP_TRIES = 200
# Of fewer images, half of them on either side have no triplet of their own.
_MIN_CLASS_IMAGES = 12


@dataclass(frozen=True)
class Split:
    """Which rows train, which validate, and which can do neither: int64 indices, ascending."""

    train_rows: np.ndarray
    val_rows: np.ndarray
    dropped_rows: np.ndarray

    @classmethod
    def of_groups(cls, rows: np.ndarray, groups: np.ndarray, val_group: int) -> Split:
        """Use the rows whose images are all in the validation group, or all out of it."""
        n_val_images = (groups[rows] == val_group).sum(axis=1)
        return cls(
            train_rows=np.flatnonzero(n_val_images == 0),
            val_rows=np.flatnonzero(n_val_images == 3),
            dropped_rows=np.flatnonzero((n_val_images > 0) & (n_val_images < 3)),
        )


def split_triplets(
    triplets: Triplets,
    by: str,
    seed: int,
    groups: np.ndarray | None = None,
    *,
    val_fraction: float = defaults.VAL_FRACTION,
    n_folds: int | None = None,
) -> list[Split]:
    """Divide triplets once into training and validation, or into folds, each of which validates.

    Of `groups`, `(n_names,)` integers from 0, by `image` those of one group are on one side, and
    the share is one of groups. By `component` and `random` `val_fraction` is the share of triplets,
    met as closely as whole components allow. By `image` it is that of images: training keeps at
    least as many triplets as it does on average when that share of images is drawn by chance, and
    within this validation gets as many as the search finds, several times what a chance draw gives.
    """
    rng = np.random.default_rng(seed)
    asked = f"`folds={n_folds}`" if n_folds else f"`val_fraction={val_fraction:g}`"
    val_parts = range(n_folds) if n_folds else [1]
    labels = _labels(triplets, by, groups)
    if labels is None:
        units, rows, n_units = _number_units(triplets, groups)
        goal: _HoldOutGoal | _FoldsGoal
        if n_folds:
            sizes = np.diff(np.arange(n_folds + 1) * n_units // n_folds)
            goal = _FoldsGoal(n_folds)
        else:
            n_val = round(val_fraction * n_units)
            sizes = np.array([n_units - n_val, n_val])
            # Training keeps as many triplets as a chance draw leaves it on average.
            shares = (sizes[0] - np.arange(3)) / np.maximum(n_units - np.arange(3), 1)
            goal = _HoldOutGoal(float(np.prod(shares) * len(rows)))
        parts = _divide(triplets, rows, sizes, goal, rng, groups)[units]
        splits = [Split.of_groups(triplets.rows, parts, part) for part in val_parts]
    else:
        if n_folds:
            part_of_row = _fold_whole(labels, n_folds, rng)
        else:
            part_of_row = _hold_out_whole(labels, val_fraction, rng)
        nothing = np.empty(0, dtype=np.int64)
        splits = [
            Split(np.flatnonzero(part_of_row != part), np.flatnonzero(part_of_row == part), nothing)
            for part in val_parts
        ]
    for split in splits:
        for side, kept in (("training", split.train_rows), ("validation", split.val_rows)):
            if not len(kept):
                raise SplitError(
                    f"{triplets.source}: expected triplets for training and for validation, got "
                    f"none for {side} ({asked} by {by}, {len(triplets):,} triplets over "
                    f"{len(triplets.names):,} images). {_ADVICE[by]}"
                )
    return splits


_ADVICE = {
    "image": "Try `by=component`, which keeps every triplet, or a larger share for this side.",
    "component": "All or nearly all triplets are linked through the pairs that they share. "
    "Try `by=image`.",
    "random": "Try another share, or judge more triplets.",
}


def _labels(triplets: Triplets, by: str, groups: np.ndarray | None) -> np.ndarray | None:
    """Return `(n_triplets,)` integers, equal for rows that must be on one side; None by image."""
    if by == "image":
        return None
    if groups is not None:
        raise SettingsError(
            "groups", "`groups` are of images, which only `by=image` holds out as a whole."
        )
    n_names = len(triplets.names)
    if by == "component":
        return PairGraph.of(triplets.rows, n_names).component_of_rows()
    if by == "random":
        return _join_trials(Questions.of(triplets.rows, n_names).of_row, triplets.trials)
    raise SplitError(f'expected a split by {", ".join(defaults.SPLIT_POLICIES)}, got "{by}"')


def _join_trials(labels: np.ndarray, trials: np.ndarray | None) -> np.ndarray:
    """Return labels that are equal within each trial, too."""
    if trials is None or not (trials > 0).any():
        return labels
    inside = np.flatnonzero(trials > 0)
    n_labels, n_trials = int(labels.max()) + 1, int(trials.max()) + 1
    joined = join_nodes(labels[inside], n_labels + trials[inside], n_labels + n_trials)
    return np.unique(joined[labels], return_inverse=True)[1]


def _hold_out_whole(
    labels: np.ndarray, val_fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Return `(n_triplets,)` 0 or 1: whole labels drawn for 1 until the share is met."""
    n_rows = np.bincount(labels)
    wanted = val_fraction * len(labels)
    # A label larger than all of validation belongs to training, wherever chance puts it.
    drawn = rng.permutation(np.flatnonzero(n_rows <= max(wanted, 1)))
    reached = np.cumsum(n_rows[drawn])
    n_drawn = np.searchsorted(reached, wanted)
    after = reached[n_drawn] if n_drawn < len(reached) else np.inf
    before = reached[n_drawn - 1] if n_drawn else 0
    n_drawn += after - wanted < wanted - before
    part = np.zeros(len(n_rows), dtype=np.int64)
    part[drawn[:n_drawn]] = 1
    return part[labels]


def _fold_whole(labels: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_triplets,)` int64: the fold of each row, whole labels in one fold."""
    n_rows = np.bincount(labels)
    order = rng.permutation(len(n_rows))
    middle = np.cumsum(n_rows[order]) - n_rows[order] / 2
    fold_of_label = np.empty(len(n_rows), dtype=np.int64)
    fold_of_label[order] = middle * n_folds // len(labels)
    return fold_of_label[labels]


def _number_units(
    triplets: Triplets, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Number the images that rows name, or their groups, from 0: the unit of each name, the number
    of units for others; `(n_rows, 3)` units of the rows that name three images; and that number."""
    unit_of = np.arange(len(triplets.names)) if groups is None else groups
    rows = unit_of[triplets.without_degenerate().rows]
    named, rows = np.unique(rows, return_inverse=True)
    number_of = np.full(unit_of.max(initial=0) + 1, len(named))
    number_of[named] = np.arange(len(named))
    return number_of[unit_of], rows.reshape(-1, 3), len(named)


def _divide(
    triplets: Triplets,
    rows: np.ndarray,
    sizes: np.ndarray,
    goal: _HoldOutGoal | _FoldsGoal,
    rng: np.random.Generator,
    groups: np.ndarray | None,
) -> np.ndarray:
    """Return `(n_units + 1,)` int64: the part of each unit, and 0 for names that no row has."""
    least, what = (3, "images") if groups is None else (1, "groups")
    if sizes.min() < least:
        raise SplitError(
            f"{triplets.source}: expected at least {least} {what} in each part, got "
            f"{' and '.join(map(str, sizes))}. Try `by=component`, a `val_fraction` nearer to 0.5, "
            "or fewer folds."
        )
    if groups is not None:
        return np.append(_divide_groups(rows, sizes, rng), 0)
    n_names = int(sizes.sum())
    return np.append(_divide_images(rows, n_names, sizes, goal, rng, _strata(rows, n_names)), 0)


def _divide_groups(rows: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the part of each group of images, by the best of many chance divisions.

    The first part has as many triplets as in half of them, the others as many as can be. Groups
    are few, and often a triplet has two images of one, so that no swap of images finds it.
    """
    tries = [rng.permutation(np.repeat(np.arange(len(sizes)), sizes)) for _ in range(_GROUP_TRIES)]
    inside = np.empty((len(tries), len(sizes)))
    for number, parts in enumerate(tries):
        of_rows = parts[rows]
        whole = of_rows[(of_rows == of_rows[:, :1]).all(axis=1), 0]
        inside[number] = np.bincount(whole, minlength=len(sizes))
    is_enough = inside[:, 0] >= np.median(inside[:, 0])
    return tries[np.argmax(np.where(is_enough, inside[:, 1:].min(axis=1), -1))]


def _strata(rows: np.ndarray, n_names: int) -> np.ndarray | None:
    """Return the classes that the positives tell of; None where they tell of none.

    Classes are few and large, or nothing is lost by dividing them: where images are joined to
    hardly any other, a group of them is no class but what was shown together.
    """
    strata = join_nodes(rows[:, [0]], rows[:, [1]], n_names)
    sizes = np.bincount(strata)
    is_class = sizes >= _MIN_CLASS_IMAGES
    is_told = is_class.sum() > 1 and sizes[is_class].sum() > n_names / 2
    return strata if is_told else None


# At which it is said how wide the 95% interval will be: what good models reach.
_EXPECTED_ACCURACY = 0.75


def write_questions(
    questions: Destination,
    truth_file: Destination,
    names: Sequence[str],
    rows: np.ndarray,
    seed: int,
) -> None:
    """Write questions of answered triplets, and under the heading `label` their truth.

    Half of the positives, in chance order, stand first, which is the truth 1. Both files or neither
    are written.
    """
    truth = np.random.default_rng(seed).permutation(np.arange(len(rows)) % 2)
    with open_output(truth_file) as file:
        file.write("label\n" + "".join(f"{label}\n" for label in truth))
        shown = np.where(truth[:, None] == 1, rows, rows[:, [0, 2, 1]])
        write_triplets(questions, names, shown, is_answered=False)


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

    @classmethod
    def of(cls, triplets: Triplets, split: Split) -> SplitPrice:
        """Count what a split keeps and drops."""
        of_train = np.unique(triplets.rows[split.train_rows])
        of_val = np.unique(triplets.rows[split.val_rows])
        return cls(
            n_train=len(split.train_rows),
            n_val=len(split.val_rows),
            n_dropped=len(split.dropped_rows),
            n_train_images=len(of_train),
            n_val_images=len(of_val),
            n_shared_images=len(np.intersect1d(of_train, of_val)),
            half_width=_wilson_half_width(_EXPECTED_ACCURACY, len(split.val_rows)),
        )

    def _summary(self) -> str:
        return (
            f"{self.n_train:,} triplets for training, {self.n_val:,} for validation, "
            f"{self.n_dropped:,} dropped"
        )

    def _sections(self) -> list[Section]:
        n_triplets = self.n_train + self.n_val + self.n_dropped
        rows = [["", "triplets", "share", "images"]]
        for label, n, n_images in (
            ("kept for training", self.n_train, f"{self.n_train_images:,}"),
            ("kept for validation", self.n_val, f"{self.n_val_images:,}"),
            ("dropped", self.n_dropped, ""),
        ):
            rows.append([label, f"{n:,}", f"{n / n_triplets:.2%}", n_images])
        rows.append(["on both sides", "", "", f"{self.n_shared_images:,}"])
        note = (
            f"An accuracy of {_EXPECTED_ACCURACY:.0%} on this validation set is known to "
            f"±{100 * self.half_width:.1f} points at best (95%, Wilson)."
        )
        return [[Table(rows, right=[1, 2, 3]), note]]


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
    folder: Path, triplets: Triplets, splits: Sequence[Split], seed: int, outputs: Outputs
) -> None:
    """Write one split into a folder, or several into its subfolders `fold1`, `fold2` ...

    `train.txt` and `val_triplets.txt` hold anchor positive negative, `val.txt` and `val_truth.csv`
    the validation questions and their truth, `split.json` the hash of each. `outputs` is what
    `check_split_folder` was called with.
    """
    with outputs.write_files(folder) as partial:
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
    write_questions(val, truth_file, triplets.names, answered, seed)
