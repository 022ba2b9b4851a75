"""Measure ways to choose the next question, with simulated judges over real photos.

    python examples/collect_benchmark.py train.txt test.txt truth.csv images/ --errors none flip
    python examples/collect_benchmark.py train.txt test.txt truth.csv images/ --votes votes.csv

The questions that can be asked are those of `train.txt` (anchor positive negative), with second
and third image in an order of chance. A judge knows the answer and errs

- `none`: never,
- `flip`: in 15% of all answers,
- `close`: the more often, the less the frozen features speak for the right answer; 15% in all,
- `votes`: as the people did whose votes `--votes` holds: each answer is that of one of them.

The first 100 answers are to questions of chance. Then each way chooses 70% of the next batch by the
committee trained on the answers so far, and 30% by chance, where `collect` draws at random or
repeats; `random` draws all by chance. Prints the accuracy on the test questions, whose images
training has not seen, against the number of answers: of single heads, mean over the committee and
the seeds. Each seed draws its own first questions, the same for every way.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from named_images import put_positive_second, vectors_of
from scipy.special import expit

import tripletkit as tk
from tripletkit import defaults
from tripletkit.collecting.choosing import WAYS, choose_questions
from tripletkit.collecting.committee import calibrate, train_committee
from tripletkit.data.votes import Votes, read_votes
from tripletkit.evaluation.distances import triplet_margins

ERRORS = 0.15


class Judge:
    """A simulated judge.

    Args:
        error: one of `none`, `flip`, `close`, `votes`.
        leaning: `(n_questions,)` what the frozen features say for the right answer.
        votes: of real people on the questions, if any.
    """

    def __init__(
        self, error: str, leaning: np.ndarray, votes: Votes | None, rng: np.random.Generator
    ) -> None:
        self._rng = rng
        if error == "votes":
            self._is_right = votes.share
        elif error == "close":
            self._is_right = expit(_find_slope(leaning) * np.maximum(leaning, 0))
        else:
            self._is_right = np.full(len(leaning), 1 - ERRORS if error == "flip" else 1.0)

    def answer(self, questions: np.ndarray) -> np.ndarray:
        """Return whether the judge says what is right of each."""
        return self._rng.random(len(questions)) < self._is_right[questions]


def _find_slope(leaning: np.ndarray) -> float:
    """Return the slope at which `close` judges err as often as the others, on average."""
    from scipy.optimize import brentq

    def excess(slope: float) -> float:
        return float(np.mean(1 - expit(slope * np.maximum(leaning, 0)))) - target

    # Half of the answers to questions where the features are wrong are wrong too.
    target = max(ERRORS, 0.5 * float(np.mean(leaning <= 0)) + 0.02)
    return brentq(excess, 0, 1e4)


def run(
    way: str,
    judge: Judge,
    features: np.ndarray,
    rows: np.ndarray,
    test_rows: np.ndarray,
    rounds: list[int],
    shown: list[int],
    rng: np.random.Generator,
    seed: int,
) -> dict[int, float]:
    """Return the accuracy after each number of answers in `shown`."""
    order = rng.permutation(len(rows))
    asked, right = np.empty(0, dtype=np.int64), np.empty(0, dtype=bool)
    accuracies = {}
    temperature = None
    is_free = np.ones(len(rows), dtype=bool)
    for n_answers, following in zip([0, *rounds], [*rounds, None], strict=True):
        committee = None
        if n_answers in shown or (n_answers and way != "random" and following):
            turned = np.where(right[:, None], rows[asked], rows[asked][:, [0, 2, 1]])
            votes = Votes(np.ones(len(asked)), np.zeros(len(asked)))
            committee = train_committee(features, turned, votes, seed=seed, temperature=temperature)
        if n_answers in shown:
            accuracies[n_answers] = float(
                np.mean(
                    [
                        np.mean(triplet_margins(each, test_rows, committee.distance) > 0)
                        for each in committee.embeddings
                    ]
                )
            )
        if following is None:
            break
        n_new = following - n_answers
        chosen = np.empty(0, dtype=np.int64)
        if committee is not None and way != "random":
            free = order[is_free[order]][: defaults.CHOICE_CANDIDATES]
            choice = _choose(committee, rows, free, round(defaults.CHOSEN_SHARE * n_new), way)
            chosen = free[choice]
            is_free[chosen] = False
        drawn = order[is_free[order]][: n_new - len(chosen)]
        is_free[drawn] = False
        new = np.concatenate([chosen, drawn])
        new_right = judge.answer(new)
        if committee is not None:
            # Questions that this committee has not seen, drawn by chance: they fit its temperature.
            of_drawn = new_right[len(chosen) :]
            temperature = calibrate(committee, rows[drawn], Votes(of_drawn * 1.0, 1.0 - of_drawn))
        asked, right = np.concatenate([asked, new]), np.concatenate([right, new_right])
    return accuracies


def _choose(committee, rows, free, n_new, way) -> np.ndarray:
    choice = choose_questions(
        committee, rows[free], n_new, way, max_per_image=defaults.MAX_PER_IMAGE
    )
    place = {tuple(row): index for index, row in enumerate(rows[free].tolist())}
    return np.array([place[tuple(row)] for row in choice.rows.tolist()], dtype=np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("train", "test", "truth", "images"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--votes", type=Path, help="votes on train.txt: adds the judge `votes`")
    parser.add_argument("--errors", nargs="*", default=None, choices=["none", "flip", "close"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rounds", nargs="+", type=int, default=[100, 250, 400, 700, 1000])
    parser.add_argument("--shown", nargs="+", type=int, default=[400, 1000])
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()

    train = tk.read_triplets(options.train)
    test = put_positive_second(tk.read_triplets(options.test), tk.read_truth(options.truth))
    # The rows of both are of the same names then.
    names = list(dict.fromkeys([*train.names, *test.names]))
    features = vectors_of(tk.pretrained(options.backbone), options.images, names)
    place_of = {name: place for place, name in enumerate(names)}
    rows, test_rows = (
        np.array([place_of[name] for name in each.names])[each.rows] for each in (train, test)
    )
    votes = None
    errors = ["none", "flip", "close"] if options.errors is None else options.errors
    if options.votes is not None:
        votes = read_votes(options.votes).votes
        errors = ["votes"] if options.errors is None else [*errors, "votes"]
    leaning = triplet_margins(features, rows, "cosine")
    found = defaultdict(list)
    for seed in options.seeds:
        for error in errors:
            for way in options.ways:
                accuracies = run(
                    way,
                    Judge(error, leaning, votes, np.random.default_rng([seed, 1])),
                    features,
                    rows,
                    test_rows,
                    options.rounds,
                    options.shown,
                    np.random.default_rng([seed, 0]),
                    seed * defaults.COMMITTEE_MEMBERS,
                )
                for n_answers, accuracy in accuracies.items():
                    found[error, way, n_answers].append(accuracy)
                    print(f"{seed} {error} {way} {n_answers} {accuracy:.4f}", flush=True)
    frozen = float(np.mean(triplet_margins(features, test_rows, "cosine") > 0))
    print(f"frozen features, cosine: {frozen:.4f}; {len(test):,} test questions")
    table = [
        {
            "judge": error,
            "ask": way,
            "answers": n_answers,
            "accuracy": f"{np.mean(accuracies):.4f}",
            "lowest to highest seed": f"{min(accuracies):.4f} to {max(accuracies):.4f}",
        }
        for (error, way, n_answers), accuracies in found.items()
    ]
    print(pd.DataFrame(table).to_string(index=False))


if __name__ == "__main__":
    main()
