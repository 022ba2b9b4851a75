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
from tripletkit.data.images import list_images
from tripletkit.data.judgements import read_judgements
from tripletkit.data.labels import NO_LABEL, read_labels
from tripletkit.data.questions import join_nodes
from tripletkit.data.splits.policies import Split
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
# Images that clusters are found from.
_MOST_CLUSTERED = 3_000
# A pair of images, the least that a class needs for a triplet, in training and held out.
_PAIR = 2

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


def draw_folds(
    rows: np.ndarray,
    n_images: int,
    seed: int,
    labels: np.ndarray | None = None,
    features: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    is_scored: np.ndarray | None = None,
) -> tuple[Iterator[Draw], str]:
    """Return draws without end, fold after fold, round after round, and what they hold out.

    One fold of a round, one of `defaults.DRAW_FOLDS`, is held out in a draw, and of it the triplets
    of the mask `is_scored`, or all. Features, rows of length 1, are finite where a triplet has the
    image; images of one of the `groups` are held out together, whatever triplets say.

    Example:
        >>> rows = np.arange(36).reshape(12, 3)  # twelve groups of three images
        >>> draws, by = draw_folds(rows, 36, seed=0)
        >>> by, len(next(draws).held_out_rows)
        ('groups of triplets that share no image', 4)
    """
    images = np.unique(rows)
    if len(images) < 3 * defaults.DRAW_FOLDS:
        raise SplitError(
            f"expected at least {3 * defaults.DRAW_FOLDS} images, three for each of "
            f"{defaults.DRAW_FOLDS} folds, got {len(images)}"
        )
    by, units, strata = _plan_units(rows, images, n_images, labels, features, groups)
    unit_of_image = np.full(n_images, -1)  # for images that no triplet has
    unit_of_image[images] = units
    return _draw_rounds(rows, unit_of_image, strata, seed, is_scored), by


def _plan_units(
    rows: np.ndarray,
    images: np.ndarray,
    n_images: int,
    labels: np.ndarray | None,
    features: np.ndarray | None,
    groups: np.ndarray | None,
) -> tuple[str, np.ndarray, np.ndarray]:
    """Decide what is held out together: its kind, the unit of each of the images, and the stratum
    of each unit, of which every fold has its share."""
    n_folds = defaults.DRAW_FOLDS
    if groups is not None:
        _, units, n_together = np.unique(groups[images], return_inverse=True, return_counts=True)
        if len(n_together) < n_folds:
            raise SplitError(
                f"expected at least {n_folds} `groups` of images to hold out, got {len(n_together)}"
            )
        # Groups alike in size, so that folds are.
        return "given groups of images", units, np.floor(np.log2(n_together)).astype(int)
    groups = join_nodes(rows[:, [0, 0]], rows[:, 1:], n_images)[images]
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) >= _MIN_DRAW_GROUPS and n_folds * sizes.max() <= len(images):
        return BY_GROUPS, groups, np.zeros(len(sizes), dtype=np.int64)
    strata = _find_strata(rows, n_images, labels, features)[images]
    # A class too small to have a pair in every fold is one unit; so is any other image.
    classes = join_nodes(rows[:, [0]], rows[:, [1]], n_images)[images]
    _, classes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    is_small = sizes[classes] < 2 * n_folds
    keys = np.where(is_small, classes, len(sizes) + np.arange(len(images)))
    _, first, units = np.unique(keys, return_index=True, return_inverse=True)
    n_together = np.bincount(units)
    # Units alike in size, so that folds are.
    return BY_IMAGES, units, np.where(n_together > 1, strata.max() + n_together, strata[first])


def _deal_units(strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each unit, even in every stratum."""
    by_chance = rng.permutation(len(strata))
    order = by_chance[np.argsort(strata[by_chance], kind="stable")]
    folds = np.empty(len(strata), dtype=np.int64)
    # Dealt like cards through all strata, from a chance start.
    folds[order] = (np.arange(len(strata)) + rng.integers(defaults.DRAW_FOLDS)) % (
        defaults.DRAW_FOLDS
    )
    return folds


def _draw_rounds(
    rows: np.ndarray,
    unit_of_image: np.ndarray,
    strata: np.ndarray,
    seed: int,
    is_scored: np.ndarray | None,
) -> Iterator[Draw]:
    round_, n_empty = 0, 0
    while n_empty < _MAX_EMPTY_ROUNDS:
        fold_of_image = _deal_units(strata, np.random.default_rng([seed, round_]))[unit_of_image]
        is_empty = True
        for fold in range(defaults.DRAW_FOLDS):
            split = Split.of_groups(rows, fold_of_image, fold)
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
        f"{_MAX_EMPTY_ROUNDS} draws of a share of 1/{defaults.DRAW_FOLDS} of the images. Judge "
        "more triplets over the same images, or give validation triplets of your own."
    )


# So few images make a triplet.
_FEWEST = 3


def draw_splits(
    rows: np.ndarray, n_draws: int, test_size: float, rng: np.random.Generator
) -> Iterator[Split]:
    """Yield splits that hold out a share `test_size` of the images, and drop what mixes sides.

    Images take turns in an order of chance: after any number of draws, the one held out most often
    was so at most once more than the one held out least.
    """
    named, inside = np.unique(rows, return_inverse=True)
    inside, n_images = inside.reshape(-1, 3), len(named)
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
        split = Split.of_groups(inside, is_held_out, True)
        for side, kept in (("training", split.train_rows), ("the test", split.val_rows)):
            if not len(kept):
                raise SplitError(
                    f"expected triplets for training and for the test, got none for {side}: with "
                    f"{test_size:.0%} of {n_images:,} images held out, none of {len(rows):,} "
                    "triplets lies on that side whole. Try another `test_size`, or judge more "
                    "triplets."
                )
        yield split


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
    """Return the kind of each image, the number of kinds, and what they are: `BY_LABELS`, the
    classes, where enough images have one, else `"clusters"`.

    Images other than those given, and those without a label, have that number as their kind.
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
    groups[images] = _cluster_images(features[images], n_groups, seed)
    return groups, n_groups, "clusters"


def hold_out_classes(
    rows: np.ndarray, groups: np.ndarray, n_groups: int, fraction: float, seed: int, fewest: int = 2
) -> HeldOutClasses:
    """Choose whole groups to hold out, of several draws the one that keeps most triplets.

    A draw of clusters that cuts a kind of things in two separates images that triplets join,
    and loses these; so the draw that keeps most is also the one that is nearest to holding out
    groups as the judges see them. An image of group `n_groups` is never held out; `fewest` groups
    are, as a question needs images of two.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(groups, minlength=n_groups)[:n_groups]
    wanted = fraction * sizes.sum()
    best: tuple[int, HeldOutClasses | None] = (0, None)
    for _ in range(_UNSEEN_DRAWS):
        order = rng.permutation(n_groups)
        n_drawn = max(fewest, int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right")))
        is_held_out = np.isin(groups, order[:n_drawn])
        split = Split.of_groups(rows, is_held_out, True)
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


def _find_strata(
    rows: np.ndarray,
    n_images: int,
    labels: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Return `(n_images,)` integers: the class of each image, or what comes nearest to it.

    Features, rows of length 1, are finite where a triplet has the image.
    """
    images = np.unique(rows)
    if labels is not None and np.any(labels[images] != NO_LABEL):
        return np.where(labels == NO_LABEL, labels.max() + 1, labels)
    strata = np.zeros(n_images, dtype=np.int64)
    n_clusters = min(defaults.N_CLUSTERS, len(images) // defaults.MIN_GROUP_IMAGES)
    if features is not None and n_clusters >= 2:
        strata[images] = _cluster_images(features[images], n_clusters, 0)
        return strata
    # Classes never mix among positives, so there each of them is a component.
    return join_nodes(rows[:, [0]], rows[:, [1]], n_images)


def _cluster_images(features: np.ndarray, n_groups: int, seed: int) -> np.ndarray:
    """Return `(n_images,)` integers: k-means clusters of features, rows of length 1.

    Of many images a sample says where the centers are.
    """
    from sklearn.cluster import KMeans

    sample = features
    if len(features) > _MOST_CLUSTERED:
        drawn = np.random.default_rng(seed).choice(len(features), _MOST_CLUSTERED, replace=False)
        sample = features[drawn]
    return KMeans(n_groups, n_init=3, random_state=seed).fit(sample).predict(features)


def hold_out_images(
    labels: np.ndarray,
    fraction: float,
    seed: int = defaults.SEED,
    images: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the same share of every class, leaving pairs on both sides; `(n_images,)` bool.

    A class has at least two images held out, or none, and at least two left for training. Where its
    share is below two, chance decides, so that the whole keeps its share. At least two classes have
    images held out, since a triplet needs a negative. `images` may be held out, such as one name of
    each image; one without a label never is.

    Example:
        >>> held_out = hold_out_images(np.repeat([0, 1, 2], 10), 0.3)
        >>> held_out.reshape(3, 10).sum(axis=1).tolist()
        [3, 3, 3]
    """
    is_held_out = np.zeros(len(labels), dtype=bool)
    if fraction == 0:
        return is_held_out
    usable = np.arange(len(labels)) if images is None else np.unique(images)
    usable = usable[labels[usable] != NO_LABEL]
    rng = np.random.default_rng(seed)
    # By chance within each class.
    usable = rng.permutation(usable)
    usable = usable[np.argsort(labels[usable], kind="stable")]
    _, starts, sizes = np.unique(labels[usable], return_index=True, return_counts=True)
    numbers = _numbers_of_classes(sizes, fraction, rng)
    rank = np.arange(len(usable)) - np.repeat(starts, sizes)
    is_held_out[usable[rank < np.repeat(numbers, sizes)]] = True
    return is_held_out


def _numbers_of_classes(sizes: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_classes,)` int64: how many images to hold out of each class."""
    is_large = sizes >= 2 * _PAIR
    if is_large.sum() < 2:
        raise SplitError(
            f"expected at least two classes of {2 * _PAIR} images to hold some of them out, got "
            f"{is_large.sum()} (largest class: {sizes.max(initial=0):,}). Give the images for "
            "validation yourself, or more of each class."
        )
    wanted = fraction * sizes[is_large]
    # Up to a pair all or nothing, above it the next whole number or the one below.
    step = np.where(wanted < _PAIR, _PAIR, 1)
    whole = np.where(wanted < _PAIR, 0, np.floor(wanted))
    numbers = whole + step * _round_by_chance((wanted - whole) / step, rng)
    numbers = np.minimum(numbers, sizes[is_large] - _PAIR).astype(np.int64)
    n_missing = max(0, 2 - np.count_nonzero(numbers))
    largest = np.argsort(-wanted * (numbers == 0), kind="stable")[:n_missing]
    numbers[largest] = _PAIR
    result = np.zeros(len(sizes), dtype=np.int64)
    result[is_large] = numbers
    return result


def _round_by_chance(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `(n,)` 0 or 1, each with its share as chance, their sum within 1 of the shares'.

    Reference:
        Systematic sampling; Madow. On the theory of systematic sampling, II. Annals of
        Mathematical Statistics 20, 1949.
    """
    order = rng.permutation(len(shares))
    steps = np.floor(np.cumsum(np.append(rng.random(), shares[order])))
    result = np.empty(len(shares))
    result[order] = np.diff(steps)
    return result


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
