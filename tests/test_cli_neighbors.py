"""`tripletkit neighbors` as a person and a script see it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tripletkit as tk

NAMES = [f"{colour}{number}.png" for colour in ("blue", "red") for number in range(4)]


@pytest.fixture
def run(tripletkit, tiny_backbone, toy_images):
    def invoke(*arguments, images=toy_images, **extra):
        return tripletkit("neighbors", images, "--backbone", "tiny", *arguments, **extra)

    return invoke


@pytest.fixture
def copied_images(toy_images, tmp_path) -> Path:
    return Path(shutil.copytree(toy_images, tmp_path / "images"))


def names_of(result, query=0):
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)["queries"][query]
    return [neighbor["name"] for neighbor in answer["neighbors"]]


def test_a_query_is_never_its_own_neighbour_under_any_name(run, copied_images, tmp_path):
    shutil.copy(copied_images / "red0.png", copied_images / "a copy.png")
    shutil.copy(copied_images / "red0.png", tmp_path / "outside.png")
    queries = [copied_images / "red0.png", copied_images / "a copy.png", tmp_path / "outside.png"]
    arguments = [part for query in queries for part in ("--query", query)]
    result = run(*arguments, "-k", 20, "--json", images=copied_images)
    found = [names_of(result, query) for query in range(3)]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 7
    assert not {"red0.png", "a copy.png"} & set(found[0])


def test_no_distance_is_below_zero():
    """Vectors of one direction, whose cosine rounds to more than 1."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(40, 7)).astype(np.float32)
    vectors = np.concatenate([directions, directions * 3, directions / 7])
    features = {f"{number:03}.png": vector for number, vector in enumerate(vectors)}
    embedded = tk.pretrained(features=features).embed()
    found = tk.pretrained(features=features).neighbors(embedded, embedded, k=5).to_dict()
    distances = [n["distance"] for query in found["queries"] for n in query["neighbors"]]
    assert min(distances) == 0.0 and not np.signbit(distances).any()


def test_a_query_may_be_outside_and_a_folder(run, toy_images, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (30, 30), ("red", "blue")[number]).save(folder / f"{number}.png")
    answers = json.loads(run("--query", folder, "--json").stdout)["queries"]
    assert [answer["query"] for answer in answers] == [str(folder / f"{n}.png") for n in (0, 1)]
    assert all(len(answer["neighbors"]) == 8 for answer in answers)


def test_labels_say_right_and_wrong(run, toy_images, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\n" + "".join(f"{name},{name[:-5]}\n" for name in NAMES[1:]))
    result = run("--query", toy_images / "red0.png", "--labels", labels, "--json", "-k", 20)
    answer = json.loads(result.stdout)["queries"][0]
    assert answer["label"] == "red"
    by_name = {neighbor["name"]: neighbor for neighbor in answer["neighbors"]}
    assert by_name["red1.png"]["same_label"] is True
    assert by_name["blue1.png"]["same_label"] is False
    assert by_name["blue0.png"]["same_label"] is None
    table = run("--query", toy_images / "red0.png", "--labels", labels, "-k", 1).stdout
    assert table.splitlines()[0].split()[-2:] == ["label", "same"]


def test_collage_is_drawn(run, toy_images, tmp_path):
    run("--query", toy_images / "red0.png", "-k", 3, "--collage", tmp_path / "c.png", code=0)
    with Image.open(tmp_path / "c.png") as image:
        assert image.width > 4 * 144
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_an_index_gives_the_same_and_needs_no_other_image(run, copied_images, tmp_path):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed (tripletkit[search])")
    index = tmp_path / "index.npz"
    arguments = ["--query", copied_images / "red0.png", "--json"]
    exact = run(*arguments, images=copied_images)
    made = run(*arguments, "--index", index, images=copied_images)
    assert "Wrote the index" in made.stderr
    used = run(*arguments, "--index", index, images=copied_images)
    assert "1 from the store" in used.stderr
    assert names_of(exact) == names_of(made) == names_of(used)


def test_an_index_of_another_collection_is_refused_until_forced(run, copied_images, tmp_path):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed (tripletkit[search])")
    arguments = ["--query", copied_images / "red0.png", "--index", tmp_path / "index.npz"]
    run(*arguments, images=copied_images)
    (copied_images / "blue3.png").unlink()
    result = run(*arguments, images=copied_images, code=1)
    assert "expected an index of a collection of 7 images, got 8" in result.stderr
    assert result.stdout == ""
    assert run(*arguments, "--force", images=copied_images).exit_code == 0


def test_without_faiss_the_error_says_what_to_install(run, toy_images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    result = run("--query", toy_images / "red0.png", "--index", tmp_path / "i.npz", code=1)
    assert "pip install 'tripletkit[search]'" in result.stderr


def test_wrong_calls_and_bad_images_are_refused(run, copied_images, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "text.png").write_text("no image")
    query = ["--query", copied_images / "red0.png"]
    for arguments, exit_code, message in [
        ([], 2, "Missing option '--query'"),
        (["--query", tmp_path / "none.png"], 2, "does not exist"),
        ([*query, "-k", 0], 2, "0 is not in the range"),
        ([*query, "--model", tmp_path], 2, "--backbone needs no --model"),
        ([*query, "--collage", tmp_path / "c.txt"], 1, "expected a name that ends in .png"),
        (["--query", empty], 1, "expected a folder of images, there is none"),
        (["--query", tmp_path / "text.png"], 1, "expected an image"),
        (["--query", tmp_path / "text.png", "--on-bad-image", "skip"], 1, "expected an image"),
    ]:
        result = run(*arguments, images=copied_images)
        assert (result.exit_code, result.stdout) == (exit_code, ""), arguments
        assert message in result.stderr
    result = run(*query, images=empty)
    assert (result.exit_code, "expected a folder of images" in result.stderr) == (1, True)


def test_broken_images_can_be_left_out(run, copied_images):
    (copied_images / "red1.png").write_text("no image")
    result = run("--query", copied_images / "red0.png", "--json", images=copied_images, code=1)
    arguments = ["--query", copied_images / "red0.png", "--json", "--on-bad-image", "skip"]
    result = run(*arguments, images=copied_images)
    assert "1 images are left out" in result.stderr
    assert len(names_of(result)) == 6
