"""Simulate how often `image_interval` holds the true value.

    python examples/interval_coverage.py                # 200 sets a cell, half a minute
    python examples/interval_coverage.py --sets 1000    # as the docstring of the interval states

Each set draws new images and new questions about them. Every image has a hardness, normal with
the given deviation in logits; an answer is right with a chance whose logit is a constant plus
the hardness of nothing, of the anchor, or of all three images. The constant is chosen so that
answers are right with the given accuracy over all images there could be, which is the value
that an interval must hold. Rows of "difference" compare two models for which other images are
hard, both as accurate: the paired interval must hold 0.

A cell says in how many percent of the intervals the value lies, and after a comma in how many
percent of the sets there is one, where that is not all of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from tripletkit.evaluation.intervals import Interval, image_interval

# Columns of a row whose images decide how hard it is.
EFFECTS: dict[str, list[int]] = {"none": [], "anchor": [0], "all three": [0, 1, 2]}

Simulated = tuple[np.ndarray, np.ndarray]


def logit_of(accuracy: float, deviation: float) -> float:
    """Return the mean of normal logits whose chances average to the accuracy."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    weights /= weights.sum()
    return brentq(lambda mean: weights @ expit(mean + deviation * points) - accuracy, -50, 50)


def draw_questions(generator: np.random.Generator, n_rows: int, n_images: int) -> np.ndarray:
    """Return `(n_rows, 3)` images, all equally often, no row with one of them twice."""
    rows = generator.integers(0, n_images, (2 * n_rows + 50, 3))
    differ = (rows != np.roll(rows, 1, axis=1)).all(axis=1)
    return rows[differ][:n_rows]


def draw_sets(
    accuracy: float,
    effect: str,
    deviation: float,
    n_images: int,
    n_rows: int,
    *,
    n_sets: int,
    seed: int,
    of_difference: bool = False,
) -> Iterator[Simulated]:
    """Yield for each set what its rows earn, and their images.

    Args:
        accuracy: 0 to 1, over all images there could be.
        effect: a key of `EFFECTS`.
        deviation: of the hardness of an image, in logits.
        of_difference: of two models, -1, 0 or 1 a row, instead of one, 0 or 1.
    """
    generator = np.random.default_rng(seed)
    columns = EFFECTS[effect]
    mean = logit_of(accuracy, deviation * len(columns) ** 0.5)
    for _ in range(n_sets):
        rows = draw_questions(generator, n_rows, n_images)
        credits = []
        for _ in range(1 + of_difference):
            hardness = generator.normal(0, deviation, n_images)
            chance = expit(mean - hardness[rows[:, columns]].sum(axis=1))
            credits.append((generator.random(n_rows) < chance).astype(np.float64))
        yield credits[0] - credits[1] if of_difference else credits[0], rows


def measure_coverage(
    sets: Iterator[Simulated], true: float, find: Callable[[np.ndarray, np.ndarray], object]
) -> tuple[float, float]:
    """Return the share of intervals that hold the true value, and of sets that have one.

    Args:
        find: takes values and images, returns an `Interval` or something else for none.
    """
    found = [find(values, rows) for values, rows in sets]
    intervals = [interval for interval in found if isinstance(interval, Interval)]
    n_held = sum(interval.low <= true <= interval.high for interval in intervals)
    return n_held / len(intervals) if intervals else float("nan"), len(intervals) / len(found)


def find_for_difference(values: np.ndarray, rows: np.ndarray) -> object:
    return image_interval(values, rows, bounds=(-1, 1))


def show_cell(coverage: float, given: float) -> str:
    """Return one cell of the table."""
    if not given:
        return "too few"
    return f"{100 * coverage:.1f}" + (f", {100 * given:.0f}" if given < 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=200, help="sets a cell (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, nargs="+", default=[20, 30, 60, 200, 500])
    parser.add_argument("--accuracies", type=float, nargs="+", default=[0.6, 0.75, 0.9, 0.97])
    parser.add_argument("--rows", type=int, default=10, help="rows an image (default 10)")
    parser.add_argument(
        "--deviation", type=float, default=1.0, help="of the hardness, in logits (default 1)"
    )
    options = parser.parse_args()
    start = time.perf_counter()
    print(f"{'':11}{'effect':10}{'accuracy':>8}", *(f"{n:>11} images" for n in options.images))
    for of_difference in (False, True):
        for effect in EFFECTS:
            for accuracy in options.accuracies:
                cells = []
                for n_images in options.images:
                    sets = draw_sets(
                        accuracy,
                        effect,
                        options.deviation,
                        n_images,
                        n_images * options.rows,
                        n_sets=options.sets,
                        seed=options.seed,
                        of_difference=of_difference,
                    )
                    true = 0.0 if of_difference else accuracy
                    find = find_for_difference if of_difference else image_interval
                    cells.append(show_cell(*measure_coverage(sets, true, find)))
                what = "difference" if of_difference else "accuracy"
                print(f"{what:11}{effect:10}{accuracy:>8}", *(f"{cell:>18}" for cell in cells))
    print(f"{options.sets:,} sets a cell, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
