"""What every command does that needs the features of images: a bar, and a word about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tripletkit.cli.console import progress_bar, say, warn
from tripletkit.errors import describe_problems

if TYPE_CHECKING:
    from tripletkit.features.collection import Collection, NamedFiles
    from tripletkit.features.sources import FeatureSource


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
    from tripletkit.features.collection import load_collection
    from tripletkit.features.store import FeatureStore

    with FeatureStore(cache) as store, progress_bar("features", "image") as progress:
        collection = load_collection(files, source, store, skip_bad=skip_bad, progress=progress)
    if n_bad := len(collection.problems):
        warn(f"{n_bad:,} images are left out:\n{describe_problems(collection.problems)}")
    n_stored = len(files.names) - n_bad - collection.n_computed
    if not source.parts:
        say(f"Features: {len(files.names) - n_bad:,} images given.")
        return collection
    say(f"Features: {collection.n_computed:,} images computed, {n_stored:,} from the store.")
    return collection
