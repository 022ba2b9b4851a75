"""Settings of a head, and encoders, compared on the same held-out draws."""

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
from tripletkit.features.feature_parts import assign_weights, list_backbones, name_of
from tripletkit.features.store import FeatureStore
from tripletkit.model.recipes import get_recipe
from tripletkit.progress import Stages, no_stages
from tripletkit.training.held_out import (
    answer_held_out,
    choose,
    credit,
    cross_fit,
    score_held_out,
)
from tripletkit.training.job import EncoderChoice, TrainingJob
from tripletkit.training.run import open_workplace
from tripletkit.training.trainer import HeldOutAnswers, Workplace

logger = logging.getLogger("tripletkit")


@dataclass(frozen=True)
class SweepRow:
    """What held-out draws say of one combination of settings.

    Attributes:
        settings: the combination, by the names of the grid; encoders by their names.
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
    """Score every combination of settings by the same held-out draws, the most accurate first.

    Of `backbone` and `depth` in the grid each combination has features of its own.
    """
    # All that can be wrong with settings is told before anything slow.
    combinations = list(_combine(grid))
    jobs = [_make_job(job, grid, combination).checked() for combination in combinations]
    for each in jobs:
        _check(each)
    trainers = [
        each.make_trainer(place)
        for each, place in zip(jobs, _open_workplaces(jobs, stages), strict=True)
    ]
    found, margins = [], []
    for number, trainer in enumerate(trainers, 1):
        progress = stages(f"held-out draws, {number} of {len(jobs)}")
        held_out = answer_held_out(trainer, progress=progress, drawn_by=trainers[0])
        if held_out is None:
            raise SplitError("expected triplets that can be held out to compare settings by")
        chosen = choose(trainer, held_out)
        assert chosen.margins is not None
        found.append((held_out, chosen))
        margins.append(chosen.margins)
    scores = [score_held_out(*each).trained for each in found]
    right = [credit(each) for each in margins]
    best = max(range(len(found)), key=lambda number: scores[number].accuracy)
    _tell_of_choice([held_out for held_out, _ in found], margins)
    rows = []
    for number, (held_out, chosen) in enumerate(found):
        behind, interval = 0.0, None
        if number != best:
            behind, interval = compare_pooled(
                right[best], right[number], held_out.images, held_out.draws
            )
        epochs = chosen.trainer.settings.epochs
        shown = _show_encoder(combinations[number])
        rows.append(SweepRow(shown, epochs, scores[number], behind, interval))
    return sorted(rows, key=lambda row: -row.score.accuracy)


def _make_job(
    job: TrainingJob, grid: Mapping[str, Sequence[Any]], combination: Mapping[str, Any]
) -> TrainingJob:
    """Return the training of one combination, which may have an encoder of its own."""
    settings, encoder = dict(combination), job.encoder
    if "depth" in settings:
        encoder = replace(encoder, depth=settings.pop("depth"))
    if "backbone" in settings:
        backbones = list_backbones(settings.pop("backbone"))
        compared = [each for backbone in grid["backbone"] for each in list_backbones(backbone)]
        # Each weights file must be for one of them, and goes to the combinations that have it.
        assign_weights(compared, encoder.weights)
        names = {None, *map(name_of, backbones)}
        weights = {name: file for name, file in encoder.weights.items() if name in names}
        encoder = replace(encoder, backbones=tuple(backbones), weights=weights)
    return replace(job, settings={**job.settings, **settings}, encoder=encoder)


def _open_workplaces(jobs: Sequence[TrainingJob], stages: Stages) -> list[Workplace]:
    """Return what each combination is trained with: of each encoder's own features, all with the
    same triplets."""
    opened: list[tuple[EncoderChoice, Workplace]] = []
    places = []
    with FeatureStore(jobs[0].cache) as store:
        for job in jobs:
            same = (place for encoder, place in opened if encoder == job.encoder)
            if (place := next(same, None)) is None:
                place = open_workplace(job, store, None, stages)
                opened.append((job.encoder, place))
            places.append(place)
    usable = np.logical_and.reduce([place.collection.is_usable() for _, place in opened])
    return [
        replace(place, inputs=replace(place.inputs, data=place.inputs.data.keep_usable(usable)))
        for place in places
    ]


def _tell_of_choice(answers: Sequence[HeldOutAnswers], margins: Sequence[np.ndarray]) -> None:
    """Say what the best combination is worth, chosen by others than the answers that are scored."""
    first = answers[0]
    if len(answers) < 2 or any(len(each.draws) != len(first.draws) for each in answers):
        return
    together = replace(first, margins=np.stack(margins))

    def choose(of_others: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        best = int(np.argmax(credit(of_others).mean(axis=1)))
        return lambda of_asked: of_asked[best]

    answered = cross_fit(together, choose)
    score = score_pooled(credit(answered), first.images, first.draws)
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
    for name, values in grid.items():
        if isinstance(values, str):
            raise SettingsError(
                "grid", f"`grid`: expected a list of values for {name}, got {values!r}"
            )
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _show_encoder(combination: Mapping[str, Any]) -> dict[str, Any]:
    """Return a combination with the name of its encoder, or a list of several."""
    shown = dict(combination)
    if "backbone" in shown:
        names = [name_of(each) for each in list_backbones(shown["backbone"])]
        shown["backbone"] = names[0] if len(names) == 1 else names
    return shown


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
