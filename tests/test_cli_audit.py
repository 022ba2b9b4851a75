"""`tripletkit audit`: exit codes, what is on stdout, and JSON with stable keys."""

from __future__ import annotations

import json

import pytest

KEYS = (
    "source n_triplets n_distinct n_images unreadable_lines repeated degenerate mirrored "
    "contradictions anchor_cycles distance_cycles judgements usage pair_roles components images "
    "against findings"
).split()


def test_audit_prints_json_with_stable_keys(tripletkit, triplet_file, toy_images):
    arguments = [str(triplet_file), str(toy_images), "--against", str(triplet_file), "--json"]
    result = tripletkit("audit", *arguments)
    audit = json.loads(result.stdout)
    assert list(audit) == KEYS
    assert audit["n_triplets"] == 24
    assert audit["against"][0]["shared_questions"]["count"] == 24
    assert audit["images"]["n_read"] == 8
    assert {"kind": "shared_images", "source": str(triplet_file), "count": 8} in audit["findings"]


def test_audit_strict_fails_on_findings_only(tripletkit, tmp_path):
    repeated, bad = tmp_path / "repeated.txt", tmp_path / "bad.txt"
    repeated.write_text("a b c\na b c\n")
    bad.write_text("a b c\na b\n")
    tripletkit("audit", repeated, "--strict", code=0)
    tripletkit("audit", bad, code=0)
    result = tripletkit("audit", bad, "--strict", code=1)
    assert "lines that cannot be read" in result.stdout.splitlines()[-1]


def test_audit_marks_contradictions_and_explains(tripletkit, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a b c\na c b\na b d\n")
    result = tripletkit("audit", path)
    assert "  ! contradictions: A B C and A C B" in result.stdout
    assert "--unanswered" in result.stdout
    assert "majority" in result.stdout
    result = tripletkit("audit", path, "--unanswered", "--strict", code=0)
    assert "!" not in result.stdout


def test_audit_reads_stdin(tripletkit):
    result = tripletkit("audit", "-", "--json", input=b"a b c\n")
    assert json.loads(result.stdout)["source"] == "<stdin>"


@pytest.mark.parametrize("text", ["", "\n\n", "a b\n"])
def test_audit_refuses_a_file_without_triplets(tripletkit, tmp_path, text):
    path = tmp_path / "t.txt"
    path.write_text(text)
    result = tripletkit("audit", path, code=1)
    assert result.stdout == ""
    assert f"{path}:" in result.stderr


def test_audit_shows_as_many_examples_as_asked(tripletkit, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a b c\n" * 6)
    for n_examples in (0, 4):
        result = tripletkit("audit", path, "--examples", n_examples)
        assert result.stdout.count("repeats line 1") == n_examples


def test_audit_cuts_long_names(tripletkit, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(f"{'x' * 50_000} b c\n" * 2 + "b c d\n")
    for form in ([], ["--json"]):
        assert len(tripletkit("audit", path, *form).stdout) < 10_000


def test_audit_called_wrongly_exits_2(tripletkit, tmp_path):
    tripletkit("audit", tmp_path / "none.txt", code=2)


def test_questions_are_audited_as_such_by_their_heading(tripletkit, tmp_path):
    rows = "x.jpg,y.jpg,z.jpg\nx.jpg,z.jpg,y.jpg\n"
    found = {}
    for heading in ("anchor,positive,negative", "id,query,first,second"):
        extra = "7," if heading.startswith("id") else ""
        path = tmp_path / "t.csv"
        path.write_text(f"{heading}\n" + "".join(f"{extra}{row}\n" for row in rows.splitlines()))
        result = tripletkit("audit", path, "--json", "--strict")
        found[heading] = result.exit_code
        assert ("warning: " + str(path) + ': columns that are not read: "id"' in result.stderr) == (
            bool(extra)
        )
    assert found == {"anchor,positive,negative": 1, "id,query,first,second": 0}
