"""Measure what training should make of votes, with simulated judges who disagree over real images.

    python examples/votes_benchmark.py train.txt test.txt truth.csv images/

Each triplet of `train.txt` (anchor positive negative) is put to five people. Each of them errs the
more often, the less the images' colours and layout (8 x 8 pixels) speak for the positive, so the
error depends on the images, and on some questions most people are wrong. A head is trained on
the votes in each of the three ways of `--votes-as`, and asked the test, whose truth is clean.
Prints a table: mean accuracy over seeds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from named_images import paths_of

import tripletkit as tk
from tripletkit.data.decoding import read_pixels
from tripletkit.evaluation.distances import triplet_margins

N_VOTERS = 5
# Log odds that a person chooses the positive where the small images say nothing, and what one
# standard deviation of what they say adds: about seven of ten votes are then right.
BIAS, SLOPE = 1.0, 1.5


def ask_people(leaning: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_triplets, 2)` votes; `leaning` is what speaks for the positive, of deviation 1."""
    n_right = rng.binomial(N_VOTERS, 1 / (1 + np.exp(-(BIAS + SLOPE * leaning))))
    return np.stack([n_right, N_VOTERS - n_right], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("train", "test", "truth", "images"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--triplets", type=int, default=4000, help="how many to learn from")
    parser.add_argument("--recipes", default="mlp,residual")
    parser.add_argument("--losses", default="triplet,soft-margin")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    train = tk.read_judgements(options.train).triplets
    test = tk.read_judgements(options.test).triplets
    paths = paths_of(options.images, train.names)
    small = np.stack([read_pixels(path, 8, "box").astype(float).ravel() for path in paths])
    leaning = triplet_margins(small - small.mean(axis=1, keepdims=True), train.rows, "cosine")
    leaning /= leaning.std()

    found = defaultdict(list)
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(len(train))[: options.triplets]
        votes = ask_people(leaning[drawn], rng)
        if not seed:
            right, wrong = votes.T
            print(
                f"{right.sum() / votes.sum():.1%} of votes right, {(right >= wrong).mean():.1%} "
                f"of majorities; test: {len(test):,} questions"
            )
        for recipe in options.recipes.split(","):
            for loss in options.losses.split(","):
                for votes_as in ("majority", "weight", "soft"):
                    model = tk.train(
                        train.take(drawn),
                        options.images,
                        votes=votes,
                        votes_as=votes_as,
                        # Learns from all of them; the test says how well.
                        val_fraction=0,
                        backbone=options.backbone,
                        recipe=recipe,
                        loss=loss,
                        seed=seed,
                    )
                    score = tk.score(model.answer(test, options.images), options.truth)
                    found[recipe, loss, votes_as].append(score.accuracy)
    table = [
        {
            "recipe": recipe,
            "loss": loss,
            "votes as": votes_as,
            "accuracy": f"{np.mean(accuracies):.4f}",
            "lowest to highest seed": f"{min(accuracies):.4f} to {max(accuracies):.4f}",
        }
        for (recipe, loss, votes_as), accuracies in found.items()
    ]
    print(pd.DataFrame(table).to_string(index=False))


if __name__ == "__main__":
    main()
