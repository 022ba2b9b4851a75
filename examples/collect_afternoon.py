"""An afternoon of collecting, with made-up colleagues: from a folder of photos to a model.

    python examples/collect_afternoon.py images/ --labels labels.csv --out afternoon/

Five colleagues answer 200 questions each, as `tripletkit collect` asks them; the model in the
background is trained after 100 answers and then after every `--every`. Their taste: an image of
the same class is more like the anchor than one of a related class (`--related`), and that more
than any other; where both are alike in this, they cannot tell. They err in 10% of the rest. A fifth
of the images is kept from them; questions about these alone that can be told, answered without
errors, are the test. Writes the database and `test.txt` with `truth.csv`, and prints the commands
that train on the one and score on the other.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.asking import Asker, AskingSettings
from tripletkit.collecting.committee import TrainerTask, train_and_choose
from tripletkit.collecting.database import GivenAnswer, JudgementDatabase
from tripletkit.data.folder import list_images
from tripletkit.data.labels import read_labels
from tripletkit.data.splits.split_files import draw_truth, write_questions
from tripletkit.features.encoder import open_encoder
from tripletkit.features.image_features import find_files
from tripletkit.features.store import FeatureStore

JUDGES = ("anna", "ben", "carla", "deniz", "emil")
ERRORS = 0.1
N_TEST = 2000


def make_levels(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return `(n_images, n_images)` how alike two images are: 2, 1 or 0."""
    same = labels[:, None] == labels
    return same.astype(int) + (groups[:, None] == groups)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ask", default=defaults.AUTO_ASK)
    parser.add_argument("--questions", type=int, default=200, help="of each colleague")
    parser.add_argument("--every", type=int, default=200, help="answers between two models")
    parser.add_argument("--related", nargs="*", default=[], help="classes of a kind: a,b c,d,e")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)

    names = list_images(options.images)
    of_name = read_labels(options.labels)
    classes = {label: n for n, label in enumerate(dict.fromkeys(of_name.values()))}
    labels = np.array([classes[of_name[name]] for name in names])
    group_of = {name: n for n, group in enumerate(options.related) for name in group.split(",")}
    groups = np.array([group_of.get(of_name[name], -1 - classes[of_name[name]]) for name in names])
    levels = make_levels(labels, groups)
    order = rng.permutation(len(names))
    of_test, shown = order[: len(names) // 5], np.sort(order[len(names) // 5 :])

    options.out.mkdir(parents=True)
    asked = [names[place] for place in shown]
    database = JudgementDatabase(options.out / "judgements.sqlite")
    numbers = database.add_images(asked)
    place_of = {number: names.index(name) for name, number in numbers.items()}
    asker = Asker(database, numbers.values(), AskingSettings(options.questions, seed=options.seed))
    files = find_files(asked, [str(options.images)] * len(asked), options.images)
    with FeatureStore() as store:
        features = open_encoder([options.backbone]).encode(files, store, tell=False)
    task = TrainerTask(database.path, numbers, lambda: features, options.ask, options.seed)
    judges = [database.add_judge(name) for name in JUDGES]
    due = defaults.FIRST_RANDOM
    for number in range(options.questions * len(judges)):
        judge = judges[number % len(judges)]
        screen = asker.screens(judge.id)[0]
        row = np.array([place_of[image] for image in (screen.anchor, *screen.shown)])
        to_left, to_right = levels[row[0], row[1:]]
        side = "neither"
        if to_left != to_right:
            is_left = (to_left > to_right) == (rng.random() >= ERRORS)
            side = "left" if is_left else "right"
        answer = GivenAnswer(
            f"simulated-{number:06}",
            screen.id,
            side,
            (),
            2500.0,
            "keyboard",
        )
        database.add_answer(judge.id, answer)
        n_answers = number + 1
        if n_answers >= due:
            due = n_answers + options.every
            found = train_and_choose(task, features, n_answers)
            database.add_model(n_answers, found["about"], found["questions"])
            curve = found["about"].get("curve")
            if curve:
                print(f"{n_answers} answers: {curve[-1]['accuracy']:.3f} on the random share")

    rows = np.array([rng.permutation(of_test)[:3] for _ in range(10 * N_TEST)])
    anchor, first, second = rows.T
    lead = levels[anchor, first] - levels[anchor, second]
    rows = np.where(lead[:, None] > 0, rows, rows[:, [0, 2, 1]])[lead != 0][:N_TEST]
    write_questions(
        options.out / "test.txt",
        options.out / "truth.csv",
        names,
        rows,
        draw_truth(len(rows), options.seed),
    )
    print(
        f"tripletkit judges {database.path}\n"
        f"tripletkit train {database.path} {options.images} -o {options.out}/model "
        f"--backbone {options.backbone} --recipe residual\n"
        f"tripletkit predict {options.out}/test.txt --model {options.out}/model "
        f"--images {options.images} > {options.out}/preds.csv\n"
        f"tripletkit score {options.out}/preds.csv {options.out}/truth.csv"
    )


if __name__ == "__main__":
    main()
