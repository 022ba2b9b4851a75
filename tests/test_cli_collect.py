"""`tripletkit collect` and `suggest` as commands: wrong calls, links, warnings, one server."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from collect_server import opened_servers
from opened import read_triplets

import tripletkit as tk
from tripletkit.api.judging import _split_members as split_members


@pytest.fixture
def collect(tripletkit, toy_competition, tmp_path):
    def collect(*options, images=None):
        arguments = ["collect", images or toy_competition.images, "--db", tmp_path / "j.sqlite"]
        return tripletkit(*[str(part) for part in [*arguments, *options]])

    return collect


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--screen", "grid", "--of", "4", "--pick", "4"], "--pick 4 must be less than --of 4"),
        (["--screen", "grid", "--ask", "margin"], "excludes --ask"),
        (["--screen", "grid", "--overlap", "2"], "excludes --ask and --overlap"),
        (["--offline", "page.html"], "--offline needs one --judge"),
        (["--judge", "  "], "expected a name"),
        (["--judge", "x" * 41], "expected a name"),
        (["--port", "70000"], "--port"),
        (["-n", "0"], "-n"),
        (["--url", "museum.example"], "expected such as https://"),
    ],
)
def test_wrong_calls(collect, options, said, tmp_path):
    result = collect(*options)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not (tmp_path / "j.sqlite").exists()


def test_an_empty_folder_and_a_strange_database_are_refused(collect, tmp_path):
    (tmp_path / "empty").mkdir()
    result = collect(images=tmp_path / "empty")
    assert result.exit_code == 1
    assert "expected a folder of images" in result.stderr
    (tmp_path / "j.sqlite").write_text("my notes, which must not be lost" * 40)
    result = collect()
    assert result.exit_code == 1
    assert 'cannot be read: "file is not a database"' in result.stderr
    assert (tmp_path / "j.sqlite").read_text().startswith("my notes")


def test_a_missing_extra_is_named(collect, monkeypatch):
    find_spec = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "waitress" else find_spec(name, *rest),
    )
    result = collect()
    assert result.exit_code == 1
    assert "pip install 'tripletkit[collect]'" in result.stderr


@pytest.fixture
def serve(toy_competition, tiny_backbone, tmp_path):
    with opened_servers(toy_competition.images, tmp_path / "j.sqlite") as serve:
        yield serve


@pytest.mark.slow
@pytest.mark.integration
def test_links_last_and_a_second_server_is_refused(serve, collect):
    server = serve("--judge", "anna", "--judge", "Ben B.")
    assert set(server.links) == {"anna", "Ben B.", "owner"}
    assert server.links["anna"].startswith(f"http://127.0.0.1:{server.port}/")
    second = collect("--no-browser", "--port", "0")
    assert second.exit_code == 1 and "another server is collecting" in second.stderr
    taken = collect("--db", server.database.with_name("other.sqlite"), "--port", server.port)
    assert taken.exit_code == 1 and "cannot be bound" in taken.stderr
    links = {name: link.rpartition("/")[2] for name, link in server.links.items()}
    assert len(set(links.values())) == 3
    assert all(len(token) >= 32 for token in links.values())
    assert stat.S_IMODE(server.database.stat().st_mode) == 0o600
    # It tells nothing of itself, nor of what is tried.
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/owner/guess", timeout=10)
    assert refused.value.code == 404
    assert "waitress" not in str(refused.value.headers).lower()
    said = server.stop()
    assert "Stopped. 0 answers" in said
    assert "not encrypted" not in said and "guess" not in said
    again = serve("--judge", "anna", "--host", "0.0.0.0")
    assert again.links["anna"].rpartition("/")[2] == links["anna"]
    assert "pages at 0.0.0.0 are not encrypted" in again.stop()


@pytest.mark.slow
@pytest.mark.integration
def test_twenty_judges_at_once(toy_competition, capsys, monkeypatch):
    """Every answer is there once, and pages are quick, while a model is trained."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    from collect_load_benchmark import measure

    is_quiet = os.getloadavg()[0] < 1
    found = np.concatenate(list(measure(toy_competition.images, 20, 4).values()))
    # Each of the answers is in the database once, or `measure` had raised.
    assert "80 answers" in capsys.readouterr().out
    # Times of a machine that does other things say nothing of the pages.
    assert np.percentile(found, 95) < (100 if is_quiet else 5000)


@pytest.fixture
def suggest(tripletkit, tiny_backbone, toy_model, toy_competition, tmp_path):
    def suggest(*options):
        arguments = ["suggest", toy_competition.images, "--model", toy_model]
        arguments += ["-o", tmp_path / "ask.txt", *options]
        return tripletkit(*[str(part) for part in arguments])

    return suggest


@pytest.mark.parametrize(("ask", "n"), [("margin", 15), ("random", 40)])
def test_suggest_writes_questions_and_asks_nothing_twice(suggest, tmp_path, ask, n):
    ways, path = ("-n", n, "--ask", ask), tmp_path / "ask.txt"
    assert f"Wrote {n} questions to {path}, chosen by {ask}." in suggest(*ways).stderr
    first, text = read_triplets(path), path.read_text()
    assert len(first) == n and not first.is_degenerate().any()
    shown = np.bincount(first.rows.ravel())
    # At random every image as often.
    assert (shown == 2).all() if ask == "random" else shown.max() <= 2
    again = suggest(*ways)
    assert again.exit_code == 1 and "--force" in again.stderr
    suggest(*ways, "--force")
    assert path.read_text() == text
    path.rename(tmp_path / "asked.txt")
    result = suggest("-n", 100, "--ask", ask, "--not", tmp_path / "asked.txt")
    assert ("100 were asked for" in result.stderr) == (ask == "margin")

    def questions(triplets):
        named = [[triplets.names[i] for i in row] for row in triplets.rows]
        return {(a, frozenset((b, c))) for a, b, c in named}

    second = questions(read_triplets(tmp_path / "ask.txt"))
    assert second and not second & questions(first)


@pytest.mark.parametrize("ask", ["margin", "random"])
def test_suggest_takes_copies_of_an_image_as_one(
    tripletkit, tiny_backbone, toy_model, toy_competition, tmp_path, ask
):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        shutil.copy(toy_competition.images / f"p0{number}.png", folder)
    for number in range(12):
        shutil.copy(folder / "p00.png", folder / f"copy{number}.png")
    asked = tmp_path / "asked.txt"
    asked.write_text("copy3.png p01.png p02.png\n")
    told = ("--not", asked, "--ask", ask, "-n", 1000, "-o", tmp_path / "ask.txt")
    result = tripletkit("suggest", folder, "--model", toy_model, *told)
    assert result.exit_code == 0, result.output
    triplets = read_triplets(tmp_path / "ask.txt")
    of_image = {name for name in triplets.names if name.startswith(("copy", "p00"))}
    assert len(of_image) == 1 and len(triplets.names) <= 5
    rows = [[triplets.names[image] for image in row] for row in triplets.rows]
    same = of_image.pop()
    assert [same, "p01.png", "p02.png"] not in rows and [same, "p02.png", "p01.png"] not in rows


def test_suggest_by_disagreement_needs_members(suggest):
    result = suggest("--ask", "disagreement")
    assert result.exit_code == 2
    assert "--ask disagreement" in result.stderr and "members=5" in result.stderr


def test_members_are_told_apart(tiny_backbone, toy_model):
    rng = np.random.default_rng(0)
    of_toy = tk.load(toy_model).folder.record.settings
    members = [rng.normal(size=(6, 4)) for _ in range(3)]
    joined = np.hstack(members) / 3**0.5
    settings = replace(of_toy, members=3, dim=4)
    for found, expected in zip(split_members(joined, settings, 9), members, strict=True):
        np.testing.assert_allclose(found, expected)
    frozen = rng.normal(size=(6, 9))
    found = split_members(np.hstack([frozen, joined]), replace(settings, frozen_share=0.2), 9)
    assert [each.shape for each in found] == [(6, 13)] * 3
    np.testing.assert_allclose(found[1][:, 9:], members[1])
    compressed = replace(of_toy, recipe="residual", members=3, dim=12)
    assert len(split_members(joined, compressed, 9)) == 1
