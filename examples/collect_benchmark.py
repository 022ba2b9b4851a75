"""Measure ways to ask by the minutes of judges that they take, with simulated judges.

    python examples/collect_benchmark.py images/ --labels labels.csv --name clothing

A judge goes by the classes of the images, cannot tell where the class of neither candidate is the
anchor's, or that of both, and errs in a tenth of all answers. An answer takes 2.3 s, "can't tell"
4 s, and a grid 9 s: medians of a trial with 597 answers of one person. A fifth of the images is
never asked about; on 4,000 questions about these, which can be told, the accuracy of single heads
is measured, mean over the five of a committee. Three ways are compared:

- `alike`: three images drawn alike; after 100 answers, 70% by the smallest margin of all questions
- `answerable`: as `collect` asks, with one candidate near the anchor, and then by what an answer
  would teach in the time that it takes
- `grid`: grids of eight, of which up to three are picked, those that seem alike
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from named_images import vectors_of

import tripletkit as tk
from tripletkit import defaults
from tripletkit.collecting.asking import _RANDOM_SHARE, REPEAT_SHARE
from tripletkit.collecting.choosing import (
    ANSWER_S,
    CANT_TELL_S,
    _choose_questions,
    _draw_candidates,
    _draw_grids,
    _draw_questions,
    _expect_answers,
    _keep_new,
    _measure_nearness,
    _train_committee,
)
from tripletkit.data.triplets import Votes
from tripletkit.evaluation.distances import triplet_margins

WAYS = ("alike", "answerable", "grid")
GRID_S = 9.0
ERRORS = 0.1
N_TEST = 4000
# Answers, or grids, between two models.
EVERY = {"alike": 200, "answerable": 200, "grid": 60}
NONE = np.empty((0, 3), dtype=np.int32)


class Study:
    """A simulated collection: `rows` are told triplets, `shown` questions, `told` which could be.

    Args:
        way: one of `WAYS`.
        features, classes: of all images.
        usable: rows of those that are asked about.
        seed: start of everything by chance.
    """

    def __init__(self, way, features, classes, usable, seed) -> None:
        self.way, self.features, self.classes, self.usable = way, features, classes, usable
        self.rng, self.seed = np.random.default_rng(seed), seed
        self.rows: list[list[int]] = []
        self.shown: list[list[int]] = []
        self.told: list[bool] = []
        self.seconds, self.n_screens = 0.0, 0
        self._chosen: list[list[int]] = []

    def go_on(self) -> None:
        """Let a judge answer one screen."""
        self.n_screens += 1
        if self.way == "grid":
            self._show_grid()
            return
        place = self.rng.random()
        if place < REPEAT_SHARE and self.rows:
            self.seconds += ANSWER_S  # of a question that was answered before
            return
        if place > REPEAT_SHARE + _RANDOM_SHARE and self._chosen:
            row = self._chosen.pop(0)
        elif self.way == "alike":
            row = _draw_candidates(self.usable, 9, self.rng, NONE)[0].tolist()
        else:
            anchor = self.rng.integers(len(self.usable), size=1)
            drawn, _ = _draw_questions(self.features[self.usable], anchor, 1, self.rng)
            row = self.usable[drawn[0]].tolist()
        self._ask(row)

    def _ask(self, row: list[int]) -> None:
        anchor, first, second = row
        is_first, is_second = (self.classes[[first, second]] == self.classes[anchor]).tolist()
        is_told = is_first != is_second
        self.shown.append(row)
        self.told.append(is_told)
        self.seconds += ANSWER_S if is_told else CANT_TELL_S
        if is_told:
            says_first = is_first != (self.rng.random() < ERRORS)
            self.rows.append(row if says_first else [anchor, second, first])

    def _show_grid(self) -> None:
        self.seconds += GRID_S
        anchors = self.rng.integers(len(self.usable), size=1)
        drawn = _draw_grids(self.features[self.usable], anchors, defaults.GRID_OF, self.rng)
        images, *_ = next(drawn)
        anchor, *shown = self.usable[images].tolist()
        is_alike = self.classes[shown] == self.classes[anchor]
        if not is_alike.any():
            return
        is_wrong = self.rng.random(len(shown)) < ERRORS / 2
        seems_alike = is_alike != is_wrong
        order = np.argsort(-seems_alike.astype(float) + self.rng.random(len(shown)) / 2)
        n_pick = min(int(seems_alike.sum()), defaults.GRID_PICK)
        picked, left = order[:n_pick], order[n_pick:]
        self.rows += [[anchor, shown[p], shown[q]] for p in picked for q in left]

    def train(self):
        """Train a committee on what was told so far."""
        rows = np.array(self.rows, dtype=np.int32)
        votes = Votes(np.ones(len(rows)), np.zeros(len(rows)))
        return _train_committee(self.features, rows, votes, self.seed)

    def choose(self, committee) -> None:
        """Choose the next questions by a committee."""
        known = np.array(self.shown, dtype=np.int32)
        if self.way == "alike":
            candidates = _draw_candidates(self.usable, defaults.CHOICE_CANDIDATES, self.rng, known)
            chance = 1.0
        else:
            anchors = self.rng.permutation(len(self.usable))
            n_each = defaults.CHOICE_CANDIDATES // len(anchors)
            drawn, _ = _draw_questions(self.features[self.usable], anchors, n_each, self.rng)
            candidates = _keep_new(self.usable[drawn], known)
            measures = [
                _measure_nearness(self.features, committee, rows) for rows in (known, candidates)
            ]
            chance = _expect_answers(measures[0], np.array(self.told), measures[1])
        chosen, *_ = _choose_questions(
            committee,
            candidates,
            defaults.CHOSEN_BATCH,
            "margin",
            chance,
        )
        self._chosen = chosen.tolist()


def run(study: Study, minutes: list[float], measure) -> dict[float, dict[str, float]]:
    """Return what was reached after so many minutes of judges."""
    found = {}
    due = defaults.FIRST_RANDOM
    for end in minutes:
        while study.seconds < 60 * end:
            study.go_on()
            if study.way != "grid" and study.n_screens >= due and len(study.rows) >= 10:
                due = study.n_screens + EVERY[study.way]
                study.choose(study.train())
        told = len({tuple(row) for row in study.rows})
        found[end] = {"screens": study.n_screens, "triplets": told}
        found[end] |= {"accuracy": measure(study.train())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--labels", type=Path, help="a CSV; default: the last part of each name")
    parser.add_argument("--name", default="")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--minutes", nargs="+", type=float, default=[10, 30, 60])
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()

    if options.labels is not None:
        table = pd.read_csv(options.labels, dtype=str)
        names, labels = table["name"].tolist(), table["label"].tolist()
    else:
        names = sorted(path.name for path in options.images.iterdir())
        labels = ["_".join((name.split("_")[0], name.split("_")[-1])) for name in names]
    classes = np.unique(labels, return_inverse=True)[1]
    features = vectors_of(tk.pretrained(options.backbone), options.images, names)
    reached = defaultdict(list)
    for seed in options.seeds:
        rng = np.random.default_rng([seed, 9])
        order = rng.permutation(len(names))
        test, asked = order[: len(names) // 5], order[len(names) // 5 :]
        rows = test[_draw_candidates(np.arange(len(test)), 40 * N_TEST, rng, NONE)]
        alike = classes[rows[:, 1:]] == classes[rows[:, :1]]
        rows = np.where(alike[:, :1], rows, rows[:, [0, 2, 1]])
        test_rows = rows[alike[:, 0] != alike[:, 1]][:N_TEST]
        frozen = float(np.mean(triplet_margins(features, test_rows, "cosine") > 0))
        print(f"{options.name} seed {seed}: frozen features {frozen:.4f}", flush=True)
        for way in options.ways:

            def measure(committee, rows=test_rows):
                each = [triplet_margins(e, rows, committee.distance) for e in committee.embeddings]
                return float(np.mean(np.stack(each) > 0))

            study = Study(way, features, classes, np.sort(asked), seed)
            for minutes, values in run(study, options.minutes, measure).items():
                print(options.name, seed, way, minutes, values, flush=True)
                reached[way, minutes].append(values)
    table = [
        {"way": way, "minutes": minutes}
        | {key: f"{np.mean([v[key] for v in values]):.4g}" for key in values[0]}
        | {"seeds": f"{min(a):.3f} to {max(a):.3f}"}
        for (way, minutes), values in reached.items()
        for a in [[v["accuracy"] for v in values]]
    ]
    print(pd.DataFrame(table).to_string(index=False))


if __name__ == "__main__":
    main()
