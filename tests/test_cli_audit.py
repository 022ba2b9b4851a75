"""`tripletkit audit`: exit codes, what is on stdout, and JSON with stable keys."""

from __future__ import annotations

import json

import pytest

from tripletkit.cli.main import tripletkit

KEYS = (
    "source n_triplets n_distinct n_images unreadable_lines repeated degenerate mirrored "
    "contradictions anchor_cycles distance_cycles judgements usage pair_roles components images "
    "against findings"
).split()


def test_audit_prints_a_report(runner, triplet_file, toy_images):
    result = runner.invoke(tripletkit, ["audit", str(triplet_file), str(toy_images)])
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(f"{triplet_file}\n")
    assert "remembering the names of pairs" in result.stdout
    assert result.stdout.endswith("No findings.\n")


def test_audit_prints_json_with_stable_keys(runner, triplet_file, toy_images):
    arguments = [str(triplet_file), str(toy_images), "--against", str(triplet_file), "--json"]
    result = runner.invoke(tripletkit, ["audit", *arguments])
    audit = json.loads(result.stdout)
    assert list(audit) == KEYS
    assert audit["n_triplets"] == 24
    assert audit["against"][0]["shared_questions"]["count"] == 24
    assert audit["images"]["n_read"] == 8
    assert {"kind": "shared_images", "source": str(triplet_file), "count": 8} in audit["findings"]


def test_audit_strict_fails_on_findings_only(runner, tmp_path):
    repeated, bad = tmp_path / "repeated.txt", tmp_path / "bad.txt"
    repeated.write_text("a b c\na b c\n")
    bad.write_text("a b c\na b\n")
    assert runner.invoke(tripletkit, ["audit", str(repeated), "--strict"]).exit_code == 0
    assert runner.invoke(tripletkit, ["audit", str(bad)]).exit_code == 0
    result = runner.invoke(tripletkit, ["audit", str(bad), "--strict"])
    assert result.exit_code == 1
    assert "lines that cannot be read" in result.stdout.splitlines()[-1]


def test_audit_marks_contradictions_and_explains(runner, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a b c\na c b\na b d\n")
    result = runner.invoke(tripletkit, ["audit", str(path)])
    assert "  ! contradictions: A B C and A C B" in result.stdout
    assert "--unanswered" in result.stdout
    assert "majority" in result.stdout
    result = runner.invoke(tripletkit, ["audit", str(path), "--unanswered", "--strict"])
    assert result.exit_code == 0
    assert "!" not in result.stdout


def test_audit_reads_stdin(runner):
    result = runner.invoke(tripletkit, ["audit", "-", "--json"], input=b"a b c\n")
    assert json.loads(result.stdout)["source"] == "<stdin>"


@pytest.mark.parametrize("text", ["", "\n\n", "a b\n"])
def test_audit_refuses_a_file_without_triplets(runner, tmp_path, text):
    path = tmp_path / "t.txt"
    path.write_text(text)
    result = runner.invoke(tripletkit, ["audit", str(path)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{path}:" in result.stderr


def test_audit_shows_as_many_examples_as_asked(runner, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a b c\n" * 6)
    for n_examples in (0, 4):
        result = runner.invoke(tripletkit, ["audit", str(path), "--examples", str(n_examples)])
        assert result.stdout.count("repeats line 1") == n_examples


def test_audit_cuts_long_names(runner, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(f"{'x' * 50_000} b c\n" * 2 + "b c d\n")
    for form in ([], ["--json"]):
        assert len(runner.invoke(tripletkit, ["audit", str(path), *form]).stdout) < 10_000


def test_audit_called_wrongly_exits_2(runner, tmp_path):
    assert runner.invoke(tripletkit, ["audit", str(tmp_path / "none.txt")]).exit_code == 2


def test_questions_are_audited_as_such_by_their_heading(runner, tmp_path):
    rows = "x.jpg,y.jpg,z.jpg\nx.jpg,z.jpg,y.jpg\n"
    found = {}
    for heading in ("anchor,positive,negative", "id,query,first,second"):
        extra = "7," if heading.startswith("id") else ""
        path = tmp_path / "t.csv"
        path.write_text(f"{heading}\n" + "".join(f"{extra}{row}\n" for row in rows.splitlines()))
        result = runner.invoke(tripletkit, ["audit", str(path), "--json", "--strict"])
        found[heading] = result.exit_code
        assert ("warning: " + str(path) + ': columns that are not read: "id"' in result.stderr) == (
            bool(extra)
        )
    assert found == {"anchor,positive,negative": 1, "id,query,first,second": 0}
