"""What every command does that starts from class labels of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import say
from tripletkit.cli.options import input_source
from tripletkit.cli.sources import need_images
from tripletkit.errors import MAX_SHOWN

if TYPE_CHECKING:
    import numpy as np

    from tripletkit.data.labels import ImageLabels
    from tripletkit.features.collection import NamedFiles

LABELS = click.Path(exists=True, allow_dash=True, path_type=Path)


@dataclass(frozen=True)
class LabelledImages:
    """Named images with labels.

    Attributes:
        files: the names, and where their files are.
        labels: one a name; names of one image have the same.
        images: `(n_images,)` int64 indices of names, one for each image that is there
            and has a label.
        same_as: `(n_names,)` for each name the first one of its image.
    """

    files: NamedFiles
    labels: ImageLabels
    images: np.ndarray
    same_as: np.ndarray


def read_label_source(source: Path, images: Path) -> dict[str, str]:
    """Read a CSV, a folder with a subfolder for each class, or a CSV on standard input (`-`)."""
    from tripletkit.data.labels import read_classes, read_labels

    opened = input_source(source)
    return read_classes(source, images) if opened is source else read_labels(opened)


def read_labelled(
    source: Path,
    images: Path | None,
    cache: Path | None,
    *,
    skip_bad: bool,
    follow_outside: bool,
    further: Mapping[str, str | None] | None = None,
    further_source: Path | None = None,
) -> LabelledImages:
    """Read labels and find their images, each once however many names it has.

    Args:
        source: a CSV, a folder with a subfolder for each class, or `-`.
        images: the image folder; None where features are given.
        cache: folder of the feature store, which remembers which files are alike.
        further: names of more images, with labels for those that `source` does not name.
        further_source: where they were read, for messages.
    """
    import numpy as np

    from tripletkit.data.labels import NO_LABEL, ImageLabels
    from tripletkit.features.collection import find_files, find_same_images
    from tripletkit.features.store import FeatureStore

    need_images(images)
    label_of = read_label_source(source, images)
    further = {name: label for name, label in (further or {}).items() if name not in label_of}
    names = [*label_of, *further]
    places = [str(source)] * len(label_of) + [str(further_source)] * len(further)
    files = find_files(names, places, images, skip_bad=skip_bad, follow_outside=follow_outside)
    label_of |= {name: label for name, label in further.items() if label is not None}
    with FeatureStore(cache) as store:
        same_as = find_same_images(files, store)
    labels = ImageLabels.of_names(names, label_of).merge(same_as, names)
    is_there = files.is_there()
    is_first = is_there & (same_as == np.arange(len(names)))
    usable = np.flatnonzero(is_first & (labels.of_image != NO_LABEL))
    # A name under --held-out is often another spelling of one that has a label; no copy.
    n_files = len({path for path in files.paths if path is not None})
    if files.has_folder and (n_copies := n_files - int(is_first.sum())):
        say(f"Copies of other images, left out: {n_copies:,}.")
    return LabelledImages(files, labels, usable, same_as)


def say_singleton_classes(labels: ImageLabels, images: np.ndarray) -> None:
    """Name the classes that have a single one of these images."""
    import numpy as np

    from tripletkit.data.labels import NO_LABEL

    of_image = labels.of_image[images]
    sizes = np.bincount(of_image[of_image != NO_LABEL], minlength=len(labels.classes))
    singleton = [labels.classes[index] for index in np.flatnonzero(sizes == 1)]
    if singleton:
        shown = ", ".join(singleton[:MAX_SHOWN]) + (", ..." if len(singleton) > MAX_SHOWN else "")
        say(f"Singleton classes, whose image can only be a negative: {len(singleton):,} ({shown}).")
