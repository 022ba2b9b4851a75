"""Mining of hard images among all images, against plain Python loops and as a user sees it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from opened import read_triplets
from plain import DISTANCE_NAMES, NO_LABEL, pair_distances, triplet_margins

from tripletkit import TripletkitError
from tripletkit.evaluation import classification
from tripletkit.evaluation.classification import (
    ClassDistances,
    DistanceDistribution,
    PairwiseDistances,
)
from tripletkit.search import offline_mining
from tripletkit.search.offline_mining import NOBODY, hardest_positives

COLOURS = ["red", "lime", "blue", "yellow", "black", "magenta"]
ALL = ["--positive-quantiles", 0, 1, "--negative-quantiles", 0, 1]
ANY = (0.0, np.inf)


def distance_of(a, b, distance):
    """A distance as a person would write it down."""
    return float(pair_distances(a[None], b[None], distance)[0])


def draw(seed, n_images=60, n_dims=6, n_classes=5):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n_images, n_dims)).astype(np.float32)
    return embeddings, rng.integers(0, n_classes, n_images).astype(np.int32)


@pytest.mark.parametrize("distance", DISTANCE_NAMES)
@pytest.mark.parametrize("block_pairs", [1 << 23, 50])
def test_hardest_positives_equal_a_loop(distance, block_pairs, monkeypatch):
    monkeypatch.setattr(classification, "_BLOCK_PAIRS", block_pairs)
    embeddings, labels = draw(1)
    labels[7], labels[8:11] = 17, NO_LABEL
    embeddings[20] = np.nan
    expected = []
    for anchor, label in enumerate(labels):
        others = np.flatnonzero((labels == label) & (label != NO_LABEL))
        others = [other for other in others if other not in (anchor, 20) and anchor != 20]
        far = [distance_of(embeddings[anchor], embeddings[other], distance) for other in others]
        expected.append(others[int(np.argmax(far))] if others else NOBODY)
    found = hardest_positives(embeddings, labels, distance)
    assert (found.dtype, found.tolist()) == (np.int32, expected)
    assert found[7] == found[8] == found[20] == NOBODY
    assert hardest_positives(embeddings[:0], labels[:0], "l2").shape == (0,)


@pytest.mark.parametrize("distance", DISTANCE_NAMES)
def test_pairwise_distances_equal_those_of_answers(distance, monkeypatch):
    monkeypatch.setattr(classification, "_L1_COLUMNS", 7)
    embeddings, _ = draw(5)
    embeddings = embeddings + np.float32(100)
    distances = PairwiseDistances(embeddings, distance)
    found = distances.measure(slice(3, 20), slice(2, 60))
    expected = [[distance_of(a, b, distance) for b in embeddings[2:60]] for a in embeddings[3:20]]
    atol = {"l2": 2e-3, "cosine": 1e-6}.get(distance, 2e-4)
    np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-5)
    assert found.max() <= distances.limit


@pytest.mark.parametrize("distance", DISTANCE_NAMES)
@pytest.mark.parametrize("block_pairs", [1 << 23, 500])
def test_the_distribution_counts_every_pair_once(distance, block_pairs, monkeypatch):
    monkeypatch.setattr(classification, "_BLOCK_PAIRS", block_pairs)
    embeddings, labels = draw(6, n_classes=7)
    labels[3] = 99
    distribution = DistanceDistribution.of(ClassDistances(embeddings, labels, distance))
    expected = {True: [], False: []}
    for left in range(60):
        for right in range(left):
            pair = distance_of(embeddings[left], embeddings[right], distance)
            expected[bool(labels[left] == labels[right])].append(pair)
    width = distribution.edges[1]
    for counts, values in (
        (distribution.positives, expected[True]),
        (distribution.negatives, expected[False]),
    ):
        assert counts.sum() == len(values)
        found = np.repeat(distribution.edges[:-1], counts) + width / 2
        np.testing.assert_allclose(found, np.sort(values), atol=width)
        for share in (0.01, 0.25, 0.5, 0.95, 1):
            quantile = np.quantile(values, share, method="inverted_cdf")
            assert abs(distribution.quantile(counts, share) - quantile) <= width
    nearer = np.mean(np.array(expected[True])[:, None] < np.array(expected[False]))
    assert distribution.separation == pytest.approx(nearer, abs=1e-4)


def test_the_distribution_of_two_far_classes_has_two_peaks():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(200, 4)).astype(np.float32)
    labels = np.arange(200) % 2
    mixed = DistanceDistribution.of(ClassDistances(embeddings, labels, "l2"))
    embeddings[labels == 1] += 50
    apart = DistanceDistribution.of(ClassDistances(embeddings, labels, "l2"))
    assert (apart.overlap, apart.separation) == (0, 1)
    assert mixed.overlap > 0.85
    assert mixed.separation == pytest.approx(0.5, abs=0.02)
    edges, positives, negatives = apart.coarsen(40)
    assert len(positives) == len(negatives) == len(edges) - 1 <= 40
    assert positives.sum() == 2 * 100 * 99 // 2
    assert negatives.sum() == 100 * 100


def mine_by_a_loop(embeddings, labels, distance, cuts, per_image):
    """The hardest images of each, and which of all its pairs are mixed."""
    found, mixed, n_pairs, mixed_images = [], 0, 0, 0
    positive, negative = cuts
    for anchor in range(len(embeddings)):
        kinds = {True: [], False: []}
        for other in range(len(embeddings)):
            if other != anchor:
                d = distance_of(embeddings[anchor], embeddings[other], distance)
                kinds[bool(labels[other] == labels[anchor])].append((d, other))
        nearest = min(kinds[False])[0]
        mixed += sum(d > nearest for d, _ in kinds[True])
        n_pairs += len(kinds[True])
        mixed_images += bool(kinds[True]) and min(kinds[True])[0] > nearest
        hard = sorted((-d, o) for d, o in kinds[True] if positive[0] <= d <= positive[1])
        near = sorted((d, o) for d, o in kinds[False] if negative[0] <= d <= negative[1])
        found.append(([o for _, o in hard[:per_image]], [o for _, o in near[:per_image]]))
    return found, mixed / n_pairs, mixed_images / 59


def listed(kind):
    return [[int(other) for other in row if other != NOBODY] for row in kind.images]


@pytest.mark.slow
@pytest.mark.parametrize("distance", DISTANCE_NAMES)
@pytest.mark.parametrize(("block_pairs", "group"), [(1 << 23, 64), (200, 3)])
def test_mined_images_equal_a_loop(distance, block_pairs, group, monkeypatch):
    monkeypatch.setattr(classification, "_BLOCK_PAIRS", block_pairs)
    monkeypatch.setattr(offline_mining, "_GROUP", group)
    embeddings, labels = draw(7, n_classes=6)
    labels[3] = 99
    images = ClassDistances(embeddings, labels, distance)
    distribution = DistanceDistribution.of(images)
    cuts = [
        offline_mining._find_cut(distribution, distribution.positives, (0.05, 0.9)),
        offline_mining._find_cut(distribution, distribution.negatives, (0.02, 0.5)),
    ]
    assert offline_mining._find_cut(distribution, distribution.negatives, (0, 1)) == ANY
    told = []
    chosen, mixed = offline_mining._mine_images(
        embeddings, images, cuts, 3, lambda *counts: told.append(counts)
    )
    expected, *shares = mine_by_a_loop(embeddings, labels, distance, cuts, 3)
    for kind, cut, of_kind in zip(chosen, cuts, zip(*expected, strict=True), strict=True):
        assert listed(kind) == list(of_kind)
        assert (np.isnan(kind.distances) == (kind.images == NOBODY)).all()
        known = kind.distances[kind.images != NOBODY]
        assert ((known >= cut[0]) & (known <= cut[1])).all()
    assert list(mixed.values()) == pytest.approx(shares)
    assert told[-1] == (60, 60)


def test_images_of_one_class_are_never_negatives_and_no_image_is_its_own_positive():
    # All alike, as after a collapse: nothing but the labels tells the images apart.
    embeddings = np.ones((12, 3), dtype=np.float32)
    labels = np.arange(12) % 3
    images = ClassDistances(embeddings, labels, "l2")
    (positives, negatives), mixed = offline_mining._mine_images(embeddings, images, (ANY, ANY), 20)
    for anchor in range(12):
        same = [other for other in range(12) if labels[other] == labels[anchor]]
        others = [other for other in range(12) if labels[other] != labels[anchor]]
        assert listed(positives)[anchor] == [other for other in same if other != anchor]
        assert listed(negatives)[anchor] == others
    assert list(mixed.values()) == [0, 0]


def test_triplets_pair_by_rank_and_none_twice():
    embeddings, labels = draw(8, n_classes=3)
    labels[:2], labels[2] = 50, 51
    images = ClassDistances(embeddings, labels, "l1")
    (positives, negatives), _ = offline_mining._mine_images(embeddings, images, (ANY, ANY), 4)
    triplets, margins = offline_mining._pair_hardest(positives, negatives)
    np.testing.assert_allclose(margins, triplet_margins(embeddings, triplets, "l1"), atol=1e-6)
    assert triplets[:4].tolist() == [[0, 1, negative] for negative in negatives.images[0]]
    assert 2 not in triplets[:, 0]
    of_five = triplets[triplets[:, 0] == 5]
    assert of_five[:, 1].tolist() == positives.images[5].tolist()
    assert of_five[:, 2].tolist() == negatives.images[5].tolist()
    assert len(np.unique(triplets, axis=0)) == len(triplets) == 59 * 4
    assert (labels[triplets[:, 0]] == labels[triplets[:, 1]]).all()
    assert (labels[triplets[:, 0]] != labels[triplets[:, 2]]).all()


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [1], []])
def test_classes_that_have_no_triplets_are_refused(labels):
    with pytest.raises(TripletkitError, match="expected images of at least two classes"):
        ClassDistances(np.zeros((len(labels), 2), np.float32), np.array(labels, int), "l2")


def test_the_hardest_triplets_come_first_by_count_or_share():
    margins = np.array([0.3, -1, 0.1, np.nan, 0.1, 2], dtype=np.float32)
    best = [1, 2, 4, 0, 5]
    for keep, expected in ((3, best[:3]), (0.4, best[:2]), (1.0, best), (0.001, [1]), (99, best)):
        assert offline_mining._hardest_triplets(margins, keep).tolist() == expected
    assert offline_mining._hardest_triplets(margins[3:4], 0.5).tolist() == []


@pytest.fixture
def mine(tripletkit, tiny_backbone):
    def run(*arguments, **extra):
        return tripletkit("mine", *arguments, "--backbone", "tiny", **extra)

    return run


def test_the_cuts_are_kept_and_told(mine, labels_file, toy_competition, tmp_path):
    output = tmp_path / "mined.csv"
    result = mine(
        *(labels_file, toy_competition.images, "-o", output, "--json"),
        *("--positive-quantiles", 0.1, 0.8, "--negative-quantiles", 0.2, 0.6),
    )
    summary = json.loads(result.stdout)
    table = pd.read_csv(output)
    assert table["anchor"].is_monotonic_increasing
    for kind, quantiles in (("positives", [0.1, 0.8]), ("negatives", [0.2, 0.6])):
        of_kind = summary[kind]
        mined = table.loc[table["kind"] == kind[:-1], "distance"]
        assert of_kind["quantiles"] == quantiles
        assert of_kind["low"] < of_kind["high"]
        assert mined.between(of_kind["low"] - 1e-6, of_kind["high"] + 1e-6).all()
        assert of_kind["mined"] == len(mined)
    assert summary["positives"]["pairs"] == 6 * 10 * 9 // 2
    assert summary["negatives"]["pairs"] == 15 * 10 * 10
    assert 0 <= summary["overlap"] <= 1


def test_a_folder_for_each_class_and_copies_count_once(mine, toy_competition, tmp_path):
    images = tmp_path / "images"
    for number, label in enumerate(toy_competition.labels):
        folder = images / COLOURS[label]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_competition.images / f"p{number:02}.png", folder)
    plain, copied = tmp_path / "plain.csv", tmp_path / "copied.csv"
    mine(images, images, "-o", plain, *ALL, code=0)
    shutil.copy(images / "red" / "p00.png", images / "red" / "zz a copy.png")
    result = mine(images, images, "-o", copied, *ALL)
    assert "Copies of other images, left out: 1." in result.stderr
    assert plain.read_bytes() == copied.read_bytes()
    shutil.copy(images / "red" / "p00.png", images / "blue" / "zz.png")
    result = mine(images, images, "-o", copied, "--force", code=1)
    assert "expected one label for one image" in result.stderr


def test_a_class_of_one_image_is_said_and_only_a_negative(
    mine, labels_file, toy_competition, tmp_path
):
    text = labels_file.read_text().replace("p07.png,lime", "p07.png,olive")
    labels_file.write_text(text)
    output = tmp_path / "mined.csv"
    result = mine(labels_file, toy_competition.images, "-o", output, "--per-image", 60, *ALL)
    assert "Singleton classes, whose image can only be a negative: 1 (olive)." in result.stderr
    table = pd.read_csv(output)
    assert set(table.loc[table["anchor"] == "p07.png", "kind"]) == {"negative"}
    assert set(table.loc[table["other"] == "p07.png", "kind"]) == {"negative"}
    assert "1" in result.stdout.splitlines()[2].split()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("keep", [37, "25%", "1.0"])
def test_the_hardest_of_ones_own_triplets(mine, tripletkit, toy_competition, tmp_path, keep):
    output, triplets_out, features = (tmp_path / name for name in ("h.csv", "h.txt", "f.npz"))
    tripletkit("embed", toy_competition.images, "--backbone", "tiny", "-o", features, code=0)
    result = mine(
        *("--triplets", toy_competition.train, toy_competition.images, "--keep", keep),
        *("-o", output, "--triplets-out", triplets_out, "--json"),
        code=0,
    )
    asked = read_triplets(toy_competition.train)
    rows = np.array([int(name[1:3]) for name in asked.names])[asked.rows]
    margins = triplet_margins(np.load(features)["vectors"], rows, "cosine")
    n_kept = {"25%": 100, "1.0": 400}.get(keep, keep)
    expected = np.argsort(margins, kind="stable")[:n_kept]
    table = pd.read_csv(output)
    assert (table["line"] - 1).tolist() == expected.tolist()
    np.testing.assert_allclose(table["margin"], margins[expected], atol=1e-6)
    gained = table["to_negative"] - table["to_positive"]
    np.testing.assert_allclose(gained, table["margin"], atol=1e-6)
    lines = toy_competition.train.read_text().splitlines()
    assert triplets_out.read_text().splitlines() == [lines[row] for row in expected]
    summary = json.loads(result.stdout)
    assert (summary["all"]["triplets"], summary["kept"]["triplets"]) == (400, n_kept)
    assert summary["kept"]["highest_margin"] == pytest.approx(margins[expected[-1]], abs=1e-6)


def test_outputs_appear_all_or_none(mine, labels_file, toy_competition, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tripletkit.api.class_labels.write_triplets", fail)
    output, triplets_out = tmp_path / "mined.csv", tmp_path / "hard.txt"
    before = "anchor,other,kind,distance,rank\n"
    output.write_text(before)
    result = mine(
        labels_file,
        toy_competition.images,
        *("-o", output, "--triplets-out", triplets_out, "--force"),
        code=1,
    )
    assert "No space left" in result.stderr
    assert output.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"labels.csv", "mined.csv"}


def test_the_table_of_mined_rows_holds_no_formulas(mine, labels_file, toy_competition, tmp_path):
    images = shutil.copytree(toy_competition.images, tmp_path / "images")
    labels = tmp_path / "formulas.csv"
    table = pd.read_csv(labels_file, dtype=str)
    for name in table["name"]:
        file = next(images.glob(f"{name}*"))
        file.rename(images / f"={file.name}")
    table.assign(name="=" + table["name"]).to_csv(labels, index=False)
    hard = tmp_path / "hard.txt"
    mine(labels, images, "-o", tmp_path / "m.csv", "--triplets-out", hard, code=0)
    mined = pd.read_csv(tmp_path / "m.csv", dtype=str)
    assert mined["anchor"].str.startswith("'=").all()
    assert hard.read_text().startswith("=")


def test_unreadable_images_can_be_left_out(mine, labels_file, toy_competition, tmp_path):
    images = shutil.copytree(toy_competition.images, tmp_path / "images")
    (images / "p03.png").write_text("no image")
    mine(labels_file, images, code=1)
    result = mine(labels_file, images, "--on-bad-image", "skip", "--json")
    assert json.loads(result.stdout)["images"] == 59
    result = mine("--triplets", toy_competition.train, images, "--on-bad-image", "skip", "--json")
    assert json.loads(result.stdout)["all"]["triplets"] < 400
    one = tmp_path / "one.txt"
    one.write_text("p03 p01 p02\n")
    result = mine("--triplets", one, images, "--on-bad-image", "skip", code=1)
    assert "expected triplets of three images that can be read" in result.stderr


def test_wrong_calls_are_refused(mine, labels_file, toy_competition, tmp_path):
    images, train = toy_competition.images, toy_competition.train
    one_class = tmp_path / "one.csv"
    one_class.write_text("name,label\np00.png,a\np01.png,a\n")
    for arguments, exit_code, message in [
        ([images], 2, "expected LABELS before the images, or --triplets"),
        ([labels_file, images, "--triplets", train], 2, "in the place of LABELS"),
        (["--triplets", train, images, "--per-image", 3], 2, "--per-image is for LABELS"),
        (["--triplets", train, images, "--negative-quantiles", 0, 1], 2, "is for LABELS"),
        ([labels_file, images, "--keep", 3], 2, "--keep is for --triplets"),
        (["--triplets", train, images, "--keep", "nan"], 2, "expected a count such as 500"),
        ([labels_file, images, "--positive-quantiles", 0.5, 0.2], 2, "a lower and a higher"),
        ([labels_file, images, "--plot", tmp_path / "p.txt"], 1, "expected a name that ends"),
        ([one_class, images], 1, "expected images of at least two classes"),
    ]:
        result = mine(*arguments)
        assert (result.exit_code, result.stdout) == (exit_code, ""), (arguments, result.stderr)
        assert message in result.stderr, arguments
