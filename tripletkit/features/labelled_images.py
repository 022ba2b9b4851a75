"""Images with class labels, each once however many names it has."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tripletkit.data.images import Images
from tripletkit.data.labels import NO_LABEL, ImageLabels, LabelsLike, read_labels
from tripletkit.errors import MAX_SHOWN, shorten_lines
from tripletkit.features.store import FeatureStore

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class LabelledImages:
    """Named images with labels."""

    files: Images
    labels: ImageLabels  # one a name; names of one image have the same
    images: np.ndarray  # indices of names, one for each image that is there and has a label
    same_as: np.ndarray  # (n_names,) for each name the first one of its image

    def mark(self, names: Iterable[str]) -> np.ndarray:
        """Return `(n_names,)` bool: the images that are named, by whichever of their names."""
        index_of = {name: index for index, name in enumerate(self.files.names)}
        rows = np.unique(self.same_as[[index_of[name] for name in names]])
        if n_unlabelled := int((self.labels.of_image[rows] == NO_LABEL).sum()):
            logger.info("Held-out images without a label, left out: %s.", f"{n_unlabelled:,}")
        is_marked = np.zeros(len(self.files.names), dtype=bool)
        is_marked[rows] = True
        return is_marked


def read_labelled(
    labels: LabelsLike,
    images: Images,
    cache: Path | None,
    *,
    further: Mapping[str, str | None] | None = None,
    further_source: Path | None = None,
) -> LabelledImages:
    """Read labels and find their images; `further` are names that `labels` lacks."""
    opened = read_labels(labels, images.folder)
    label_of: dict[str, str | None] = {**opened}
    places = [opened.record.name] * len(label_of)
    more = {name: label for name, label in (further or {}).items() if name not in label_of}
    with FeatureStore(cache) as store:
        return find_labelled(
            label_of | more, [*places, *[str(further_source)] * len(more)], images, store
        )


def find_labelled(
    label_of: Mapping[str, str | None],
    places: Sequence[str],
    images: Images,
    store: FeatureStore,
) -> LabelledImages:
    """Find the images of labelled names; a name may be wanted without a label."""
    names = list(label_of)
    files = images.find(names, places)
    same_as = files.first_of_same(store)
    known = {name: label for name, label in label_of.items() if label is not None}
    labels = ImageLabels.of_names(names, known).merge(same_as, names)
    is_first = files.is_there() & (same_as == np.arange(len(names)))
    chosen = np.flatnonzero(is_first & (labels.of_image != NO_LABEL))
    # Two spellings of one file are no copy.
    n_files = len({path for path in files.paths if path is not None})
    if files.has_files and (n_copies := n_files - int(is_first.sum())):
        logger.info("Copies of other images, left out: %s.", f"{n_copies:,}")
    return LabelledImages(files, labels, chosen, same_as)


def tell_singleton_classes(labels: ImageLabels, images: np.ndarray) -> None:
    """Name the classes that have a single one of these images."""
    of_image = labels.of_image[images]
    sizes = np.bincount(of_image[of_image != NO_LABEL], minlength=len(labels.classes))
    singleton = [labels.classes[index] for index in np.flatnonzero(sizes == 1)]
    if singleton:
        shown = ", ".join(singleton[:MAX_SHOWN]) + (", ..." if len(singleton) > MAX_SHOWN else "")
        logger.info(
            "Singleton classes, whose image can only be a negative: %s (%s).",
            f"{len(singleton):,}",
            shorten_lines(shown),
        )
