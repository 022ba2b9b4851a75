"""Measure recipes, single parts, frozen features and other libraries' ways on triplet sets.

    python examples/accuracy_benchmark.py sets.csv rows.jsonl --seeds 3
    python examples/accuracy_benchmark.py sets.csv rows.jsonl --table
    python examples/accuracy_benchmark.py sets.csv rows.jsonl --judgements 50,100,200,500,2000

`sets.csv` has a line a set, with paths beside it: set,train,test,truth,images,labels (labels may
be empty). Every training is one call of `tk.train` with what it does by default. A line is
appended to `rows.jsonl` as soon as something is measured, and what is there is not measured again:
a run that was stopped goes on. `--table` prints what is there.

For each set: accuracy on the test as mean, lowest and highest over seeds; the 95% interval of how
far a way is behind `best`, paired by question and shared images allowed for; the seconds of one
training; and what held-out draws said beforehand: the mean of their accuracy, and how often their
interval, and the one for another test, held the accuracy on the test. Parts are those that `best`
weighs, each answering alone. No training sees the truth. `--judgements` learns from so many of the
triplets, drawn by chance and by the seed, alike for all ways; the features as they are come with
it.

pytorch-metric-learning and metric-learn are measured where they are installed
(`pip install 'tripletkit[benchmark]'`), and skipped with a word where not.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from named_images import vectors_of
from peers import WITHOUT_CHANCE, Peers

import tripletkit as tk
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import image_interval

BEST = "best"
FROZEN = "frozen features of best"


@dataclass(frozen=True)
class TripletSet:
    """One triplet set with a test.

    Attributes:
        name: what it is called.
        train, test, truth, images: paths.
        labels: path, or None.
    """

    name: str
    train: Path
    test: Path
    truth: Path
    images: Path
    labels: Path | None

    def questions(self) -> tk.Triplets:
        """Return the test, the positive always second."""
        return tk.read_judgements(self.test, truth=self.truth).turned().triplets


@dataclass(frozen=True)
class Measured:
    """How one way answers the test.

    Attributes:
        way: its name.
        margins: `(n_questions,)`, above 0 where right.
        seconds_s: that the training took.
        said: accuracy, interval and interval of another test, from held-out draws; or None.
    """

    way: str
    margins: np.ndarray
    seconds_s: float = 0.0
    said: dict[str, Any] | None = None


def read_sets(path: Path) -> list[TripletSet]:
    with path.open(newline="") as file:
        return [
            TripletSet(
                row["set"],
                *(path.parent / row[name] for name in ("train", "test", "truth", "images")),
                path.parent / row["labels"] if row.get("labels") else None,
            )
            for row in csv.DictReader(file)
        ]


def draw_triplets(triplets: tk.Triplets, n: int, seed: int) -> tk.Triplets:
    drawn = np.random.default_rng(seed).choice(len(triplets), min(n, len(triplets)), replace=False)
    return tk.Triplets.from_array(triplets.rows[np.sort(drawn)], triplets.names)


def train_recipe(
    of: TripletSet, seed: int, way: str, n_judgements: int | None = None, **settings: Any
) -> Iterator[Measured]:
    if way == FROZEN:
        model = tk.pretrained(("efficientnet-lite0", "efficientnet-lite2"), depth="all")
        yield Measured(way, model.answer(of.questions(), of.images).margins)
        return
    triplets = of.train
    if n_judgements is not None:
        # What is held out whole changes no model, and takes most of the time.
        settings = {**settings, "unseen_classes": 0}
        triplets = draw_triplets(tk.read_judgements(of.train).triplets, n_judgements, seed)
    started_s = time.perf_counter()
    model = tk.train(triplets, of.images, seed=seed, **settings)
    seconds_s = time.perf_counter() - started_s
    questions = of.questions()
    said, scores = None, model.record.pooled or model.validation
    if scores is not None:
        score = scores.trained
        said = {"accuracy": score.accuracy}
        for name in ("interval", "of_test", "image_interval"):
            interval = getattr(score, name, None)
            if interval:
                said[name] = interval.to_list()
    if (unseen := model.record.unseen_classes) is not None:
        said = {**(said or {}), "unseen": unseen.trained.accuracy}
    answers = model.answer(questions, of.images)
    yield Measured(way, answers.margins, seconds_s, said)
    if n_judgements is None and len(parts := model.record.parts) > 1:
        yield from answer_by_parts(model, parts, of, questions)


def answer_by_parts(
    model: tk.Model, parts: Any, of: TripletSet, questions: tk.Triplets
) -> Iterator[Measured]:
    """Yield what each part of an ensemble answers alone: they stand side by side."""
    vectors = vectors_of(model, of.images, questions.names)
    ends = np.cumsum([part.n_dims for part in parts])
    margins: dict[str, np.ndarray] = {}
    for part, end in zip(parts, ends, strict=True):
        own = triplet_margins(vectors[:, end - part.n_dims : end], questions.rows, "squared-l2")
        margins[part.name] = margins.get(part.name, 0) + own
    for name, of_part in margins.items():
        yield Measured(f"part {name}", of_part)


RECIPES: dict[str, dict[str, Any]] = {
    BEST: {"recipe": "best"},
    "mlp": {"recipe": "mlp"},
    "mlp, no refit": {"recipe": "mlp", "refit": False},
    "residual": {"recipe": "residual"},
    "map": {"recipe": "map"},
    "auto": {"recipe": "auto"},
}
OF_CURVE = ("mlp", "residual", "map", "auto", FROZEN)


def measure_curve(
    sets: list[TripletSet], seeds: range, rows: Path, sizes: list[int], ways: list[str]
) -> None:
    """Measure what the rows lack of trainings on few of the triplets."""
    for seed in seeds:
        for size in sizes:
            for of in sets:
                for way in ways:
                    # What learns nothing is the same for all sizes and seeds.
                    at = (0, 0) if way == FROZEN else (seed, size)
                    known = {
                        (row["set"], row["way"], row["seed"], row.get("n_judgements"))
                        for row in read_rows(rows)
                    }
                    if (of.name, way, *at) in known:
                        continue
                    (measured,) = train_recipe(of, at[0], way, at[1], **RECIPES.get(way, {}))
                    note(rows, of, at[0], measured, n_judgements=at[1])


def show_curve(sets: list[TripletSet], rows: list[dict[str, Any]]) -> None:
    """Print the mean accuracy on each test by judgements, and its standard error over seeds."""
    for of in sets:
        found: dict[tuple[int, str], list[float]] = {}
        for row in rows:
            if row["set"] == of.name and row.get("n_judgements") is not None:
                found.setdefault((row["n_judgements"], row["way"]), []).append(row["accuracy"])
        ways = sorted({way for _, way in found})
        print(f"\n{of.name}\n\n| judgements | {' | '.join(ways)} |")
        print(f"| --- |{' --- |' * len(ways)}")
        for size in sorted({size for size, _ in found}):
            cells = [show_mean(found.get((size, way), [])) for way in ways]
            print(f"| {size or 'any'} | {' | '.join(cells)} |")


def show_mean(accuracies: list[float]) -> str:
    if len(accuracies) < 2:
        return f"{accuracies[0]:.3f}" if accuracies else "-"
    error = np.std(accuracies, ddof=1) / len(accuracies) ** 0.5
    return f"{np.mean(accuracies):.3f} ±{error:.3f}"


def note(rows: Path, of: TripletSet, seed: int, measured: Measured, **more: Any) -> None:
    right = measured.margins > 0
    row = {
        "set": of.name,
        "way": measured.way,
        "seed": seed,
        "accuracy": float(right.mean()),
        "seconds": round(measured.seconds_s, 1),
        "said": measured.said,
        "n": len(right),
        "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
        **more,
    }
    with rows.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{of.name}, seed {seed}: {measured.way} {row['accuracy']:.4f}", file=sys.stderr)


def measure(sets: list[TripletSet], seeds: range, rows: Path, only: list[str] | None) -> None:
    """Measure what the rows lack, the first seed of every set before the second of any."""
    known = {
        (row["set"], row["way"], row["seed"])
        for row in read_rows(rows)
        if row.get("n_judgements") is None
    }
    peers: dict[str, Peers] = {}

    for seed in seeds:
        for of in sets:
            for way, settings in RECIPES.items():
                if (only and way not in only) or (of.name, way, seed) in known:
                    continue
                for measured in train_recipe(of, seed, way, **settings):
                    note(rows, of, seed, measured)
            if only and "peers" not in only:
                continue
            if of.name not in peers:
                peers[of.name] = Peers(of.train, of.questions(), of.images, of.labels)
            for way, answer in peers[of.name].ways().items():
                if (of.name, way, seed) in known or (seed and way in WITHOUT_CHANCE):
                    continue
                started_s = time.perf_counter()
                note(rows, of, seed, Measured(way, answer(seed), time.perf_counter() - started_s))


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def right_of(row: dict[str, Any]) -> np.ndarray:
    packed = np.frombuffer(base64.b64decode(row["right"]), np.uint8)
    return np.unpackbits(packed)[: row["n"]].astype(np.float64)


def make_table(of: TripletSet, rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield the cells of a table for one set, the most accurate way first."""
    ways: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["set"] == of.name and row.get("n_judgements") is None:
            ways.setdefault(row["way"], []).append(row)
    yield ["answers by", "test", "lowest to highest of seeds", "behind best", "s", "said before"]
    questions = of.questions().rows
    means = {
        way: np.mean([right_of(row) for row in of_way], axis=0) for way, of_way in ways.items()
    }
    for way in sorted(ways, key=lambda way: -means[way].mean()):
        accuracies = [row["accuracy"] for row in ways[way]]
        behind = "-"
        if way != BEST and BEST in ways:
            found = image_interval(means[BEST] - means[way], questions, bounds=(-1, 1))
            behind = f"{found.low:+.4f} to {found.high:+.4f}" if found else "-"
        seconds = np.mean([row["seconds"] for row in ways[way]])
        yield [
            way,
            f"{np.mean(accuracies):.4f}",
            f"{min(accuracies):.4f} to {max(accuracies):.4f} ({len(accuracies)})",
            behind,
            f"{seconds:.0f}" if seconds else "-",
            describe_said(ways[way]),
        ]


def describe_said(rows: list[dict[str, Any]]) -> str:
    """Return the mean of what held-out draws said, and how often their intervals held the test."""
    said = [row for row in rows if row["said"] and "accuracy" in row["said"]]
    if not said:
        return "-"

    def held(name: str) -> str:
        ends = [row["said"].get(name) for row in said]
        known = [(end, row) for end, row in zip(ends, said, strict=True) if end]
        n_held = sum(low <= row["accuracy"] <= high for (low, high), row in known)
        return f"{n_held} of {len(said)}"

    text = f"{np.mean([row['said']['accuracy'] for row in said]):.4f}"
    if any("of_test" in row["said"] for row in said):
        text += f", holds {held('interval')}, for a test {held('of_test')}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only-sets", type=lambda given: given.split(","))
    parser.add_argument(
        "--only", type=lambda given: given.split(";"), help="ways, separated by ;, or peers"
    )
    parser.add_argument(
        "--judgements",
        type=lambda given: [int(size) for size in given.split(",")],
        help="learn from so many triplets each time, and print how accuracy grows with them",
    )
    parser.add_argument("--table", action="store_true", help="print what was measured so far")
    options = parser.parse_args()
    sets = [
        of
        for of in read_sets(options.sets)
        if not options.only_sets or of.name in options.only_sets
    ]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.judgements:
        if not options.table:
            ways = options.only or list(OF_CURVE)
            measure_curve(sets, seeds, options.rows, options.judgements, ways)
        show_curve(sets, read_rows(options.rows))
        return
    if not options.table:
        measure(sets, seeds, options.rows, options.only)
    rows = read_rows(options.rows)
    for of in sets:
        print(f"\n{of.name}\n")
        for number, cells in enumerate(make_table(of, rows)):
            print(f"| {' | '.join(cells)} |")
            if not number:
                print(f"| {' | '.join(['---'] * len(cells))} |")


if __name__ == "__main__":
    main()
