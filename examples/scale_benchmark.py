"""Measure extracted features, search and answers with made-up features of a million images.

    python examples/scale_benchmark.py work/ --sizes 10000,100000,1000000 --plot scale.svg

There are no pixels: vectors are drawn around 1,000 centers, written as the files that `extract`
writes, and read, searched and asked about as the commands do. Each size runs in a process of its
own, whose memory is measured. The plot has both axes logarithmic; the slope of a line in the legend
is the power of the number of images that it grows by.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit.defaults import FROZEN_DISTANCE
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.features.extraction import BLOCK_IMAGES
from tripletkit.features.given_features import describe_vectors, open_features, write_part
from tripletkit.search.image_search import (
    _ApproximateIndex,
    _draw_rows,
    _find_neighbors_in_parts,
)

PART_IMAGES, N_READ, N_QUESTIONS, N_QUERIES, K = 8192, 10_000, 100_000, 100, 10
N_ASKED = 10_000  # images that the questions are about


def main() -> None:
    """Measure each size and print a table; draw it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where features are written; they stay")
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--features", type=int, default=1280, help="numbers of each image")
    parser.add_argument("--dtype", default="float16", choices=["float16", "float32"])
    parser.add_argument("--no-index", action="store_true", help="leave search out")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    store = arguments.folder / f"{arguments.measure}-{arguments.features}-{arguments.dtype}"
    about = describe_vectors({"backbone": "made up"}, arguments.features, arguments.dtype)
    if arguments.measure:
        figures = measure(store, about, arguments.measure)
        if not arguments.no_index:
            figures |= measure_search(store, arguments.measure)
        print(json.dumps(figures | {"peak_memory_MB": memory_MB()}))
        return
    found = []
    for size in map(int, arguments.sizes.split(",")):
        done = subprocess.run(
            [sys.executable, *sys.argv, "--measure", str(size)],
            stdout=subprocess.PIPE,
            check=True,
        )
        found.append(json.loads(done.stdout))
        print(json.dumps(found[-1], indent=2), flush=True)
    if arguments.plot is not None:
        draw(found, arguments.plot)


def measure(folder: Path, about: dict[str, Any], size: int) -> dict[str, Any]:
    """Return all figures of one size."""
    figures: dict[str, Any] = {"images": size}
    started_s = time.perf_counter()
    if not folder.exists():
        write(folder, about, size)
        figures["write_s"] = time.perf_counter() - started_s
    figures["store_MB"] = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    dataset, figures["open_s"] = timed(lambda: open_features(folder))
    rng = np.random.default_rng(1)
    before_MB = memory_MB()  # noqa: N806
    rows = rng.choice(size, min(N_READ, size), replace=False)
    features, figures["read_10000_s"] = timed(lambda: dataset.values[rows])
    figures["read_more_memory_MB"] = memory_MB() - before_MB
    figures["read_result_MB"] = features.nbytes / 1e6

    def answer() -> np.ndarray:
        images = rng.choice(size, min(N_ASKED, size), replace=False)
        questions = rng.integers(0, len(images), (N_QUESTIONS, 3))
        return triplet_margins(dataset.values[images], questions, FROZEN_DISTANCE)

    figures["predict_100000_s"] = timed(answer)[1]
    return figures


def measure_search(folder: Path, size: int) -> dict[str, Any]:
    """Return the figures of an index of codes, and its recall."""
    figures: dict[str, Any] = {}
    rng = np.random.default_rng(2)
    fetch = open_features(folder).values.__getitem__

    def parts():
        for start in range(0, size, PART_IMAGES):
            yield start, fetch(np.arange(start, min(start + PART_IMAGES, size)))

    made_of, sample = {"distance": "cosine", "n_images": size}, fetch(_draw_rows(size))
    index, figures["index_s"] = timed(lambda: _ApproximateIndex(parts(), sample, made_of))
    figures["index"] = index.describe()
    queried = np.sort(rng.choice(size, N_QUERIES, replace=False))
    queries, itself = fetch(queried), list(queried[:, None])
    got, figures["search_100_s"] = timed(lambda: index.search(queries, K, itself, fetch))
    true, figures["exact_100_s"] = timed(
        lambda: _find_neighbors_in_parts(parts(), queries, K, "cosine", itself)
    )
    hits = [len(np.intersect1d(*pair)) for pair in zip(true.rows, got.rows, strict=True)]
    figures["recall_at_10"] = sum(hits) / true.rows.size
    return figures


def write(folder: Path, about: dict[str, Any], size: int) -> None:
    """Write vectors around centers, as non-negative as those of a network."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    centers = rng.gamma(0.5, 1.0, (1000, about["n_features"])).astype(np.float32)
    for start in range(0, size, BLOCK_IMAGES):
        numbers = range(start, min(start + BLOCK_IMAGES, size))
        vectors = centers[rng.integers(0, len(centers), len(numbers))]
        vectors = vectors + rng.exponential(0.5, vectors.shape).astype(np.float32)
        contents = [hashlib.sha256(b"%d" % number).digest() for number in numbers]
        names = [f"{number}.jpg" for number in numbers]
        write_part(folder, names, contents, vectors, [None] * len(names), about)


def memory_MB() -> float:  # noqa: N802
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Any) -> tuple[Any, float]:
    """Return what work returns, and the seconds it took."""
    started_s = time.perf_counter()
    return work(), time.perf_counter() - started_s


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draw how times and sizes grow with the number of images."""
    from matplotlib.figure import Figure

    sizes = np.array([each["images"] for each in found], float)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for key in "store_MB read_10000_s predict_100000_s index_s search_100_s exact_100_s".split():
        if key not in found[0]:
            continue
        values = np.array([each[key] for each in found])
        slope = np.polyfit(np.log10(sizes), np.log10(values), 1)[0]
        axes.loglog(sizes, values, marker="o", label=f"{key} (slope {slope:.2f})")
    axes.set_xlabel("images")
    axes.set_ylabel("seconds, or MB")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
