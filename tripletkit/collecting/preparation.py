"""What is looked up before questions can be asked: images, their features, known answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tripletkit import defaults
from tripletkit.data.images import open_images
from tripletkit.data.judgements import open_judgements
from tripletkit.features.encoder import open_encoder
from tripletkit.features.feature_parts import GivenWeights
from tripletkit.features.store import open_store
from tripletkit.progress import Progress


def compute_features(
    folder: Path,
    names: Sequence[str],
    backbone: Sequence[str],
    weights: GivenWeights,
    cache: Path | None,
    progress: Progress,
) -> np.ndarray:
    """Return the features of images, NaN where one cannot be read; runs in its own process."""
    encoder = open_encoder(backbone, weights=weights, views=[defaults.VIEWS])
    files = open_images(folder, names, skip_bad=True)
    with open_store(cache) as store:
        return encoder.encode(files, store, progress=progress, tell=False)


def locate_usable(names: list[str], folder: Path) -> dict[str, Path]:
    """Return the path of each image that can be shown, with a word about the others."""
    images = open_images(folder, names, skip_bad=True)
    images.warn_of_missing()
    return {name: path for name, path in zip(names, images.paths, strict=True) if path is not None}


def read_gold(
    gold_file: Path | None, folder: Path, numbers: dict[str, int]
) -> list[tuple[int, int, int]]:
    """Return questions whose answer is known, by the numbers of their images."""
    if gold_file is None:
        return []
    gold = open_judgements(gold_file).decided().triplets
    paths = open_images(folder, gold.names, gold.first_places()).paths
    found = [numbers[path.relative_to(folder).as_posix()] for path in paths if path is not None]
    gold = gold.take(~gold.is_degenerate())
    return [tuple(found[index] for index in row) for row in gold.rows.tolist()]
