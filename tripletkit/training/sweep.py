"""Settings of one head compared on the same held-out draws."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from tripletkit.errors import SettingsError, SplitError
from tripletkit.evaluation.intervals import Interval
from tripletkit.evaluation.pooled import PooledScore, compare_pooled, score_pooled
from tripletkit.features.store import open_store
from tripletkit.model.recipes import get_recipe
from tripletkit.progress import Stages, no_stages
from tripletkit.training.held_out import (
    answer_held_out,
    choose,
    credit,
    cross_fit,
    score_held_out,
)
from tripletkit.training.job import TrainingJob
from tripletkit.training.run import open_workplace
from tripletkit.training.trainer import Chosen, HeldOutAnswers

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class SweepRow:
    """What held-out draws say of one combination of settings.

    Attributes:
        settings: the combination, by the names of the grid.
        epochs: with which a model with these settings would be trained on all triplets.
        score: pooled over the draws.
        behind: by how much its answers are less often right than those of the best combination,
            on the same held-out triplets; 0 for the best.
        behind_interval: 95%; None for the best, or where nothing can be said.
    """

    settings: dict[str, Any]
    epochs: int
    score: PooledScore
    behind: float
    behind_interval: Interval | None


def sweep(
    job: TrainingJob, grid: Mapping[str, Sequence[Any]], stages: Stages = no_stages
) -> list[SweepRow]:
    """Score every combination of settings by the same held-out draws.

    Args:
        job: what to learn from, and the settings that all combinations have.
        grid: setting -> its values; see `HeadSettings`.
        stages: told of progress.
    Returns:
        A row a combination, the most accurate first.
    Raises:
        SettingsError: if the grid is empty, or a combination does not go together.
        SplitError: if no triplets can be held out.
        TripletkitError: if something is wrong with data or images, or if training collapses.
    """
    # All that can be wrong with settings is told before anything slow.
    combinations = list(_combine(grid))
    jobs = [
        replace(job, settings={**job.settings, **combination}).checked()
        for combination in combinations
    ]
    for each in jobs:
        _check(each)
    with open_store(job.cache) as store:
        place, _ = open_workplace(jobs[0], jobs[0].plan, store, None, stages)
    found = []
    for number, each in enumerate(jobs, 1):
        trainer = each.make_trainer(place)
        progress = stages(f"held-out draws, {number} of {len(jobs)}")
        held_out = answer_held_out(trainer, progress=progress)
        if held_out is None:
            raise SplitError("expected triplets that can be held out to compare settings by")
        found.append((held_out, choose(trainer, held_out)))
    scores = [score_held_out(*each).trained for each in found]
    right = [credit(chosen.margins) for _, chosen in found]
    best = max(range(len(found)), key=lambda number: scores[number].accuracy)
    _tell_of_choice([held_out for held_out, _ in found], [chosen for _, chosen in found])
    rows = []
    for number, (held_out, chosen) in enumerate(found):
        behind, interval = 0.0, None
        if number != best:
            behind, interval = compare_pooled(
                right[best], right[number], held_out.images, held_out.draws
            )
        epochs = chosen.trainer.settings.epochs
        rows.append(SweepRow(combinations[number], epochs, scores[number], behind, interval))
    return sorted(rows, key=lambda row: -row.score.accuracy)


def _tell_of_choice(answers: Sequence[HeldOutAnswers], chosen: Sequence[Chosen]) -> None:
    """Say what the best combination is worth, chosen by others than the answers that are scored."""
    first = answers[0]
    if len(answers) < 2 or any(len(each.draws) != len(first.draws) for each in answers):
        return
    together = replace(first, margins=np.stack([each.margins for each in chosen]))

    def choose(of_others: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        best = int(np.argmax(credit(of_others).mean(axis=1)))
        return lambda of_asked: of_asked[best]

    margins = cross_fit(together, choose)
    score = score_pooled(credit(margins), first.images, first.draws)
    interval = "" if score.interval is None else f" (95% interval {score.interval})"
    logger.info(
        "The best of %d combinations, chosen by other images than those it is scored on: %.4f%s.",
        len(answers),
        score.accuracy,
        interval,
    )


def _combine(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    if not grid or not all(len(values) for values in grid.values()):
        raise SettingsError("grid", "`grid`: expected settings with a value each at least")
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _check(job: TrainingJob) -> None:
    if job.is_from_scratch:
        raise SettingsError(
            "backbone",
            "`backbone`: only heads on a frozen backbone are compared, expected a pretrained one.",
        )
    recipe = get_recipe(job.settings.get("recipe", "mlp"))
    if recipe.is_chosen:
        raise SettingsError(
            "recipe",
            f"`recipe={recipe.name}` chooses by held-out draws by itself: compare settings of "
            "other recipes.",
        )
