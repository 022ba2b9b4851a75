"""Pages without a server, and the files that they give back."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from collected import names_of

from tripletkit import TripletkitError
from tripletkit.collecting.database import JudgementDatabase
from tripletkit.collecting.offline import MAX_IMPORT_BYTES, import_answers
from tripletkit.data.judgement_files import read_answers_given


@pytest.fixture
def offline(tripletkit, toy_competition, tmp_path):
    """A database with a page for carla, and what the page holds."""
    database, page = tmp_path / "j.sqlite", tmp_path / "carla.html"
    arguments = ["collect", str(toy_competition.images), "--db", str(database)]
    arguments += ["--judge", "carla", "-n", "6", "--offline", str(page)]
    result = tripletkit(*arguments, code=0)
    assert "6 questions for carla" in result.stderr
    text = page.read_text()
    return database, text, arguments


def block(text, name):
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', text, re.S)[1])


def answers_of(text, n=3):
    data = block(text, "data")
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
    return {key: data[key] for key in ("format", "database", "key", "judge")} | {"answers": answers}


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_the_page_holds_all_and_tells_nothing(offline):
    database, text, _ = offline
    data, images = block(text, "data"), block(text, "images")
    used = {place for s in data["screens"] for place in (s["anchor"], *s["shown"])}
    assert used == set(range(len(images)))
    assert all(uri.startswith("data:image/") for uri in images)
    for name in names_of(JudgementDatabase(database)).values():
        assert name not in text
    assert not re.search(r'(src|href)="http', text)


def test_the_page_runs_its_own_script_alone(offline):
    _, text, _ = offline
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    script = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy.replace("&#39;", "'")
    assert "unsafe" not in policy


def test_answers_come_in_once(offline, tripletkit, tmp_path):
    database, text, _ = offline
    path = write(tmp_path / "answers.json", answers_of(text))
    for n_new, n_known in ((3, 0), (0, 3)):
        found = import_answers(path, JudgementDatabase(database))
        assert (found.n_new, found.n_known, found.n_taken) == (n_new, n_known, 0)
    given = read_answers_given(database)
    assert [answer.side for answer in given] == ["left", "right", "neither"]
    assert {answer.judge for answer in given} == {"carla"}
    # A later file has more; one that contradicts what is there is told.
    more = answers_of(text, 5)
    more["answers"][0]["client_id"] = "client-9999"
    found = import_answers(write(path, more), JudgementDatabase(database))
    assert (found.n_new, found.n_known, found.n_taken) == (2, 2, 1)


def test_the_page_of_a_judge_who_has_answered_some_holds_the_rest(offline, tripletkit, tmp_path):
    database, text, arguments = offline
    import_answers(write(tmp_path / "a.json", answers_of(text)), JudgementDatabase(database))
    refused = tripletkit(*arguments)
    assert refused.exit_code == 1 and "--force" in refused.stderr
    result = tripletkit(*arguments, "--force")
    assert "3 questions for carla" in result.stderr
    import_answers(write(tmp_path / "a.json", answers_of(text, 6)), JudgementDatabase(database))
    result = tripletkit(*arguments, "--force")
    assert result.exit_code == 1 and "answered everything" in result.stderr


def test_consent_comes_with_the_answers(offline, tmp_path):
    database, text, _ = offline
    consent = {"text": "0123456789abcdef", "at": "2026-03-01T12:00:00.000Z"}
    given = answers_of(text) | {"consent": consent}
    import_answers(write(tmp_path / "a.json", given), JudgementDatabase(database))
    (carla,) = JudgementDatabase(database).judges()
    assert carla.about["consent"]["text"] == consent["text"]
    assert carla.about["consent"]["at"].startswith("2026-03-01T12:00:00")
    given["consent"] = consent | {"at": "yesterday"}
    with pytest.raises(TripletkitError, match="at: expected an ISO time"):
        import_answers(write(tmp_path / "a.json", given), JudgementDatabase(database))


def change(key, value):
    return lambda fields: fields | {key: value}


def change_answer(**changes):
    def apply(fields):
        fields["answers"][1] |= changes
        return fields

    return apply


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change("database", "0123456789abcdef"), "another database"),
        (change("key", "guess"), "expected answers of a judge"),
        (change("judge", "ben"), "expected answers of a judge"),
        (change("format", 2), "expected format 1, got 2"),
        (change("format", "1"), "expected a file of answers"),
        (change("answers", {}), "expected a file of answers"),
        (change("extra", 1), "expected a file of answers"),
        (change("answers", [1]), "answer 1: expected an answer"),
        (change_answer(screen=9999), "answer 2: there is no such screen"),
        (change_answer(side="up"), "answer 2: side"),
        (change_answer(at="yesterday"), "answer 2: at"),
        (change_answer(at="2026-03-01T12:00:00"), "answer 2: at: expected an ISO time with"),
        (change_answer(at=None), "answer 2: at"),
        (change_answer(response_ms=-5), "answer 2: response_ms"),
        (change_answer(client_id="client-0000"), "answer 2: this answer was sent"),
    ],
)
def test_a_file_that_is_not_right_adds_nothing(offline, tmp_path, spoil, said):
    database, text, _ = offline
    path = write(tmp_path / "answers.json", spoil(answers_of(text)))
    with pytest.raises(TripletkitError, match=said):
        import_answers(path, JudgementDatabase(database))
    assert read_answers_given(database) == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"1"])
def test_what_is_no_json_of_answers_is_refused(offline, tmp_path, data):
    path = tmp_path / "answers.json"
    path.write_bytes(data)
    with pytest.raises(TripletkitError, match="answers"):
        import_answers(path, JudgementDatabase(offline[0]))


def test_a_huge_file_is_not_even_read(offline, tmp_path):
    path = tmp_path / "answers.json"
    with path.open("wb") as file:
        file.truncate(MAX_IMPORT_BYTES + 1)
    with pytest.raises(TripletkitError, match="at most 20 MB"):
        import_answers(path, JudgementDatabase(offline[0]))


def test_the_command_imports_several(offline, tripletkit, tmp_path):
    database, text, _ = offline
    paths = []
    for number, n in enumerate((2, 4)):
        paths += ["--import", str(write(tmp_path / f"{number}.json", answers_of(text, n)))]
    result = tripletkit("collect", "--db", database, *paths)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "2 answers of carla added." in result.stderr
    assert "2 answers of carla added, 2 were there already." in result.stderr
    result = tripletkit("collect", "--db", tmp_path / "no.sqlite", *paths)
    assert result.exit_code == 1 and "no such database" in result.stderr
    assert not (tmp_path / "no.sqlite").exists()
