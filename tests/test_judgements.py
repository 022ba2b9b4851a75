"""Databases of judgements as triplet files: votes, the random share, and every command."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from collected import answer_all, by_label, sent, start
from opened import read_triplets

import tripletkit as tk
from tripletkit import TripletkitError, Triplets
from tripletkit.data.judgements import reopen_judgements

NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]


class Told:
    """A database in which judges are made to say what a test wants."""

    def __init__(self, path, screen="question", **settings):
        self.database, self.asker = start(path, NAMES, screen=screen, **settings)
        self.number = self.database.add_images(NAMES)
        self.n = 0

    def ask(self, triplet, how="random", probability=0.001):
        images = [self.number[f"{name}.png"] for name in triplet]
        probability = probability if how == "random" else None
        return self.database.add_question(images, how, probability=probability)

    def tell(self, judge, question, choice):
        """`choice` is the letter of an image, or `?`."""
        judge = self.database.add_judge(judge)
        row = self.database.connection.execute(
            "SELECT * FROM questions WHERE id = ?", (question,)
        ).fetchone()
        images = [row["anchor"], row["first"], row["second"]]
        self.database.add_screen(judge.id, "fresh", images, question=question)
        screen = self.database.open_screens(judge.id)[0]
        side = "neither"
        if choice != "?":
            side = "left" if screen.shown[0] == self.number[f"{choice}.png"] else "right"
        self.n += 1
        answer = sent(screen.id, f"client-{self.n:04}", side)
        self.database.add_answer(judge.id, answer)


@pytest.fixture
def told(tmp_path):
    return Told(tmp_path / "j.sqlite")


def rows_of(judgements):
    names = judgements.triplets.names
    return [
        ("".join(names[i][0] for i in row), first, second)
        for row, first, second in zip(
            judgements.triplets.rows,
            judgements.votes.for_first,
            judgements.votes.for_second,
            strict=True,
        )
    ]


def test_most_judges_decide_and_each_has_one_vote(told):
    question = told.ask("abc")
    told.tell("anna", question, "c")
    told.tell("ben", question, "c")
    told.tell("carla", question, "b")
    # Twice the same is one vote; once this and once that, half for each; can't tell, too.
    other = told.ask("ade")
    told.tell("anna", other, "d")
    told.tell("anna", other, "d")
    told.tell("ben", other, "d")
    told.tell("ben", other, "e")
    told.tell("carla", other, "?")
    # The same question turned round is the same.
    told.tell("anna", told.ask("bde"), "d")
    told.tell("ben", told.ask("bed"), "e")
    told.tell("carla", told.ask("bed"), "e")
    told.tell("anna", told.ask("cad"), "?")
    judgements = tk.read_judgements(told.database.path)
    decided = [("acb", 2, 1), ("ade", 2, 1), ("bed", 2, 1)]
    assert rows_of(judgements) == [*decided, ("cad", 0.5, 0.5)]
    # A triplet file has no place for what is open.
    assert rows_of(judgements.decided()) == decided
    assert judgements.decided().triplets.place(2) == f"{told.database.path}:3"


def test_undone_answers_and_gold_count_for_nothing(told):
    told.tell("anna", told.ask("abc"), "b")
    told.tell("anna", told.ask("abd", "gold"), "b")
    told.tell("anna", told.ask("abe"), "e")
    told.database.undo(1, "undo-0001")
    assert rows_of(tk.read_judgements(told.database.path)) == [("abc", 1, 0)]


def test_the_random_share_is_known(told):
    told.tell("anna", told.ask("abc"), "b")
    told.tell("anna", told.ask("abd", "margin"), "b")
    chosen = told.ask("abe", "disagreement")
    told.tell("anna", chosen, "e")
    # Drawn by chance as well, so it is fair.
    told.tell("ben", told.ask("aeb"), "e")
    assert tk.read_judgements(told.database.path).is_random.tolist() == [True, False, True]


def test_what_was_improbable_counts_for_more(told, tripletkit, tmp_path):
    """Weights are the inverse of the probability, and `score` takes them."""
    for triplet, probability in (("abc", 0.001), ("abd", 0.001), ("abe", 0.004)):
        told.tell("anna", told.ask(triplet, probability=probability), "b")
    told.tell("anna", told.ask("acd", "margin"), "c")
    path = told.database.path
    assert tk.read_judgements(path).weights == pytest.approx([4 / 3, 4 / 3, 1 / 3, 0])
    answers = tmp_path / "answers.txt"
    answers.write_text("0\n1\n1\n1\n")
    score = json.loads(tripletkit("score", answers, path, "--json", code=0).stdout)
    assert (score["n"], score["n_correct"]) == (3, 2)
    assert score["accuracy"] == pytest.approx(5 / 9)
    assert score["votes"]["agreement"] == pytest.approx(5 / 9)
    assert score["n_alike"] == pytest.approx(9 / (16 + 16 + 1) * 9)


def test_undecided_questions_and_every_answer_leave_apart(told, tripletkit, tmp_path):
    told.tell("anna", told.ask("abc"), "b")
    told.tell("anna", told.ask("abd", "margin"), "?")
    told.tell("ben", told.ask("abe"), "e")
    out = tmp_path / "out"
    tripletkit("export-judgements", told.database.path, "-o", out, code=0)
    assert (out / "train.txt").read_text().split() == "a.png b.png c.png a.png e.png b.png".split()
    assert (out / "votes.csv").read_text() == "votes_b,votes_c\n1,0\n1,0\n"
    questions = pd.read_csv(out / "questions.csv")
    assert questions[["undecided", "random"]].to_numpy().tolist() == [[0, 1], [1, 0], [0, 1]]
    answers = pd.read_csv(out / "answers.csv", keep_default_na=False)
    assert answers["judge"].tolist() == ["anna", "anna", "ben"]
    assert answers["chosen"].tolist() == ["b.png", "", "e.png"]
    assert answers["method"].tolist() == ["keyboard"] * 3
    # A judge that the owner has left out counts in nothing.
    told.database.change_judge(1, is_left_out=True)
    assert len(tk.read_judgements(told.database.path)) == 1


def test_every_command_that_reads_a_database_can_leave_judges_out(
    tripletkit, tiny_backbone, toy_competition, collected, tmp_path
):
    names = [path.name for path in sorted(toy_competition.images.iterdir())]
    database, asker = start(collected, names, n_questions=600)
    answer_all(database, asker, "ben", lambda anchor, shown: "left", n=300)
    database.close()
    without = tk.read_judgements(collected, exclude=["ben"])
    assert len(without) < len(tk.read_judgements(collected))
    arguments = ["train", collected, toy_competition.images, "-o", tmp_path / "m"]
    arguments += ["--backbone", "tiny", "--recipe", "map", "--exclude", "ben"]
    tripletkit(*arguments, code=0)
    assert tk.load(tmp_path / "m").record.inputs.triplets.sha256 == without.record.sha256
    answers = tmp_path / "answers.txt"
    answers.write_text("1\n" * len(without.decided()))
    reading = ["--exclude", "ben", "--json"]
    score = json.loads(tripletkit("score", answers, collected, *reading, code=0).stdout)
    assert score["n"] == without.decided().is_random.sum()
    score = tk.score(answers, tk.read_judgements(collected, exclude=["ben"]))
    assert score.n == without.decided().is_random.sum()
    audit = json.loads(tripletkit("audit", collected, *reading, code=0).stdout)
    assert audit["n_triplets"] == len(without.decided())
    words = ["split", collected, "-o", tmp_path / "p", "--by", "component", "--exclude", "ben"]
    tripletkit(*words, code=0)
    words = ["predict", collected, "--model", tmp_path / "m", "--exclude", "ben"]
    assert len(tripletkit(*words, code=0).stdout.splitlines()) == len(without) + 1
    for given, judge, message in (
        (answers, "ben", "expected a database of judgements: only that has judges"),
        (collected, "carl", "got carl; there are anna, ben"),
    ):
        assert message in tripletkit("audit", given, "--exclude", judge).stderr
    with pytest.raises(TripletkitError, match="no answer"):
        tk.read_judgements(collected, exclude=["anna", "ben"])


def test_a_grid_implies_its_triplets(tmp_path):
    told = Told(tmp_path / "j.sqlite", screen="grid", grid_of=4, grid_pick=1, n_questions=2)
    judge = told.database.add_judge("anna")
    screen = told.asker.screens(judge.id)[0]
    told.database.add_answer(judge.id, sent(screen.id, side="grid", places=[2]))
    judgements = tk.read_judgements(told.database.path)
    name_of = {number: name for name, number in told.number.items()}
    names = judgements.triplets.names
    assert [[names[i] for i in row[:2]] for row in judgements.triplets.rows] == [
        [name_of[screen.anchor], name_of[screen.shown[2]]]
    ] * 3
    others = {names[row[2]] for row in judgements.triplets.rows}
    assert others == {name_of[n] for place, n in enumerate(screen.shown) if place != 2}
    assert judgements.triplets.trials.tolist() == [screen.id] * 3
    assert judgements.is_random.all()


def test_questions_are_found_whichever_way_round(told):
    told.tell("anna", told.ask("abc"), "b")
    judgements = tk.read_judgements(told.database.path)
    asked = Triplets(["x", *NAMES], np.array([[1, 3, 2], [1, 2, 3], [0, 1, 2]]), np.arange(3), "f")
    found, is_turned = judgements.find(asked)
    assert found.tolist() == [0, 0, -1]
    assert is_turned.tolist() == [True, False, False]


def test_what_is_said_decides_the_hash(told, tmp_path):
    question = told.ask("abc")
    told.tell("anna", question, "b")
    before = tk.read_judgements(told.database.path).record.sha256
    told.database.add_judge("ben")
    assert tk.read_judgements(told.database.path).record.sha256 == before
    told.tell("ben", question, "c")
    assert tk.read_judgements(told.database.path).record.sha256 != before


def test_judgements_are_read_again_as_they_were(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("0 1 2 0.2\n")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    how = {"columns": {"share": "4"}, "names": tmp_path / "names.txt", "swap": True}
    read = tk.read_judgements(path, **how)
    again = reopen_judgements(read.record)
    assert (again.triplets.names, again.votes.share.tolist()) == (["a", "b", "c"], [0.8])
    # A list in memory is not there any more.
    listed = tk.read_judgements(path, **how | {"names": ["a", "b", "c"]})
    assert reopen_judgements(listed.record) is None
    for file, text in ((path, "0 1 2 0.3\n"), (tmp_path / "names.txt", "b\na\nc\n")):
        read = tk.read_judgements(path, **how)
        file.write_text(text)
        assert reopen_judgements(read.record) is None


def test_only_a_database_of_judgements_is_taken_for_one(told, tmp_path, toy_images):
    with pytest.raises(TripletkitError, match="expected UTF-8 text"):
        tk.read_judgements(next(toy_images.iterdir()))
    told.tell("anna", told.ask("abc"), "b")
    told.database.close()
    with told.database.path.open("rb") as file, pytest.raises(TripletkitError, match="path"):
        tk.read_judgements(file)
    with pytest.raises(TripletkitError, match="No such file"):
        tk.read_judgements(tmp_path / "nothing")


def test_a_copy_in_a_folder_that_cannot_be_written_is_read(told, tmp_path):
    told.tell("anna", told.ask("abc"), "b")
    told.database.close()
    folder = tmp_path / "kept"
    folder.mkdir()
    copy = shutil.copy(told.database.path, folder / "j.sqlite")
    assert len(tk.read_judgements(copy)) == 1 and [*folder.iterdir()] == [copy]  # nothing is left
    folder.chmod(0o500)
    try:
        assert len(tk.read_judgements(copy)) == 1
    finally:
        folder.chmod(0o700)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, toy_competition):
    """Sixty images, 200 questions of chance and 200 that a model is said to have chosen."""
    names = [f"p{n:02}.png" for n in range(60)]
    labels = dict(zip(names, toy_competition.labels.tolist(), strict=True))
    path = tmp_path_factory.mktemp("filled") / "judgements.sqlite"
    database, asker = start(path, names, n_questions=600)
    answer_all(database, asker, "anna", by_label(labels), n=500)
    numbers = database.add_images(names)
    rng = np.random.default_rng(2)
    questions = [
        {"images": row, "how": "margin"}
        for row in ([numbers[names[i]] for i in rng.permutation(60)[:3]] for _ in range(200))
    ]
    database.add_model(500, {}, questions)
    answer_all(database, asker, "anna", by_label(labels))
    database.close()
    return database.path


@pytest.fixture
def collected(filled, tmp_path):
    return Path(shutil.copy(filled, tmp_path))


def test_train_learns_from_it_and_validates_on_the_random_share(
    tripletkit, tiny_backbone, toy_competition, collected, tmp_path
):
    arguments = ["train", collected, toy_competition.images, "-o", tmp_path / "m"]
    arguments += ["--backbone", "tiny", "--recipe", "map"]
    result = tripletkit(*arguments, code=0)
    assert "Validation is on the random share alone" in result.stderr
    judgements = tk.read_judgements(collected)
    n_random = int(judgements.decided().is_random.sum())
    # Of hundreds of answers nearly every question of chance was held out, and no other.
    assert (
        0 < tk.load(tmp_path / "m").record.pooled.trained.n_triplets <= n_random < len(judgements)
    )
    arguments += ["--split", "component", "--val-fraction", 0.4, "--force"]
    result = tripletkit(*arguments, code=0)
    assert "tied" in result.stderr
    assert "Validation is on the random share alone" in result.stderr
    record = tk.load(tmp_path / "m").record
    assert record.inputs.triplets.sha256 == judgements.record.sha256
    assert record.inputs.votes.n_tied == int(judgements.votes.is_tie.sum()) > 50
    assert 0 < record.validation.trained.n <= 0.5 * n_random
    # What docs/collect.md goes through: both say that the model has learned from these.
    preds = tmp_path / "preds.csv"
    words = ["predict", collected, "--model", tmp_path / "m", "-o", preds]
    assert "the model learned from" in tripletkit(*words, code=0).stderr
    words = ["score", preds, collected, "--model", tmp_path / "m"]
    assert "of these questions and their answers are among those" in tripletkit(*words).stderr
    refused = tripletkit(*arguments, "--votes", toy_competition.truth, code=2)
    assert "holds its votes" in refused.stderr


def test_score_takes_the_random_share_alone_and_says_so(tripletkit, collected, tmp_path):
    judgements = tk.read_judgements(collected).decided()
    names = judgements.triplets.names
    lines = ["a,b,c,prediction,margin"]
    n_right = 0
    for row, is_random in zip(judgements.triplets.rows, judgements.is_random, strict=True):
        # Right on every third question of chance, on all that were chosen; every second turned.
        is_right = not is_random or len(lines) % 3 == 0
        a, b, c = (names[i] for i in row)
        n_right += is_random and is_right
        if len(lines) % 2:
            lines.append(f"{a},{c},{b},{int(not is_right)},{-1 if is_right else 1}")
        else:
            lines.append(f"{a},{b},{c},{int(is_right)},{1 if is_right else -1}")
    answers = tmp_path / "preds.csv"
    answers.write_text("\n".join(lines) + "\n")
    result = tripletkit("score", answers, collected, "--json", code=0)
    n_random = int(judgements.is_random.sum())
    assert f"random share alone: {n_random} of {len(judgements)} answers" in result.stderr
    score = json.loads(result.stdout)
    assert (score["n"], score["n_correct"]) == (n_random, n_right)
    assert score["votes"]["n"] == n_random
    # Labels alone are in the order of `predict`.
    labels = tmp_path / "labels.txt"
    labels.write_text("1\n" * len(judgements))
    scored = json.loads(tripletkit("score", labels, collected, "--json", code=0).stdout)
    assert scored["accuracy"] == 1
    labels.write_text("1\n" * 3)
    assert "expected" in tripletkit("score", labels, collected, code=1).stderr


def test_split_validates_on_the_random_share(tripletkit, collected, tmp_path):
    folder = tmp_path / "parts"
    result = tripletkit("split", collected, "-o", folder, "--by", "component", code=0)
    assert "random share alone" in result.stderr
    judgements = tk.read_judgements(collected).decided()
    validation = read_triplets(folder / "val_triplets.txt")
    found, _ = judgements.find(validation)
    assert judgements.is_random[found].all()
    training = read_triplets(folder / "train.txt")
    found, _ = judgements.find(training)
    assert not judgements.is_random[found].all()


def test_export_writes_what_train_reads(tripletkit, collected, tmp_path):
    folder = tmp_path / "export"
    command = ["export-judgements", str(collected), "-o", str(folder)]
    tripletkit(*command, code=0)
    judgements = tk.read_judgements(collected).decided()
    written = tk.read_judgements(folder / "train.txt", votes=folder / "votes.csv")
    assert rows_of(written) == rows_of(judgements)
    again = tripletkit(*command)
    assert again.exit_code == 1 and "--force" in again.stderr
    tripletkit(*command, "--force", "--random-share", code=0)
    assert len(read_triplets(folder / "train.txt")) == judgements.is_random.sum() > 0
    nobody = tripletkit(*command, "--force", "--exclude", "zoe")
    assert nobody.exit_code == 1 and "there are anna" in nobody.stderr


DAMAGES = {
    "a choice that is none": "UPDATE answers SET choice = 'evil'",
    "no questions": "DELETE FROM questions",
    "no facts": "DELETE FROM meta",
    "a name that is no text": "UPDATE images SET name = x'ff00' WHERE id = 1",
    "bytes that are no text": "UPDATE judges SET name = CAST(x'0affff' AS TEXT)",
    "no column": "ALTER TABLE answers RENAME COLUMN side TO edge",
    "a view": "ALTER TABLE questions RENAME TO asked; CREATE VIEW questions AS WITH RECURSIVE"
    " n(id) AS (SELECT 1 UNION ALL SELECT id FROM n) SELECT id FROM n",
    "a trigger": "CREATE TRIGGER t AFTER UPDATE ON answers BEGIN DELETE FROM images; END",
    "a time that is none": "UPDATE answers SET response_ms = 'soon'",
    "no table": "DROP TABLE judges",
    "images that are no numbers": "UPDATE screens SET anchor = 'x'",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_refused_in_one_line(told, tmp_path, tripletkit, damage):
    told.tell("anna", told.ask("abc"), "b")
    told.database.close()
    copy = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(told.database.path)) as whole, closing(sqlite3.connect(copy)) as c:
        whole.backup(c)
        c.executescript("PRAGMA ignore_check_constraints = ON; " + DAMAGES[damage])
    for command in ("judges", "audit"):
        result = tripletkit(command, copy)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {copy}: ") and len(result.stderr.splitlines()) == 1
