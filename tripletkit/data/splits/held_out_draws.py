"""Which images are held out: by chance, by whole classes, or named by the user.

Images that a draw holds out are of the same classes of things as those in training. How a model
does on other classes can only be seen where whole classes, or clusters of features, are held out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.columns import find_roles
from tripletkit.data.folder import list_images
from tripletkit.data.judgements import read_judgements
from tripletkit.data.labels import NO_LABEL, read_labels
from tripletkit.data.questions import join_nodes
from tripletkit.data.splits.policies import Split, cluster_images, find_strata, separate_groups
from tripletkit.data.tables import read_text
from tripletkit.errors import ImageNameError, SplitError, TripletFileError

# Groups of triplets that share no image are drawn whole from so many on: three a fold.
_MIN_DRAW_GROUPS = 9

BY_GROUPS = "groups of triplets that share no image"
BY_IMAGES = "images"
# The fewest clusters of images that are of use, and how often those held out are drawn.
_MIN_CLUSTERS = 4
_UNSEEN_DRAWS = 50

BY_LABELS = "classes"
_BY_CLUSTERS = "clusters"
_BY_GIVEN_GROUPS = "given groups of images"

# Rounds without a single held-out triplet after which there is nothing to hope for.
_MAX_EMPTY_ROUNDS = 20


@dataclass(frozen=True)
class Draw:
    """Which triplets heads learn from, and which they are scored on, in which round.

    The indices are int64 and ascending; no image of a held-out triplet is in a training triplet.
    """

    train_rows: np.ndarray
    held_out_rows: np.ndarray
    round: int


@dataclass(frozen=True)
class _DrawPlan:
    """What is drawn."""

    by: str  # `BY_GROUPS`, `BY_IMAGES` or `_BY_GIVEN_GROUPS`
    unit_of_image: np.ndarray  # what is held out together; -1 for an image that no triplet has
    stratum_of_unit: np.ndarray  # every stratum is divided evenly

    def fold_units(self, n_folds: int, rng: np.random.Generator) -> np.ndarray:
        """Return `(n_units,)` integers: the fold of each unit, even in every stratum."""
        n_units = len(self.stratum_of_unit)
        by_chance = rng.permutation(n_units)
        order = by_chance[np.argsort(self.stratum_of_unit[by_chance], kind="stable")]
        folds = np.empty(n_units, dtype=np.int64)
        # Dealt like cards through all strata, from a chance start.
        folds[order] = (np.arange(n_units) + rng.integers(n_folds)) % n_folds
        return folds


def plan_draws(
    rows: np.ndarray,
    n_images: int,
    labels: np.ndarray | None = None,
    features: np.ndarray | None = None,
    n_folds: int = defaults.DRAW_FOLDS,
    groups: np.ndarray | None = None,
) -> _DrawPlan:
    """Decide what is held out together, and of what every fold has its share.

    Args:
        labels: `(n_images,)` integers; `NO_LABEL` where an image has none; None without any.
        features: `(n_images, n_features)` float32, rows of length 1; finite where a triplet
            has the image.
        groups: `(n_images,)` integers: images that are held out together, whatever triplets say.
    Example:
        >>> rows = np.arange(36).reshape(12, 3)  # twelve groups of three images
        >>> plan_draws(rows, 36).by == BY_GROUPS
        True
    """
    images = np.unique(rows)
    if len(images) < 3 * n_folds:
        raise SplitError(
            f"expected at least {3 * n_folds} images, three for each of {n_folds} folds, got "
            f"{len(images)}"
        )
    unit_of_image = np.full(n_images, -1)
    if groups is not None:
        _, units, n_together = np.unique(groups[images], return_inverse=True, return_counts=True)
        if len(n_together) < n_folds:
            raise SplitError(
                f"expected at least {n_folds} `groups` of images to hold out, got {len(n_together)}"
            )
        unit_of_image[images] = units
        # Groups alike in size, so that folds are.
        return _DrawPlan(_BY_GIVEN_GROUPS, unit_of_image, np.floor(np.log2(n_together)).astype(int))
    groups = join_nodes(rows[:, [0, 0]], rows[:, 1:], n_images)[images]
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) >= _MIN_DRAW_GROUPS and n_folds * sizes.max() <= len(images):
        unit_of_image[images] = groups
        # Groups alike in size, so that folds are.
        return _DrawPlan(BY_GROUPS, unit_of_image, np.zeros(len(sizes), dtype=np.int64))
    strata = find_strata(rows, n_images, labels, features)[images]
    units, first = _keep_small_classes(rows, images, n_images, n_folds)
    unit_of_image[images] = units
    n_together = np.bincount(units)
    # Units alike in size, so that folds are.
    return _DrawPlan(
        BY_IMAGES,
        unit_of_image,
        np.where(n_together > 1, strata.max() + n_together, strata[first]),
    )


def _keep_small_classes(
    rows: np.ndarray, images: np.ndarray, n_images: int, n_folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return `(len(images),)` units, and the place of each unit's first image.

    A class too small to have a pair in every fold is one unit; so is any other image.
    """
    classes = join_nodes(rows[:, [0]], rows[:, [1]], n_images)[images]
    _, classes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    is_small = sizes[classes] < 2 * n_folds
    keys = np.where(is_small, classes, len(sizes) + np.arange(len(images)))
    _, first, units = np.unique(keys, return_index=True, return_inverse=True)
    return units, first


def draw_folds(
    rows: np.ndarray,
    plan: _DrawPlan,
    seed: int,
    n_folds: int = defaults.DRAW_FOLDS,
    is_scored: np.ndarray | None = None,
) -> Iterator[Draw]:
    """Yield draws without end, fold after fold, round after round.

    One fold of a round is held out in a draw, and of it the triplets that may be scored on: those
    of the mask `is_scored`, or all.
    """
    round_, n_empty = 0, 0
    while n_empty < _MAX_EMPTY_ROUNDS:
        folds = plan.fold_units(n_folds, np.random.default_rng([seed, round_]))
        fold_of_image = folds[plan.unit_of_image]
        is_empty = True
        for fold in range(n_folds):
            split = separate_groups(rows, fold_of_image, fold)
            held_out = split.val_rows
            if is_scored is not None:
                held_out = held_out[is_scored[held_out]]
            if len(split.train_rows) and len(held_out):
                is_empty = False
                yield Draw(split.train_rows, held_out, round_)
        n_empty = n_empty + 1 if is_empty else 0
        round_ += 1
    raise SplitError(
        f"expected triplets whose images are all held out beside others for training, got none in "
        f"{_MAX_EMPTY_ROUNDS} draws of a share of 1/{n_folds} of the images. Judge more triplets "
        "over the same images, or give validation triplets of your own."
    )


# So few images make a triplet.
_FEWEST = 3


def _draw_images(
    n_images: int, n_draws: int, test_size: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield `(n_images,)` bool for each draw: the image is held out, one of a share `test_size`.

    Images take turns in an order of chance: after any number of draws, the one held out most often
    was so at most once more than the one held out least.
    """
    n_test = round(test_size * n_images)
    if min(n_test, n_images - n_test) < _FEWEST:
        raise SplitError(
            f"expected at least {_FEWEST} images on each side, got {n_images - n_test} for "
            f"training and {n_test} for the test. Try a `test_size` nearer to 0.5."
        )
    n_times = np.zeros(n_images, dtype=np.int64)
    for _ in range(n_draws):
        # Those held out least come first; chance decides among equals.
        order = np.lexsort((rng.random(n_images), n_times))
        is_held_out = np.zeros(n_images, dtype=bool)
        is_held_out[order[:n_test]] = True
        n_times[is_held_out] += 1
        yield is_held_out


def draw_splits(
    rows: np.ndarray, n_draws: int, test_size: float, rng: np.random.Generator
) -> list[Split]:
    """Return splits of triplets by `_draw_images`; rows that mix both sides are dropped."""
    named, inside = np.unique(rows, return_inverse=True)
    inside = inside.reshape(-1, 3)
    splits = []
    for is_held_out in _draw_images(len(named), n_draws, test_size, rng):
        split = separate_groups(inside, is_held_out, True)
        for side, kept in (("training", split.train_rows), ("the test", split.val_rows)):
            if not len(kept):
                raise SplitError(
                    f"expected triplets for training and for the test, got none for {side}: with "
                    f"{test_size:.0%} of {len(named):,} images held out, none of {len(rows):,} "
                    "triplets lies on that side whole. Try another `test_size`, or judge more "
                    "triplets."
                )
        splits.append(split)
    return splits


@dataclass(frozen=True)
class HeldOutClasses:
    """Which images are of classes that training does without; rows that mix both sides drop out."""

    is_held_out: np.ndarray
    n_groups: int
    n_held_out_classes: int
    split: Split


def find_groups(
    images: np.ndarray, features: np.ndarray, labels: np.ndarray | None, seed: int
) -> tuple[np.ndarray, int, str]:
    """Return the kind of each image: its class where enough are labelled, else its cluster.

    Returns:
        `(n_images,)` integers, for images other than those given and for those without a label the
        number of groups; that number; and `BY_LABELS` or `_BY_CLUSTERS`.
    """
    if labels is not None:
        labelled = images[labels[images] != NO_LABEL]
        classes, numbers = np.unique(labels[labelled], return_inverse=True)
        if len(classes) >= _MIN_CLUSTERS:
            groups = np.full(len(features), len(classes))
            groups[labelled] = numbers
            return groups, len(classes), BY_LABELS
    n_groups = min(defaults.N_CLUSTERS, len(images) // defaults.MIN_GROUP_IMAGES)
    if n_groups < _MIN_CLUSTERS:
        raise SplitError(
            f"whole classes of images cannot be held out: expected at least "
            f"{_MIN_CLUSTERS * defaults.MIN_GROUP_IMAGES} images, got {len(images)}"
        )
    groups = np.full(len(features), n_groups)
    groups[images] = cluster_images(features[images], n_groups, seed)
    return groups, n_groups, _BY_CLUSTERS


def hold_out_classes(
    rows: np.ndarray, groups: np.ndarray, n_groups: int, fraction: float, seed: int, fewest: int = 2
) -> HeldOutClasses:
    """Choose whole groups to hold out, of several draws the one that keeps most triplets.

    A draw of clusters that cuts a kind of things in two separates images that triplets join,
    and loses these; so the draw that keeps most is also the one that is nearest to holding out
    groups as the judges see them.

    Args:
        groups: `(n_images,)` integers; `n_groups` where an image is not to be held out.
        fraction: of the images to hold out, about.
        fewest: groups to hold out at least. A question needs images of two.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(groups, minlength=n_groups)[:n_groups]
    wanted = fraction * sizes.sum()
    best: tuple[int, HeldOutClasses | None] = (0, None)
    for _ in range(_UNSEEN_DRAWS):
        order = rng.permutation(n_groups)
        n_drawn = max(fewest, int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right")))
        is_held_out = np.isin(groups, order[:n_drawn])
        split = separate_groups(rows, is_held_out, True)
        # The product is largest where neither side is short.
        kept = len(split.train_rows) * len(split.val_rows)
        if kept > best[0]:
            best = kept, HeldOutClasses(is_held_out, n_groups, n_drawn, split)
    if best[1] is None:
        raise SplitError(
            f"whole classes of images cannot be held out: of {_UNSEEN_DRAWS} draws of "
            f"{fraction:.0%} of {sizes.sum():,} images none leaves triplets on both sides"
        )
    return best[1]


def read_held_out(source: Path, folder: Path) -> dict[str, str | None]:
    """Read the names of held-out images, and of each its label, or None, in their order.

    The source is a folder inside `folder`, whose subfolders then are classes; a CSV with the
    columns name and label; a triplet file, all of whose images are meant; or a text of one name a
    line.
    """
    if source.is_dir():
        names = _names_below(source, folder)
    else:
        text = read_text(source)
        first = text.partition("\n")[0].replace('"', "")
        is_table = any(find_roles(first.split(each), "labels") for each in ",;\t|")
        names = {**read_labels(source)} if is_table else _names_of_text(text, source)
    if not names:
        raise ImageNameError(f"{source}: expected names of held-out images, got none")
    return names


def _names_below(source: Path, folder: Path) -> dict[str, str | None]:
    try:
        inside = source.resolve().relative_to(folder.resolve())
    except ValueError:
        raise ImageNameError(
            f"{source}: expected a folder inside the image folder {folder}"
        ) from None
    return {
        (inside / name).as_posix(): name.partition("/")[0] if "/" in name else None
        for name in list_images(source)
    }


def _names_of_text(text: str, source: Path) -> dict[str, str | None]:
    """Return all names of triplets, or each line as a name where no line is a triplet."""
    n_triplets = 0
    with suppress(TripletFileError):
        n_triplets = len(read_judgements(source, with_problems=True).triplets)
    if n_triplets:
        return dict.fromkeys(read_judgements(source).triplets.names)
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    names = [_unquoted(line) for line in lines]
    if any(not name for name in names):
        raise TripletFileError(f"{source}: expected one name a line, got an empty one")
    return dict.fromkeys(names)


def _unquoted(line: str) -> str:
    if len(line) > 1 and line[0] == line[-1] == '"':
        return line[1:-1].replace('""', '"')
    return line
