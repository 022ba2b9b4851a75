"""Measure ways to train from class labels, each with several seeds, by what `train` itself says.

    python examples/labels_benchmark.py images/ --labels labels.csv --val val.txt \
        --val-truth val_truth.csv

prints a table: triplet accuracy, nearest-neighbour accuracy and mean average precision on the
validation images, and the share of the embeddings' variance that lies within classes; mean, lowest
and highest over the seeds. The epoch that is kept is chosen by the same validation triplets;
"last epoch" is the accuracy after the last one, which nothing was chosen by. `-s` sets anything
else that `tripletkit.train` takes:

    python examples/labels_benchmark.py images/ --labels labels.csv --val test.txt \
        --val-truth test_truth.csv --ways "drawn triplets" cross-entropy sum \
        -s backbone=cnn -s image_size=32 -s dim=8 -s epochs=20
"""

from __future__ import annotations

import argparse
import ast
import time
from typing import Any

import numpy as np

import tripletkit as tk
from tripletkit.results import _align_columns

# How each way is asked for.
WAYS: dict[str, dict[str, Any]] = {
    "drawn triplets": {},
    "batch-all": {"mining": "batch-all", "reduction": "active"},
    "batch-hard": {"mining": "batch-hard"},
    "batch-hard, soft margin": {"mining": "batch-hard", "loss": "soft-margin"},
    "batch-hard, injected": {"mining": "batch-hard", "inject_positives": True},
    "semi-hard": {"mining": "semi-hard"},
    "ratio": {"loss": "ratio"},
    "cross-entropy": {"loss": "cross-entropy"},
    "center": {"loss": "center"},
    "sum": {"loss": "triplet+cross-entropy"},
    "sum, semi-hard": {"loss": "triplet+cross-entropy", "mining": "semi-hard"},
}


def measure(model: tk.Model) -> dict[str, float]:
    """Return what the table shows of a training."""
    record = model.record
    classes = record.classification
    return {
        "triplets": model.validation.trained.accuracy,
        "last epoch": model.history["val_accuracy"].iloc[-1],
        "10-NN": classes.trained.nearest_neighbors.value,
        "mAP": classes.trained.mean_average_precision.value,
        "within share": classes.trained.variance.within_share,
        "epochs": record.best_epoch,
        "seconds": record.times.training_s,
    }


def read_setting(text: str) -> tuple[str, Any]:
    """Return name and value of `NAME=VALUE`; what is no Python literal is text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images")
    parser.add_argument("--labels", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--val-truth", required=True)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "-s", dest="settings", type=read_setting, action="append", default=[], metavar="NAME=VALUE"
    )
    options = parser.parse_args()
    given = {"labels": options.labels, "val": options.val, "val_truth": options.val_truth}
    given |= dict(options.settings)
    table: list[list[str]] = []
    for way in options.ways:
        started_s = time.perf_counter()
        found = [
            measure(tk.train(images=options.images, seed=seed, **given, **WAYS[way]))
            for seed in options.seeds
        ]
        if not table:
            table.append(["way", *found[0]])
        row = [way]
        for name in found[0]:
            values = np.array([each[name] for each in found])
            digits = 0 if name == "epochs" else 1 if name == "seconds" else 4
            low, mean, high = (
                f"{v:.{digits}f}" for v in (values.min(), values.mean(), values.max())
            )
            row.append(f"{mean} ({low} to {high})")
        table.append(row)
        print(f"{way}: {time.perf_counter() - started_s:.0f} s", flush=True)
    print(_align_columns(table))


if __name__ == "__main__":
    main()
