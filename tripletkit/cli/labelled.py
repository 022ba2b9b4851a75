"""What every command does that starts from class labels of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tripletkit.cli.console import say, warn
from tripletkit.errors import describe_problems

if TYPE_CHECKING:
    import numpy as np

    from tripletkit.data.labels import PictureLabels
    from tripletkit.features.collection import NamedFiles

LABELS = click.Path(exists=True, allow_dash=True, path_type=Path)


@dataclass(frozen=True)
class LabelledPictures:
    """Named pictures with labels.

    Attributes:
        files: the names that have a label, and where their files are.
        labels: one a name; names of one picture have the same.
        pictures: `(n_pictures,)` int64 indices of names, one for each picture that is there.
        same_as: `(n_names,)` for each name the one of its picture that is in `pictures`.
    """

    files: NamedFiles
    labels: PictureLabels
    pictures: np.ndarray
    same_as: np.ndarray


def read_labelled(
    source: Path, images: Path, cache: Path | None, *, skip_bad: bool, follow_outside: bool
) -> LabelledPictures:
    """Read labels and find their pictures, each once however many names it has.

    Args:
        source: a CSV, a folder with a subfolder for each class, or `-`.
        images: the image folder.
        cache: folder of the feature store, which remembers which files are alike.
    """
    import numpy as np

    from tripletkit.cli.options import input_source
    from tripletkit.data.labels import PictureLabels, read_classes, read_labels
    from tripletkit.features.collection import find_files, find_same_pictures
    from tripletkit.features.store import FeatureStore

    opened = input_source(source)
    label_of = read_classes(source, images) if opened is source else read_labels(opened)
    names = list(label_of)
    files = find_files(
        names, [str(source)] * len(names), images, skip_bad=skip_bad, follow_outside=follow_outside
    )
    if files.problems:
        problems = [f"{files.places[index]}: {text}" for index, text in files.problems.items()]
        warn(f"{len(problems):,} pictures are left out:\n{describe_problems(problems)}")
    with FeatureStore(cache) as store:
        same_as = find_same_pictures(files, store)
    labels = PictureLabels.of_names(names, label_of).merge(same_as, names)
    is_there = np.array([path is not None for path in files.paths])
    pictures = np.flatnonzero(is_there & (same_as == np.arange(len(names))))
    if n_copies := int(is_there.sum()) - len(pictures):
        say(f"Copies of other pictures, left out: {n_copies:,}.")
    return LabelledPictures(files, labels, pictures, same_as)
