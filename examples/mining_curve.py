"""Draw what mining gains: validation accuracy over steps, mined triplets against random ones.

    python examples/mining_curve.py images/ --labels labels.csv --val val.txt \
        --val-truth val_truth.csv -o curve.svg

Every way starts from the same head and takes the same steps, each on about 80 pictures or 80
triplets: triplets drawn by chance, anew in every epoch; the hardest triplets of a batch of 10
classes with 8 pictures each; and the same with the hardest positive of each picture, looked for
among all pictures of its class, injected into the batch. Lines are means over seeds, bands reach
from the lowest to the highest.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from matplotlib.figure import Figure

from tripletkit import defaults
from tripletkit.cli.tables import align_columns
from tripletkit.data.label_triplets import draw_triplets
from tripletkit.data.labels import PictureLabels, read_classes
from tripletkit.data.triplets import read_triplets
from tripletkit.evaluation.answers import read_truth
from tripletkit.evaluation.distances import FROZEN_DISTANCE
from tripletkit.features.collection import find_files, load_collection
from tripletkit.features.picture_views import choose_views
from tripletkit.features.sources import choose_source
from tripletkit.features.store import FeatureStore
from tripletkit.model.batches import Batch, TripletBatches
from tripletkit.model.head_training import LabelTraining
from tripletkit.model.settings import HeadSettings
from tripletkit.model.training import share_right
from tripletkit.report.style import (
    BLUE,
    GREEN,
    LIGHT,
    VERMILLION,
    add_axes,
    add_legend,
    label_axes,
    make_figure,
    write_figure,
)

BATCH_SIZE = defaults.CLASSES_PER_BATCH * defaults.PICTURES_PER_CLASS
WAYS = {
    "random triplets": {},
    "batch-hard": {"mining": "batch-hard"},
    "batch-hard, injected positives": {"mining": "batch-hard", "inject_positives": True},
}


class RandomTriplets:
    """As many triplets as there are pictures, drawn anew for every epoch."""

    def __init__(self, labels: np.ndarray, pictures: np.ndarray) -> None:
        self._labels = labels
        self._pictures = pictures

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        rows = draw_triplets(
            self._labels, per_anchor=1, seed=int(rng.integers(2**31)), pictures=self._pictures
        )
        return TripletBatches(rows, self._labels, BATCH_SIZE).epoch(rng)


def follow(
    features: np.ndarray,
    labels: PictureLabels,
    pictures: np.ndarray,
    val_rows: np.ndarray,
    settings: HeadSettings,
) -> list[float]:
    """Return the validation accuracy before training and after each epoch."""
    random = RandomTriplets(labels.of_picture, pictures) if settings.mining == "none" else None
    # The rows only say which pictures are for training.
    rows = np.repeat(pictures[:, None], 3, axis=1)
    training = LabelTraining(features, rows, settings, labels, random)
    accuracies = [share_right(training.embed(), val_rows, settings.distance)]
    for _ in range(settings.epochs):
        training.run_epoch()
        accuracies.append(share_right(training.embed(), val_rows, settings.distance))
    return accuracies


def draw(curves: dict[str, np.ndarray], steps: np.ndarray, frozen: float) -> Figure:
    """Return the figure of `(n_seeds, n_epochs + 1)` accuracies of each way."""
    figure = make_figure(7, 4, LIGHT)
    axes = add_axes(figure, (1, 1, 1), LIGHT)
    for (name, curve), colour in zip(curves.items(), (BLUE, GREEN, VERMILLION), strict=True):
        axes.plot(steps, curve.mean(axis=0), color=colour, label=name)
        axes.fill_between(steps, curve.min(axis=0), curve.max(axis=0), color=colour, alpha=0.15)
    axes.axhline(frozen, color=LIGHT.muted, linestyle="--", label="frozen features, cosine")
    axes.set_ylim(min(frozen, np.percentile([c[:, 1:] for c in curves.values()], 2)) - 0.01)
    label_axes(axes, LIGHT, "Mined and random triplets", "steps", "validation accuracy")
    add_legend(axes, LIGHT, loc="center right")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--val-truth", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--loss", default="triplet")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()

    val = read_triplets(options.val)
    truth = read_truth(options.val_truth).labels[:, None]
    label_of = read_classes(options.labels, options.images)
    names = [*val.names, *(name for name in label_of if name not in set(val.names))]
    files = find_files(names, [str(options.labels)] * len(names), options.images)
    source = choose_source([options.backbone], {}, choose_views([defaults.VIEWS]))
    with FeatureStore() as store:
        features = load_collection(files, source, store).features
    labels = PictureLabels.of_names(names, label_of)
    pictures = np.arange(len(val.names), len(names))
    val_rows = np.where(truth == 1, val.rows, val.rows[:, [0, 2, 1]])
    settings = HeadSettings(loss=options.loss, batch_size=BATCH_SIZE, epochs=options.epochs)
    curves = {}
    for name, changes in WAYS.items():
        curves[name] = np.array(
            [
                follow(
                    features, labels, pictures, val_rows, replace(settings, seed=seed, **changes)
                )
                for seed in options.seeds
            ]
        )
        print(f"{name}: done", flush=True)
    steps = np.arange(options.epochs + 1) * -(-len(pictures) // BATCH_SIZE)
    shown = [number for number in (1, 2, 5, 10, 20, 40, 60) if number <= options.epochs]
    table = [["accuracy after steps", *(f"{steps[number]:,}" for number in shown), "best"]]
    for name, curve in curves.items():
        mean = curve.mean(axis=0)
        table.append([name, *(f"{mean[number]:.4f}" for number in shown), f"{mean.max():.4f}"])
    print(align_columns(table))
    frozen = share_right(features, val_rows, FROZEN_DISTANCE)
    write_figure(options.output, draw(curves, steps, frozen))


if __name__ == "__main__":
    main()
