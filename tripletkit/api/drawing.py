"""Triplets drawn from class labels, for `tripletkit triplets`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tripletkit import defaults
from tripletkit.data.label_triplets import Difficulty, draw_triplets
from tripletkit.evaluation.distances import candidate_measure
from tripletkit.features.encoder import Encoder
from tripletkit.features.labelled_images import (
    LabelledImages,
    read_labelled,
    tell_singleton_classes,
)
from tripletkit.features.store import open_store
from tripletkit.progress import Progress

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class DrawnTriplets:
    """Triplets drawn from labels.

    Attributes:
        names: of the images that have labels.
        rows: `(n_triplets, 3)` int32, indices into `names`: anchor, positive, negative.
        n_classes: how many classes have anchors.
    """

    names: list[str]
    rows: np.ndarray
    n_classes: int

    @property
    def n_images(self) -> int:
        return len(np.unique(self.rows))


def draw_from_labels(
    source: Path | BinaryIO,
    images: Path,
    *,
    per_anchor: int | None = None,
    count: int | None = None,
    balance: str = defaults.TRIPLET_BALANCE,
    is_hard: bool = False,
    make_encoder: Callable[[], Encoder] | None = None,
    seed: int = defaults.SEED,
    cache: Path | None = None,
    skip_bad: bool = False,
    follow_outside: bool = False,
    progress: Progress | None = None,
) -> DrawnTriplets:
    """Draw triplets: two images of one class and one of another.

    Args:
        source: labels, a CSV or a folder with a subfolder for each class.
        images: the image folder.
        per_anchor, count, balance, seed: see `draw_triplets`; `per_anchor` has a default where
            `count` is not given.
        is_hard: the farthest positives and the nearest negatives of some; else the other way
            round. Only with `make_encoder`.
        make_encoder: returns what measures difficulty; None draws whatever comes.
        cache: folder of the feature store.
        skip_bad, follow_outside: see `open_images`.
        progress: told (done, total) images whose features have to be computed.
    """
    found = read_labelled(source, images, cache, skip_bad=skip_bad, follow_outside=follow_outside)
    difficulty, labelled = None, found.images
    if make_encoder is not None:
        encoder = make_encoder()
        with open_store(cache) as store:
            embeddings = encoder.encode(found.files, store, progress=progress)
        difficulty = Difficulty(is_hard, candidate_measure(embeddings, encoder.distance))
        labelled = labelled[np.isfinite(embeddings[labelled, 0])]
    else:
        found.files.warn_of_missing()
    tell_singleton_classes(found.labels, labelled)
    if per_anchor is None and count is None:
        per_anchor = defaults.TRIPLETS_PER_ANCHOR
    rows = draw_triplets(
        found.labels.of_image,
        per_anchor=per_anchor,
        count=count,
        seed=seed,
        balance=balance,
        images=labelled,
        difficulty=difficulty,
    )
    wanted = count or (per_anchor or 0) * _count_anchors(found, labelled)
    if len(rows) < wanted:
        logger.info("%s triplets were asked for, there are %s.", f"{wanted:,}", f"{len(rows):,}")
    n_classes = len(np.unique(found.labels.of_image[rows[:, 0]]))
    return DrawnTriplets(list(found.files.names), rows, n_classes)


def _count_anchors(found: LabelledImages, images: np.ndarray) -> int:
    """Return how many images have another one of their class."""
    labels = found.labels.of_image[images]
    return int((np.bincount(labels)[labels] > 1).sum())
