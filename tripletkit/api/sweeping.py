"""Comparing settings from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tripletkit import defaults
from tripletkit.api.inputs import PathLike, TripletsLike
from tripletkit.errors import SettingsError
from tripletkit.features.backbones import AUTO
from tripletkit.progress import Stages, no_stages
from tripletkit.training.job import TrainingJob
from tripletkit.training.sources import open_sources

if TYPE_CHECKING:
    import pandas as pd


def sweep(
    triplets: TripletsLike,
    images: PathLike | None = None,
    *,
    grid: Mapping[str, Sequence[Any]],
    names: Sequence[str] | None = None,
    backbone: str | Sequence[str] = AUTO,
    depth: str = defaults.DEPTH,
    features: PathLike | None = None,
    skip_bad: bool = False,
    cache: PathLike | None = None,
    stages: Stages = no_stages,
    **settings: Any,
) -> pd.DataFrame:
    """Score every combination of settings by the same held-out draws.

    A third of the images is held out, again and again, as `train` does; every combination answers
    the same triplets about images that it has not seen. Nothing is kept but the table. The best
    of many looks better than it is, because it was chosen: train with it, and believe what `train`
    says of it no more than its interval allows.

    Args:
        triplets, images, names, backbone, depth, features, skip_bad, cache, stages: see `train`.
        grid: setting -> the values to try, such as `{"dim": [10, 32], "margin": [0.1, 0.2]}`.
            With `recipe` in it, recipes are compared; `best` is none of them, as it chooses by
            such draws by itself.
        settings: those that all combinations have, such as `seed`.
    Returns:
        A table with a row a combination, the most accurate first: the settings of the grid;
        `accuracy`, `low` and `high`, its 95% interval; `epochs` that a training on all triplets
        would have; `behind` the best, and `behind_low` and `behind_high`, its 95% interval,
        paired by triplet. Above 0 throughout means worse for certain.
    Raises:
        SettingsError: if the grid is empty, or a combination does not go together, naming the
            field.
        TripletkitError: if something is wrong with data, images or weights, or if no triplets
            can be held out.
    Example:
        `tk.sweep("train.txt", "images/", grid={"margin": [0.1, 0.2, 0.4]})`
    """
    import pandas as pd

    from tripletkit.training.sweep import sweep as score_all

    if images is None and features is None:
        raise SettingsError("images", "expected the folder of the images as `images`")
    job = TrainingJob(
        open_sources(
            images=None if images is None else Path(images),
            triplets=triplets,
            names=names,
        ),
        settings=settings,
        backbones=[backbone] if isinstance(backbone, str) else list(backbone),
        depth=depth,
        features=None if features is None else Path(features),
        skip_bad=skip_bad,
        cache=None if cache is None else Path(cache),
    )
    nothing = (None, None)
    rows = []
    for row in score_all(job, grid, stages):
        interval, behind = row.score.interval, row.behind_interval
        low, high = nothing if interval is None else (interval.low, interval.high)
        behind_low, behind_high = nothing if behind is None else (behind.low, behind.high)
        rows.append(
            {
                **row.settings,
                "accuracy": row.score.accuracy,
                "low": low,
                "high": high,
                "epochs": row.epochs,
                "behind": row.behind,
                "behind_low": behind_low,
                "behind_high": behind_high,
            }
        )
    return pd.DataFrame(rows)
