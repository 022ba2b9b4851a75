"""A study from its file, and judgements from elsewhere: a page that is mailed, and tables."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from collected import answer_all, by_label, read_answers_given, rows_of, start
from PIL import Image

import tripletkit as tk
from tripletkit import TripletkitError

NAMES = [f"p{n:02}.png" for n in range(12)]
LABELS = {name: n % 3 for n, name in enumerate(NAMES)}
TEMPLATE = Path(tk.__file__).parent / "collecting" / "templates" / "study.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    for number, name in enumerate(NAMES):
        Image.new("RGB", (80, 60), (20 * number, 90, 200)).save(path / name)
    return path


@pytest.fixture
def collect(tripletkit, folder, tmp_path):
    """Return a function that runs `collect` and gives what it said, and the page it has written."""

    def collect(*options, code=0, database="j.sqlite"):
        words = ["collect", folder, "--db", tmp_path / database, "--judge", "anna"]
        return tripletkit(*words, "--offline", tmp_path / "p.html", *options, code=code).stderr

    return collect


def test_a_study_is_bounded_text_of_known_keys(collect, tmp_path):
    path = tmp_path / "study.toml"
    for data, said in (
        (b"\xff\xfe", "UTF-8"),
        (b"instructions", "expected TOML"),
        (b'colour = "red"', "got colour"),
        (b"quota = 0", "quota: expected a number from 1 on"),
        (b'quota = "many"', "quota: expected a number from 1 on"),
        (b'practice = [["a", "b", "b"]]', "practice: expected a list of"),
        (b'link = "javascript:alert(1)"', "link: expected an address"),
        (b'language = "xx"', "expected one of en, de, es, fr"),
    ):
        path.write_bytes(data)
        assert said in collect(code=1)
    # No database is made for what is not right.
    assert not (tmp_path / "j.sqlite").exists()
    path.write_bytes(b'\xef\xbb\xbfinstructions = "# Look"')
    collect()
    assert "<h1>Look</h1>" in (tmp_path / "p.html").read_text()
    path.write_text('practice = [["p00", "p01", "nobody"]]\n')
    assert "nobody" in collect("--force", code=1)


def test_a_study_is_made_kept_and_shown_and_changes_are_said(collect, tripletkit, tmp_path):
    path = tmp_path / "study.toml"
    assert "Other than" not in collect()
    assert path.read_text() == TEMPLATE.read_text()
    own = 'language = "de"\nquota = 9\nquestion = "Was ist ähnlicher?"\n'
    own += 'attention = [["p00", "p03", "p01"]]\n'
    path.write_text(own)
    second = collect("--overlap", 2, "--force")
    assert "Other than at the last start: overlap is 2, it was 1." in second
    assert "language is de, it was en" in second and "quota is 9" in second
    assert "Was ist ähnlicher?" in (tmp_path / "p.html").read_text()
    # Nobody writes over it; without it the database knows it still.
    assert path.read_text() == own
    path.unlink()
    third = collect("--overlap", 2, "-n", 5, "--force")
    assert "n_questions is 5, it was 9" in third and "language" not in third
    assert not path.exists()
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=4)
    answer_all(database, asker, "ben", by_label(LABELS))
    shown = tripletkit("judges", tmp_path / "j.sqlite", code=0).stdout
    assert "How it was asked" in shown and "Was ist ähnlicher?" in shown
    told = json.loads(tripletkit("judges", tmp_path / "j.sqlite", "--json", code=0).stdout)
    assert (told["study"]["language"], told["study"]["n_questions"]) == ("de", 5)


def test_every_line_of_the_template_can_be_said(collect, tmp_path):
    lines = TEMPLATE.read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("# What this", "# and start"))]
    text = "\n".join(re.sub(r"^# ?", "", line) for line in lines)
    keys = set(tomllib.loads(text))
    # All that `study.toml` may hold is in it.
    (tmp_path / "study.toml").write_text("colour = 1")
    (known,) = re.findall(r"expected (\w+(?:, \w+)*), got colour", collect(code=1))
    assert set(known.split(", ")) == keys
    said = re.sub(r"\[\[.*\]\]", '[["p00", "p03", "p01"]]', text)
    (tmp_path / "study.toml").write_text(said)
    collect()


OLD = {
    "triplets.txt": "p00 p03 p01\np01 p04 p02\n",
    "answers.csv": "a,b,c,choice\np00.png,p01.png,p03.png,c\np01.png,p04.png,p02.png,b\n",
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_study_goes_on(tripletkit, folder, tmp_path, name):
    database, table = tmp_path / "j.sqlite", tmp_path / name
    table.write_text(OLD[name])
    words = ["collect", folder, "--db", database, "--import", table, "--judge", "old study"]
    assert "2 answers of old study added." in tripletkit(*words, code=0).stderr
    assert "0 answers of old study added, 2 were there" in tripletkit(*words, code=0).stderr
    judgements = tk.read_judgements(database)
    names = judgements.triplets.names
    told = [[names[image] for image in row] for row in judgements.triplets.rows]
    assert told == [["p00.png", "p03.png", "p01.png"], ["p01.png", "p04.png", "p02.png"]]
    given = read_answers_given(database)
    assert {(a.judge, a.how, a.method) for a in given} == {("old study", "imported", "import")}
    # New answers come beside it, and only questions drawn by chance are scored.
    collected, asker = start(database, NAMES, n_questions=6)
    answer_all(collected, asker, "anna", by_label(LABELS))
    # One that was drawn by chance as well is fair.
    assert tk.read_judgements(database).is_random[2:].all()
    assert {answer.probability for answer in given} == {0.0}
    assert tk.read_judgements(database, exclude=["anna"]).is_random is None


def test_votes_become_judges_and_what_cannot_is_refused(folder, tmp_path):
    table = pd.DataFrame({"a": ["p00", "p01"], "b": ["p01", "p04"], "c": ["p03", "p02"]}).assign(
        votes_b=[1, 3], votes_c=[2, 0]
    )
    imported = tk.import_judgements(tmp_path / "j.sqlite", table, folder)
    assert imported.n_new == 6 and str(imported) == "6 answers of imported added."
    judgements = tk.read_judgements(tmp_path / "j.sqlite")
    assert judgements.votes.for_first.tolist() == [2, 3]
    assert judgements.votes.for_second.tolist() == [1, 0]
    names = [judge.name for judge in tk.judges(tmp_path / "j.sqlite").judges]
    assert names == ["imported", "imported 2", "imported 3"]
    shares = table.drop(columns=["votes_b", "votes_c"]).assign(share=[0.25, 1.0])
    with pytest.raises(TripletkitError, match="whole numbers of votes"):
        tk.import_judgements(tmp_path / "other.sqlite", shares, folder)
    assert not (tmp_path / "other.sqlite").exists()
    with pytest.raises(TripletkitError, match="p99"):
        tk.import_judgements(tmp_path / "j.sqlite", table.assign(a="p99"), folder)
    with pytest.raises(TripletkitError, match="needs the folder"):
        tk.import_judgements(tmp_path / "j.sqlite", table)
    assert len(tk.read_judgements(tmp_path / "j.sqlite")) == 2
    # Half a vote for each is one who cannot tell; so a database can be imported into another.
    halves = table.assign(votes_b=[1.5, 0], votes_c=[0.5, 1])
    assert tk.import_judgements(tmp_path / "halves.sqlite", halves, folder).n_new == 3
    again = tk.import_judgements(tmp_path / "copy.sqlite", tmp_path / "halves.sqlite", folder)
    assert again.n_new == 3
    assert tk.read_judgements(tmp_path / "copy.sqlite").votes.for_first.tolist() == [1.5, 1.0]


class Offline:
    """A page without a server, and the files that it gives back."""

    def __init__(self, folder):
        self.database, self.path = folder / "j.sqlite", folder / "answers.json"
        self.text = (folder / "p.html").read_text()

    def block(self, name):
        return json.loads(re.search(rf'id="{name}">(.*?)</script>', self.text, re.S)[1])

    def answers(self, n=3):
        data = self.block("data")
        answers = [
            {
                "client_id": f"client-{number:04}",
                "screen": screen["id"],
                "side": ("left", "right", "neither")[number % 3],
                "places": [],
                "response_ms": 1234.5,
                "method": "offline",
                "at": "2026-03-01T12:00:00.000Z",
            }
            for number, screen in enumerate(data["screens"][:n])
        ]
        kept = {key: data[key] for key in ("format", "database", "key", "judge")}
        return kept | {"answers": answers}

    def take(self, answers):
        """Import answers, and return how many were new, known and taken."""
        if not isinstance(answers, bytes):
            answers = json.dumps(answers).encode()
        self.path.write_bytes(answers)
        found = tk.import_judgements(self.database, self.path)
        return found.n_new, found.n_known, found.n_taken


@pytest.fixture
def offline(collect, tmp_path):
    assert "6 questions for anna" in collect("-n", 6)
    return Offline(tmp_path)


def test_the_page_holds_all_and_tells_nothing(offline):
    data, images = offline.block("data"), offline.block("images")
    used = {place for s in data["screens"] for place in (s["anchor"], *s["shown"])}
    assert used == set(range(len(images)))
    assert all(uri.startswith("data:image/") for uri in images)
    assert not any(name in offline.text for name in NAMES)
    assert not re.search(r'(src|href)="http', offline.text)
    # It runs its own script alone.
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', offline.text)[1]
    (script,) = re.findall(r"<script>(.*?)</script>", offline.text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy.replace("&#39;", "'")
    assert "unsafe" not in policy


def test_answers_come_in_once(offline):
    assert offline.take(offline.answers()) == (3, 0, 0)
    assert offline.take(offline.answers()) == (0, 3, 0)
    given = read_answers_given(offline.database)
    assert [answer.side for answer in given] == ["left", "right", "neither"]
    assert {answer.judge for answer in given} == {"anna"}
    # A later file has more; one that contradicts what is there is told.
    more = offline.answers(5)
    more["answers"][0]["client_id"] = "client-9999"
    assert offline.take(more) == (2, 2, 1)


def test_the_page_of_a_judge_who_has_answered_some_holds_the_rest(offline, collect):
    offline.take(offline.answers())
    assert "--force" in collect("-n", 6, code=1)
    assert "3 questions for anna" in collect("-n", 6, "--force")
    offline.take(offline.answers(6))
    assert "answered everything" in collect("-n", 6, "--force", code=1)


def test_consent_comes_with_the_answers(offline):
    consent = {"text": "0123456789abcdef", "at": "2026-03-01T12:00:00.000Z"}
    offline.take(offline.answers() | {"consent": consent})
    ((about,),) = rows_of(offline.database, "SELECT about FROM judges")
    kept = json.loads(about)["consent"]
    assert kept["text"] == consent["text"] and kept["at"].startswith("2026-03-01T12:00:00")
    with pytest.raises(TripletkitError, match="at: expected an ISO time"):
        offline.take(offline.answers() | {"consent": consent | {"at": "yesterday"}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"database": "0123456789abcdef"}, "another database"),
        ({"key": "guess"}, "expected answers of a judge"),
        ({"judge": "ben"}, "expected answers of a judge"),
        ({"format": 2}, "expected format 1, got 2"),
        ({"format": "1"}, "expected a file of answers"),
        ({"answers": {}}, "expected a file of answers"),
        ({"extra": 1}, "expected a file of answers"),
        ({"answers": [1]}, "answer 1: expected an answer"),
        ({"screen": 9999}, "answer 2: there is no such screen"),
        ({"side": "up"}, "answer 2: side"),
        ({"at": "yesterday"}, "answer 2: at"),
        ({"at": "2026-03-01T12:00:00"}, "answer 2: at: expected an ISO time with"),
        ({"at": None}, "answer 2: at"),
        ({"response_ms": -5}, "answer 2: response_ms"),
        ({"client_id": "client-0000"}, "answer 2: this answer was sent"),
    ],
)
def test_a_file_that_is_not_right_adds_nothing(offline, change, said):
    answers = offline.answers()
    of_answer = answers["answers"][1]
    (of_answer if of_answer.keys() >= change.keys() else answers).update(change)
    with pytest.raises(TripletkitError, match=said):
        offline.take(answers)
    assert read_answers_given(offline.database) == []


def test_what_is_no_file_of_answers_or_a_huge_one_is_refused(offline, tmp_path):
    head = b'{"database": '
    for data in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1"):
        with pytest.raises(TripletkitError, match="answers"):
            offline.take(head + data)
    with offline.path.open("r+b") as file:
        file.truncate((20 << 20) + 1)
    with pytest.raises(TripletkitError, match="at most 20 MB"):
        tk.import_judgements(offline.database, offline.path)


def test_answers_are_of_a_database_that_is_there(offline, tripletkit, tmp_path):
    offline.take(offline.answers())
    lost = tripletkit("collect", "--db", tmp_path / "no.sqlite", "--import", offline.path, code=1)
    assert "no such database" in lost.stderr
    assert not (tmp_path / "no.sqlite").exists()
