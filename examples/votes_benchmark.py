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

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from tripletkit.data.images import read_pixels
from tripletkit.data.training_set import join_training_set, places_of_names, share_names
from tripletkit.data.triplet_files import read_triplets
from tripletkit.data.votes import Votes, make_loss_weights
from tripletkit.evaluation.answers import read_truth
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.features.collection import find_files, load_collection
from tripletkit.features.sources import choose_source
from tripletkit.features.store import FeatureStore
from tripletkit.model.embedding import embed
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings, choose_epochs
from tripletkit.training.epochs import share_right, train_model

N_VOTERS = 5
# Log odds that a person chooses the positive where the small images say nothing, and what one
# standard deviation of what they say adds: about seven of ten votes are then right.
BIAS, SLOPE = 1.0, 1.5


def ask_people(leaning: np.ndarray, rng: np.random.Generator) -> Votes:
    """Return votes on triplets; `leaning` is what speaks for the positive, of deviation 1."""
    n_right = rng.binomial(N_VOTERS, 1 / (1 + np.exp(-(BIAS + SLOPE * leaning))))
    return Votes(n_right.astype(float), float(N_VOTERS) - n_right)


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

    train, test = share_names(read_triplets(options.train), read_triplets(options.test))
    data = join_training_set(train, test, read_truth(options.truth).labels)
    files = find_files(data.names, places_of_names(train, test), options.images)
    with FeatureStore() as store:
        features = load_collection(files, choose_source([options.backbone], {}), store).features
    small = np.stack([read_pixels(path, 8, "box").astype(float).ravel() for path in files.paths])
    leaning = triplet_margins(small - small.mean(axis=1, keepdims=True), data.train.rows, "cosine")
    leaning /= leaning.std()

    found = defaultdict(list)
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(len(data.train))[: options.triplets]
        rows, votes = data.train.rows[drawn], ask_people(leaning[drawn], rng)
        if not seed:
            print(
                f"{votes.share.mean():.1%} of votes right, {(~votes.is_for_second).mean():.1%} "
                f"of majorities; test: {len(data.val):,} questions"
            )
        for recipe in options.recipes.split(","):
            epochs = choose_epochs(len(rows), HeadSettings.batch_size, get_recipe(recipe).epochs)
            for loss in options.losses.split(","):
                for votes_as in ("majority", "weight", "soft"):
                    settings = HeadSettings.of_recipe(recipe, epochs=epochs, seed=seed, loss=loss)
                    head = train_model(
                        features,
                        rows,
                        rows[:0],
                        settings,
                        loss_weights=make_loss_weights(votes, votes_as),
                    ).head
                    right = share_right(embed(head, features), data.val.rows, "l2")
                    found[recipe, loss, votes_as].append(right)
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
