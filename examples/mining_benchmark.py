"""Measure what mining gains on labelled images, within batches and among all images.

    python examples/mining_benchmark.py images/ --labels labels.csv --val val.txt \
        --val-truth val_truth.csv --curve curve.svg

First, validation accuracy over steps, drawn to `--curve`. Every way starts from the same head and
takes the same steps, each on about 80 images or 80 triplets: triplets drawn by chance, anew in
every epoch; the hardest triplets of a batch of 10 classes with 8 images each; and the same with
the hardest positive of each image, looked for among all images of its class, injected into the
batch. Lines are means over seeds, bands reach from the lowest to the highest.

Then the accuracy of the head of recipe `mlp` on as many triplets as `tripletkit mine` finds between
several cuts, beside as many drawn by chance, with the labels as they are and with a share of them
wrong.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from matplotlib.figure import Figure
from named_images import vectors_of

import tripletkit as tk
from tripletkit import defaults
from tripletkit.data.label_triplets import draw_triplets
from tripletkit.data.labels import ImageLabels, read_labels
from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.evaluation.classification import ClassDistances, DistanceDistribution
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.model.settings import Settings
from tripletkit.reporting.figures import (
    LIGHT,
    _add_legend,
    _label_axes,
    _make_axes,
    render_figure,
)
from tripletkit.results import _align_columns
from tripletkit.search.offline_mining import _find_cut, _mine_images, _pair_hardest
from tripletkit.training.batch_learner import Batch, Batches
from tripletkit.training.head_trainer import _LabelTraining

BATCH_SIZE = defaults.CLASSES_PER_BATCH * defaults.IMAGES_PER_CLASS
WAYS = {
    "random triplets": {},
    "batch-hard": {"mining": "batch-hard"},
    "batch-hard, injected positives": {"mining": "batch-hard", "inject_positives": True},
}
# Quantiles of the positive and of the negative distances to mine between.
CUTS = {
    "mined, default cuts": (defaults.POSITIVE_QUANTILES, defaults.NEGATIVE_QUANTILES),
    "positives to .95, negatives from .25": ((0.0, 0.95), (0.25, 1.0)),
    "positives to .95, negatives from .01": ((0.0, 0.95), (0.01, 1.0)),
    "the very hardest": ((0.0, 1.0), (0.0, 1.0)),
}
CUT_EPOCHS = 12


@dataclass(frozen=True)
class Task:
    """Labelled images for training, and questions about others.

    Attributes:
        options: where they are, and by what backbone.
        names: of all images, those of the questions first.
        features: `(n_images, n_features)` float32.
        labels: of all images.
        images: indices of those for training.
        val: the questions: anchor, positive, negative.
    """

    options: argparse.Namespace
    names: list[str]
    features: np.ndarray
    labels: ImageLabels
    images: np.ndarray
    val: tk.Triplets

    def learn_from(self, rows: np.ndarray, seed: int) -> float:
        """Return how many of the questions the head of recipe `mlp` answers right, 0 to 1."""
        model = tk.train(
            rows,
            self.options.images,
            names=self.names,
            # Learns from all of them; the questions say how well.
            val_fraction=0,
            backbone=self.options.backbone,
            epochs=CUT_EPOCHS,
            seed=seed,
        )
        return tk.score(model.answer(self.val, self.options.images)).accuracy


class RandomTriplets:
    """As many triplets as there are images, drawn anew for every epoch."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task, self._seed = task, seed

    def find_positives(self, *_: object) -> None:
        """Add none."""

    def epoch(self, number: int) -> Iterator[Batch]:
        labels = self._task.labels.of_image
        seed = int(np.random.default_rng([self._seed, number]).integers(2**31))
        rows = draw_triplets(labels, per_anchor=1, seed=seed, images=self._task.images)
        return Batches(rows, labels, Settings(batch_size=BATCH_SIZE)).epoch(number)


def open_task(options: argparse.Namespace) -> Task:
    val = tk.read_judgements(options.val, truth=options.val_truth).turned().triplets
    label_of = read_labels(options.labels, options.images)
    asked = set(val.names)
    names = [*val.names, *(name for name in label_of if name not in asked)]
    return Task(
        options,
        names,
        vectors_of(tk.pretrained(options.backbone), options.images, names),
        ImageLabels.of_names(names, label_of),
        np.arange(len(val.names), len(names)),
        val,
    )


def follow(task: Task, settings: Settings) -> list[float]:
    """Return the validation accuracy before training and after each epoch."""
    # The rows only say which images are for training.
    rows = np.repeat(task.images[:, None], 3, axis=1)
    training = _LabelTraining(task.features, rows, settings, task.labels)
    if settings.mining == "none":
        training._batches = RandomTriplets(task, settings.seed)
    accuracies = [share_right(training.embed(), task.val.rows, settings.distance)]
    for _ in range(settings.epochs):
        training.run_epoch()
        accuracies.append(share_right(training.embed(), task.val.rows, settings.distance))
    return accuracies


def share_right(embeddings: np.ndarray, rows: np.ndarray, distance: str) -> float:
    """Return the share of triplets whose positive is nearer; a tie is not."""
    return float((triplet_margins(embeddings, rows, distance) > 0).mean())


def draw(curves: dict[str, np.ndarray], steps: np.ndarray, frozen: float) -> Figure:
    """Return the figure of `(n_seeds, n_epochs + 1)` accuracies of each way."""
    figure, (axes,) = _make_axes(7, 4, LIGHT)
    colours = (LIGHT.right, LIGHT.classes[2], LIGHT.wrong)
    for (name, curve), colour in zip(curves.items(), colours, strict=True):
        axes.plot(steps, curve.mean(axis=0), color=colour, label=name)
        axes.fill_between(steps, curve.min(axis=0), curve.max(axis=0), color=colour, alpha=0.15)
    axes.axhline(frozen, color=LIGHT.muted, linestyle="--", label="frozen features, cosine")
    axes.set_ylim(min(frozen, np.percentile([c[:, 1:] for c in curves.values()], 2)) - 0.01)
    _label_axes(axes, LIGHT, "Mined and random triplets", "steps", "validation accuracy")
    _add_legend(axes, LIGHT, loc="center right")
    return figure


def compare_batches(task: Task, epochs: int, seeds: list[int], figure_file: Path) -> str:
    """Draw the curves and return a table of them."""
    settings = Settings(batch_size=BATCH_SIZE, epochs=epochs)
    curves = {
        name: np.array([follow(task, replace(settings, seed=seed, **way)) for seed in seeds])
        for name, way in WAYS.items()
    }
    steps = np.arange(epochs + 1) * -(-len(task.images) // BATCH_SIZE)
    frozen = share_right(task.features, task.val.rows, FROZEN_DISTANCE)
    form = figure_file.suffix.lower().removeprefix(".")
    figure_file.write_bytes(render_figure(draw(curves, steps, frozen), form))
    shown = [number for number in (1, 2, 5, 10, 20, 40, 60) if number <= epochs]
    table = [["accuracy after steps", *(f"{steps[number]:,}" for number in shown), "best"]]
    for name, curve in curves.items():
        mean = curve.mean(axis=0)
        table.append([name, *(f"{mean[number]:.4f}" for number in shown), f"{mean.max():.4f}"])
    return _align_columns(table)


def spoil(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Give a share of the images the label of another class."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < share
    n_classes = int(labels.max()) + 1
    moved = (labels + rng.integers(1, n_classes, len(labels))) % n_classes
    return np.where(wrong, moved, labels).astype(np.int32)


def compare_cuts(task: Task, share: float, seeds: list[int]) -> str:
    """Return a table of the accuracy by triplets mined between cuts, and drawn by chance."""
    found: dict[str, list[tuple[float, float]]] = {"drawn by chance": [], **{c: [] for c in CUTS}}
    of_images = task.features[task.images]
    for seed in seeds:
        labels = spoil(task.labels.of_image, share, seed)
        images = ClassDistances(of_images, labels[task.images], FROZEN_DISTANCE)
        distribution = DistanceDistribution.of(images)
        mined = {}
        for name, quantiles in CUTS.items():
            counts = (distribution.positives, distribution.negatives)
            cuts = [_find_cut(distribution, *each) for each in zip(counts, quantiles, strict=True)]
            chosen, _ = _mine_images(of_images, images, cuts, defaults.MINED_PER_IMAGE)
            mined[name] = task.images[_pair_hardest(*chosen)[0]]
        count = len(next(iter(mined.values())))
        drawn = draw_triplets(labels, count=count, seed=seed, images=task.images)
        for name, rows in {"drawn by chance": drawn, **mined}.items():
            true = task.labels.of_image[rows]
            is_right = (true[:, 0] == true[:, 1]) & (true[:, 0] != true[:, 2])
            found[name].append((task.learn_from(rows, seed), float(is_right.mean())))
    table = [
        [f"{share:.0%} of the labels wrong", "accuracy", "lowest to highest", "right triplets"]
    ]
    for name, values in found.items():
        accuracy, right = np.array(values).T
        spread = f"{accuracy.min():.4f} to {accuracy.max():.4f}"
        table.append([name, f"{accuracy.mean():.4f}", spread, f"{right.mean():.0%}"])
    return _align_columns(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--val-truth", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--wrong-labels", nargs="+", type=float, default=[0.0, 0.1])
    parser.add_argument("--curve", type=Path, help="figure to draw; none leaves that part out")
    options = parser.parse_args()
    task = open_task(options)
    if options.curve is not None:
        print(compare_batches(task, options.epochs, options.seeds, options.curve), flush=True)
    for share in options.wrong_labels:
        print("\n" + compare_cuts(task, share, options.seeds), flush=True)


if __name__ == "__main__":
    main()
