"""Measure ways to train from class labels, each with several seeds, by what `train` itself says.

    python examples/labels_benchmark.py images/ --labels labels.csv --val val.txt \
        --val-truth val_truth.csv

prints a table: triplet accuracy, nearest-neighbour accuracy and mean average precision on the
validation images, and the share of the embeddings' variance that lies within classes; mean, lowest
and highest over the seeds. The epoch that is kept is chosen by the same validation triplets;
"last epoch" is the accuracy after the last one, which nothing was chosen by. Whatever stands
behind `--` is passed on to `tripletkit train`:

    python examples/labels_benchmark.py images/ --labels labels.csv --val test.txt \
        --val-truth test_truth.csv --ways triplet cross-entropy triplet+cross-entropy \
        -- --backbone cnn --image-size 32 --dim 8 --epochs 20
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from tripletkit.cli.main import tripletkit
from tripletkit.model.model_folder import HISTORY_FILE, load_model
from tripletkit.model.record import ModelRecord
from tripletkit.texts.tables import align_columns

# How each way is asked for.
WAYS: dict[str, list[str]] = {
    "drawn triplets": [],
    "batch-all": ["--mining", "batch-all", "-s", "reduction=active"],
    "batch-hard": ["--mining", "batch-hard"],
    "batch-hard, soft margin": ["--mining", "batch-hard", "--loss", "soft-margin"],
    "batch-hard, injected": ["--mining", "batch-hard", "-s", "inject_positives=true"],
    "semi-hard": ["--mining", "semi-hard"],
    "ratio": ["--loss", "ratio"],
    "cross-entropy": ["--loss", "cross-entropy"],
    "center": ["--loss", "center"],
    "sum": ["--loss", "triplet+cross-entropy"],
    "sum, semi-hard": ["--loss", "triplet+cross-entropy", "--mining", "semi-hard"],
}


def train(arguments: list[str]) -> tuple[ModelRecord, pd.DataFrame]:
    """Train a model and return its record and its epochs."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model"
        with contextlib.redirect_stdout(io.StringIO()):
            tripletkit.main(
                ["train", *arguments, "-o", str(output), "--quiet"], standalone_mode=False
            )
        return load_model(output).record, pd.read_csv(output / HISTORY_FILE)


def measure(record: ModelRecord, history: pd.DataFrame) -> dict[str, float]:
    """Return what the table shows of a training."""
    classes = record.classification
    variance = classes["trained"]["variance"]
    return {
        "triplets": record.validation.trained.accuracy,
        "last epoch": history["val_accuracy"].iloc[-1],
        "10-NN": classes["trained"]["nearest_neighbors"]["value"],
        "mAP": classes["trained"]["mean_average_precision"]["value"],
        "within share": variance["within"] / (variance["within"] + variance["between"]),
        "epochs": record.best_epoch,
        "seconds": record.times.training_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images")
    parser.add_argument("--labels", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--val-truth", required=True)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    # argparse cannot take options of another command behind its own.
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, train_options = parser.parse_args(arguments[:end]), arguments[end + 1 :]
    given = ["--labels", options.labels, "--val", options.val, "--val-truth", options.val_truth]
    table: list[list[str]] = []
    for way in options.ways:
        started_s = time.perf_counter()
        found = [
            measure(
                *train([options.images, *given, *WAYS[way], "--seed", str(seed), *train_options])
            )
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
    print(align_columns(table))


if __name__ == "__main__":
    main()
