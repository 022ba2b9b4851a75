"""How far the accuracy that training prints is from the one on images that it never saw.

    python examples/printed_accuracy_benchmark.py sets.csv --recipes map auto mlp --seeds 10

`sets.csv` is that of accuracy_benchmark.py. For each seed half of a set's images are held out, and
with them every triplet that names one; a model learns from the triplets of the other half, and
answers those whose images were all held out. Printed is what held-out draws said beforehand, what
it answers, and their difference in points as mean and standard error over seeds. A model that
answers has learned from all its images, one of a draw from two thirds, so a little below 0 is what
numbers that do not flatter look like.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from accuracy_benchmark import read_sets

import tripletkit as tk


def measure(images: Path, triplets: tk.Triplets, recipe: str, seed: int) -> tuple[float, float]:
    """Return the accuracy that training printed, and the one on images that were held out."""
    draw = next(tk.ImageSplit(1, 0.5, random_state=seed).split(triplets))
    train, test = (tk.Triplets.from_array(triplets.rows[rows], triplets.names) for rows in draw)
    model = tk.train(train, images, recipe=recipe, seed=seed, unseen_classes=0)
    scores = model.record.pooled or model.validation
    return scores.trained.accuracy, float((model.answer(test, images).margins > 0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["map", "auto", "mlp"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only-sets", nargs="+")
    options = parser.parse_args()
    print("recipe    set           seeds  printed  held out  printed - held out, points")
    for recipe in options.recipes:
        for of in read_sets(options.sets):
            if options.only_sets and of.name not in options.only_sets:
                continue
            triplets = tk.read_judgements(of.train).triplets
            found = [measure(of.images, triplets, recipe, seed) for seed in range(options.seeds)]
            printed, true = np.array(found).T
            difference = 100 * (printed - true)
            error = difference.std(ddof=1) / len(found) ** 0.5
            print(
                f"{recipe:10}{of.name:14}{len(found):5}{printed.mean():9.4f}{true.mean():10.4f}"
                f"{difference.mean():+10.2f} ± {error:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
