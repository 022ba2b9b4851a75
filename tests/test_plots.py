"""Figures: each drawn from real answers, in both themes, the same each time."""

import re
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tripletkit.reporting import figures

KINDS = ["history", "distances", "margins", "map", "confusion"]
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "loss": [0.5, 0.1, 0.02],
        "active": [0.6, 0.2, 0.1],
        "val_accuracy": [0.7, 0.9, 0.8],
        "held_out_accuracy": np.nan,
    }
)


@pytest.fixture
def run(tripletkit, tiny_backbone, toy_model, toy_competition):
    def invoke(*arguments, asked=True):
        known = ["--triplets", toy_competition.test, "--truth", toy_competition.truth]
        arguments = ["plot", arguments[0], toy_model, *arguments[1:], *(known if asked else [])]
        return tripletkit(*arguments)

    return invoke


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "suffix"), [("map", ".png"), *((kind, ".svg") for kind in KINDS)])
def test_every_figure_is_drawn_the_same_each_time(run, labels_file, tmp_path, kind, suffix):
    paths = [tmp_path / f"{number}{suffix}" for number in (1, 2)]
    for path in paths:
        result = run(kind, "-o", path, "--labels", labels_file)
        assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if suffix == ".svg":
        assert ElementTree.parse(paths[0]).getroot().tag.endswith("svg")
    else:
        with Image.open(paths[0]) as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.slow
def test_a_dark_figure_has_a_dark_ground(run, tmp_path):
    run("history", "-o", tmp_path / "h.png", "--dark")
    with Image.open(tmp_path / "h.png") as image:
        ground = image.convert("RGB").getpixel((0, 0))
    assert ground == tuple(bytes.fromhex(figures.DARK.background.removeprefix("#")))


@pytest.mark.slow
def test_without_triplets_those_of_the_training_are_taken(run, toy_competition, tmp_path):
    result = run("margins", "-o", tmp_path / "m.svg", asked=False)
    assert result.exit_code == 0
    assert f"taking those of the training, {toy_competition.train}" in result.stderr


def test_wrong_calls_are_refused_before_any_work(run, toy_competition, tmp_path):
    labels, empty = tmp_path / "labels.csv", tmp_path / "empty"
    labels.write_text("name,label\nnobody.png,x\n")
    empty.mkdir()
    nothing = ["distances", "--images", empty, "--on-bad-image", "skip"]
    for arguments, output, exit_code, message in [
        (["history"], "h.txt", 1, "expected a name that ends in .svg, .png, .pdf"),
        (["confusion"], "c.svg", 2, "confusion needs --labels"),
        (["spiral"], "c.svg", 2, "'spiral' is not one of"),
        (["confusion", "--labels", labels], "c.svg", 1, "expected labels for at least two of"),
        (["map", "--labels", labels], "c.svg", 1, "expected labels for at least one of"),
        (nothing, "d.svg", 1, "images that can be read, got none"),
    ]:
        result = run(*arguments, "-o", tmp_path / output)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert message in result.stderr
    result = run("map", "-o", tmp_path / "m.svg", "--truth", toy_competition.truth, asked=False)
    assert (result.exit_code, "--truth needs --triplets" in result.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "labels.csv"]


@pytest.mark.slow
def test_what_is_all_alike_can_be_drawn():
    history = HISTORY.iloc[:1].assign(loss=0.0)
    figures.render_figure(figures.draw_history(history, 1), "png")
    ties = np.zeros(3)
    figures.render_figure(figures.draw_distances(ties, ties, "l2"), "png")
    for value, distance in ((0, "l2"), (1, "cosine")):
        fifth = SimpleNamespace(low=value, high=value, n=3, accuracy=float(value))
        figures.render_figure(figures.draw_margins(ties + value, [fifth], distance), "png")


@pytest.mark.slow
def test_a_figure_in_other_colours_is_the_one_that_would_be_drawn():
    def without_ids(svg):
        return re.sub(rb"\b[a-z][0-9a-f]{10}\b", b"id", svg)

    fifth = SimpleNamespace(low=0, high=0.5, n=9, accuracy=0.6)
    for draw, data in (
        (figures.draw_history, (HISTORY, 2)),
        (figures.draw_margins, (np.arange(-9.0, 20), [fifth], "l2")),
    ):
        light, dark = (
            figures.render_figure(draw(*data, theme=theme), "svg")
            for theme in (figures.LIGHT, figures.DARK)
        )
        assert b"<image" not in light
        assert without_ids(figures.darken(light)) == without_ids(dark)


def test_pca_keeps_what_lies_in_a_plane():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(50, 2)) * [3, 1]
    basis, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    places = figures.project_embeddings((flat @ basis[:2]).astype(np.float32), "pca")
    assert places.min(axis=0).tolist() == [0, 0] and places.max(axis=0).tolist() == [1, 1]
    expected = flat - flat.mean(axis=0)
    _, _, directions = np.linalg.svd(expected, full_matrices=False)
    along = expected @ directions[0] - (expected @ directions[0]).min()
    along /= along.max()
    assert np.allclose(places[:, 0], along, atol=1e-5) or np.allclose(
        places[:, 0], 1 - along, atol=1e-5
    )
    line = np.array([[1.0], [2.0]], np.float32)
    assert figures.project_embeddings(line, "pca")[:, 1].tolist() == [0, 0]
    assert figures.project_embeddings(np.ones((3, 4), np.float32), "pca").tolist() == [[0, 0]] * 3


def test_umap_is_asked_for_by_name(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "umap", None)
    result = run("map", "-o", tmp_path / "m.svg", "--projection", "umap")
    assert (result.exit_code, "tripletkit[map]" in result.stderr) == (1, True)


SIGNS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.lists(SIGNS | st.text("$\\{}_^%&a ", min_size=1), min_size=2, max_size=4, unique=True))
@example([r"$\alpha_{$", "5 $ or 6 $", r"\$a$", "$$", "_hidden", "a_b^c"])
def test_labels_stand_in_figures_as_they_are(labels):
    labels = [label.strip() or "x" for label in labels]
    counts = np.eye(len(labels), dtype=int)
    places = np.random.default_rng(0).random((2 * len(labels), 2)).astype(np.float32)
    small = [None] * len(places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_add_thumbnail", lambda *_: None)
        drawn = [
            figures.draw_confusion(counts, labels),
            figures.draw_map(places, small, "pca", [*labels, *labels]),
        ]
    for figure in drawn:
        root = ElementTree.fromstring(figures.render_figure(figure, "svg"))
        texts = {" ".join((element.text or "").split()) for element in root.iter()}
        assert {" ".join(label.split()) for label in labels} <= texts
