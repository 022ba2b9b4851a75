"""What every command does that needs the features of images: a bar, and a word about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tripletkit.cli.console import progress_bar

if TYPE_CHECKING:
    from tripletkit.features.encoders import FeatureSource
    from tripletkit.features.image_features import Collection, NamedFiles


def open_collection(
    files: NamedFiles,
    source: FeatureSource,
    cache: Path | None,
    *,
    skip_bad: bool,
) -> Collection:
    """Load the features of images; see `load_collection`.

    Args:
        cache: folder of the feature store. Defaults to the user's.
    """
    from tripletkit.features import image_features as collection
    from tripletkit.features.stores import open_store

    with open_store(cache) as store, progress_bar("features", "image") as progress:
        return collection.open_collection(
            files, source, store, skip_bad=skip_bad, progress=progress
        )
