"""`tripletkit collect` and `suggest` as commands: wrong calls, links, warnings, one server."""

from __future__ import annotations

import re
import shutil
import stat
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from collect_server import CollectServer
from opened import read_triplets

from tripletkit.api.judging import _split_members as split_members
from tripletkit.model.settings import Settings


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
        (["--screen", "grid", "--overlap", "2"], "excludes --ask, --overlap"),
        (["--offline", "page.html"], "--offline needs one --judge"),
        (["--judge", "  "], "expected a name"),
        (["--judge", "x" * 41], "expected a name"),
        (["--port", "70000"], "--port"),
        (["-n", "0"], "-n"),
    ],
)
def test_wrong_calls(collect, options, said, tmp_path):
    result = collect(*options)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not (tmp_path / "j.sqlite").exists()


def test_images_or_answers_are_needed(tripletkit, tmp_path):
    result = tripletkit("collect", code=2)
    assert "Missing argument 'IMAGES'" in result.stderr


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


def test_gold_must_be_among_the_images(collect, tmp_path):
    gold = tmp_path / "gold.txt"
    gold.write_text("p00 p01 nobody\n")
    result = collect("--gold", gold, "--judge", "anna", "--offline", tmp_path / "p.html")
    assert result.exit_code == 1
    assert "gold.txt:1" in result.stderr


def test_the_offline_page_is_not_written_over(collect, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("mine")
    result = collect("--judge", "anna", "--offline", page)
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert page.read_text() == "mine"


@pytest.mark.slow
@pytest.mark.integration
class TestServer:
    @pytest.fixture
    def serve(self, toy_competition, tiny_backbone, tmp_path):
        servers = []

        def serve(*options):
            servers.append(CollectServer(toy_competition.images, tmp_path / "j.sqlite", *options))
            return servers[-1]

        yield serve
        for server in servers:
            if server.process.poll() is None:
                server.kill()

    def test_links_last_and_a_second_server_is_refused(self, serve, collect):
        server = serve("--judge", "anna", "--judge", "Ben B.")
        assert set(server.links) == {"anna", "Ben B.", "owner"}
        result = collect("--no-browser", "--port", "0")
        assert result.exit_code == 1
        assert "another server is collecting" in result.stderr
        links = {name: link.rpartition("/")[2] for name, link in server.links.items()}
        assert len(set(links.values())) == 3
        assert all(len(token) >= 32 for token in links.values())
        assert stat.S_IMODE(server.database.stat().st_mode) == 0o600
        assert "Stopped. 0 answers" in server.stop()
        again = serve("--judge", "anna")
        assert again.links["anna"].rpartition("/")[2] == links["anna"]

    def test_everybody_has_a_link_where_nobody_is_named(self, serve):
        server = serve()
        assert set(server.links) == {"everybody", "owner"}
        with urllib.request.urlopen(server.links["everybody"], timeout=60) as reply:
            assert "What is your name?" in reply.read().decode()

    def test_it_listens_at_home_alone_and_warns_elsewhere(self, serve, collect):
        server = serve("--judge", "anna")
        assert server.links["anna"].startswith(f"http://127.0.0.1:{server.port}/")
        taken = collect("--db", server.database.with_name("other.sqlite"), "--port", server.port)
        assert taken.exit_code == 1
        assert "cannot be bound" in taken.stderr
        assert "not encrypted" not in server.stop()
        outside = serve("--host", "0.0.0.0", "--judge", "anna")
        assert "pages at 0.0.0.0 are not encrypted" in outside.stop()

    def test_the_server_tells_nothing_of_itself(self, serve):
        server = serve("--judge", "anna")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/owner/guess", timeout=10)
        assert refused.value.code == 404
        assert "waitress" not in str(refused.value.headers).lower()
        assert "guess" not in server.stop()


@pytest.fixture
def suggest(tripletkit, tiny_backbone, toy_model, toy_competition, tmp_path):
    def suggest(*options):
        arguments = ["suggest", toy_competition.images, "--model", toy_model]
        arguments += ["-o", tmp_path / "ask.txt", *options]
        return tripletkit(*[str(part) for part in arguments])

    return suggest


@pytest.mark.slow
def test_suggest_writes_questions_that_other_tools_can_ask(suggest, tmp_path):
    result = suggest("-n", 15)
    assert result.exit_code == 0, result.output
    assert "Wrote 15 questions" in result.stderr and "margin" in result.stderr
    triplets = read_triplets(tmp_path / "ask.txt")
    assert len(triplets) == 15
    assert not triplets.is_degenerate().any()
    used = np.bincount(triplets.rows.ravel())
    assert used.max() <= 2
    again = suggest("-n", 15)
    assert again.exit_code == 1 and "--force" in again.stderr
    first = (tmp_path / "ask.txt").read_text()
    suggest("-n", 15, "--force")
    assert (tmp_path / "ask.txt").read_text() == first


@pytest.mark.parametrize("ask", ["margin", "random"])
def test_suggest_asks_nothing_twice(suggest, tmp_path, ask):
    suggest("-n", 15, "--ask", ask)
    (tmp_path / "asked.txt").write_text((tmp_path / "ask.txt").read_text())
    result = suggest("-n", 100, "--force", "--ask", ask, "--not", tmp_path / "asked.txt")
    assert ("100 were asked for" in result.stderr) == (ask == "margin")

    def questions(name):
        triplets = read_triplets(tmp_path / name)
        named = [[triplets.names[i] for i in row] for row in triplets.rows]
        return {(a, frozenset((b, c))) for a, b, c in named}

    assert questions("ask.txt") and not questions("ask.txt") & questions("asked.txt")


def test_suggest_at_random_shows_every_image_alike(suggest, tmp_path):
    result = suggest("-n", 40, "--ask", "random")
    assert result.exit_code == 0, result.output
    used = np.bincount(read_triplets(tmp_path / "ask.txt").rows.ravel())
    assert (used.min(), used.max()) == (2, 2)


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


def test_members_are_told_apart():
    rng = np.random.default_rng(0)
    members = [rng.normal(size=(6, 4)) for _ in range(3)]
    joined = np.hstack(members) / 3**0.5
    settings = Settings(members=3, dim=4)
    for found, expected in zip(split_members(joined, settings, 9), members, strict=True):
        np.testing.assert_allclose(found, expected)
    frozen = rng.normal(size=(6, 9))
    settings = Settings(members=3, dim=4, frozen_share=0.2)
    found = split_members(np.hstack([frozen, joined]), settings, 9)
    assert [each.shape for each in found] == [(6, 13)] * 3
    np.testing.assert_allclose(found[1][:, 9:], members[1])
    compressed = Settings(recipe="residual", members=3, dim=12)
    assert len(split_members(joined, compressed, 9)) == 1


def test_help_shows_every_command(tripletkit):
    text = tripletkit("--help").stdout
    for command in ("collect", "suggest", "judges", "export-judgements"):
        assert re.search(rf"^  {command} +\w", text, re.M)
