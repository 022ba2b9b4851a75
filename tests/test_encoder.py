"""Encoders: features computed once a content, of one backbone or several, of views and depths."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_backbone as tiny
from PIL import Image

from tripletkit import TripletkitError, defaults, open_images
from tripletkit.data.decoding import read_pixels
from tripletkit.errors import DataWarning, StoreError
from tripletkit.features import extract
from tripletkit.features.backbones import BACKBONES, Preprocessing, get_backbone
from tripletkit.features.encoder import (
    assign_weights,
    check_backbone_names,
    open_encoder,
    open_recorded_encoder,
)
from tripletkit.features.extract import VIEW_SETS, choose_views, get_view
from tripletkit.features.store import FeatureStore, clear_store

# As the first version wrote it into model.json, word for word.
OLD_FEATURES = {
    "backbone": "efficientnet-lite0",
    "input_size_px": 224,
    "resample": "bicubic",
    "reverse_channels": False,
    "mean": [127.0, 127.0, 127.0],
    "divisor": 128.0,
    "pixels_version": 1,
    "weights_sha256": "0123456789abcdef" * 4,
}
OLD_FINGERPRINT = "aaaf9534cb0769d4edc65f5862ba2c5406d38fcc8a485ec019a216359d15621d"

NAMES = [f"p{number:02}.png" for number in range(40)]


@pytest.fixture
def load(toy_competition, tiny_networks, tmp_path):
    """Load features with a store that has the networks of the tiny backbones already."""

    def load(source, names=NAMES, store="store", **policy):
        if not (tmp_path / store).exists():
            shutil.copytree(tiny_networks, tmp_path / store / tiny_networks.name)
        places = [f"t.txt:{name}" for name in names]
        files = open_images(toy_competition.images, names, places, **policy)
        with FeatureStore(tmp_path / store) as opened:
            return source.load(files, opened)

    return load


def reopen(source, facts=None, **given):
    """Return an encoder as the record of a model in a folder tells of it."""
    facts = facts or json.loads(json.dumps(source.facts))
    return open_recorded_encoder(facts, source.weights_files, source.n_features, Path("m"), **given)


@pytest.fixture
def two(other_backbone):
    return open_encoder(["tiny", "tiny-other"])


def test_a_record_of_the_first_version_means_what_it_meant():
    source = open_recorded_encoder(OLD_FEATURES, [None], 1280, Path("m"))
    (part,) = source.parts
    assert part.backbone == get_backbone("efficientnet-lite0")
    assert part.space.facts == OLD_FEATURES
    assert source.views == (extract.ORIGINAL,)
    assert source.fingerprint == f"features {OLD_FINGERPRINT}"
    assert part.space.fingerprint == OLD_FINGERPRINT


def test_one_backbone_is_recorded_as_the_first_version_did(tiny_backbone, tiny_weights):
    source = open_encoder(["tiny"], weights={None: tiny_weights})
    weights_sha256 = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    assert source.facts == {**tiny_backbone.facts(), "weights_sha256": weights_sha256}
    assert source.weights_files == [str(tiny_weights)]
    assert source.fingerprint == f"features {source.parts[0].space.fingerprint}"


@pytest.mark.slow
@pytest.mark.parametrize("views", ["original", "flip", "ten-crop"])
def test_joined_features_equal_a_plain_loop(load, two, views):
    source = open_encoder(["tiny", "tiny-other"], views=[views])
    features = load(source).features
    of_view = {
        (name, view): load(replace(open_encoder([name]), views=(view,))).features
        for name in ("tiny", "tiny-other")
        for view in VIEW_SETS[views]
    }
    for row in range(len(NAMES)):
        expected = []
        for name in ("tiny", "tiny-other"):
            mean = sum(of_view[name, view][row] for view in VIEW_SETS[views]) / len(
                VIEW_SETS[views]
            )
            expected += list(mean / np.sqrt((mean.astype(float) ** 2).sum()))
        np.testing.assert_allclose(features[row], expected, rtol=1e-5, atol=1e-7)


def test_a_part_without_any_feature_stays_zero_and_a_missing_one_is_missing(two):
    some, none = np.ones((2, 24), np.float32), np.zeros((2, 24), np.float32)
    none[1] = np.nan
    joined = two._join([some, none])
    assert joined.dtype == np.float32
    np.testing.assert_allclose(joined[0, :24], 24**-0.5, rtol=1e-6)
    assert (joined[0, 24:] == 0).all()
    assert np.isnan(joined[1]).all()


@pytest.mark.slow
def test_only_the_part_that_is_missing_is_computed(load, two, monkeypatch):
    assert load(open_encoder(["tiny"])).n_computed == 40
    assert load(open_encoder(["tiny-other"]), NAMES[:10]).n_computed == 10
    assert load(two).n_computed == 30
    assert load(two).n_computed == 0
    built = []
    monkeypatch.setattr(tiny, "build_other", lambda weights: built.append(weights))
    assert load(open_encoder(["tiny"], views=["flip"])).n_computed == 40
    assert built == []


def test_features_stand_in_the_order_of_names(load, tiny_backbone):
    one = load(open_encoder(["tiny"]), ["p00.png", "p01", "p02.png"])
    assert one.is_usable().all()
    other = load(open_encoder(["tiny"]), ["p02", "p00"])
    np.testing.assert_array_equal(other.features, one.features[[2, 0]])


def test_missing_and_broken_images_are_named_once_or_left_out(
    load, two, toy_competition, tmp_path, monkeypatch
):
    images = shutil.copytree(toy_competition.images, tmp_path / "images")
    (images / NAMES[1]).write_bytes(b"no image")
    monkeypatch.setattr(type(toy_competition), "images", images, raising=False)
    with pytest.raises(TripletkitError, match=r"t\.txt:p01\.png: .*expected an image") as caught:
        load(two, NAMES[:3])
    assert str(caught.value).count("p01.png: expected") == 1
    with pytest.raises(TripletkitError, match=r't\.txt:no\.png: there is no image "no\.png"'):
        load(two, ["p00.png", "no.png"])
    skipped = load(two, [*NAMES[:3], "no.png"], skip_bad=True)
    assert skipped.is_usable().tolist() == [True, False, True, False]
    assert (sorted(skipped.problems), skipped.n_computed) == ([1, 3], 0)


@pytest.mark.parametrize("names", [["tiny"], ["tiny", "tiny-other"], ["tiny-other", "tiny"]])
@pytest.mark.parametrize("views", ["original", "flip", "five-crop"])
def test_an_encoder_comes_back_from_its_record(other_backbone, tiny_weights, names, views):
    source = open_encoder(names, weights={"tiny": tiny_weights}, views=[views])
    again = reopen(source)
    assert again == source
    assert again.facts == source.facts
    assert again.fingerprint == source.fingerprint
    assert source.n_features == again.n_features == 24 * len(names)
    assert [part.find_weights() for part in again.parts] == [tiny_weights] * len(names)


def test_what_gives_other_features_has_another_fingerprint(other_backbone):
    sources = [
        open_encoder(names, views=[views])
        for names in (["tiny"], ["tiny-other"], ["tiny", "tiny-other"], ["tiny-other", "tiny"])
        for views in VIEW_SETS
    ]
    assert len({source.fingerprint for source in sources}) == len(sources)


def test_weights_of_a_model_of_two_are_asked_for_by_name(other_backbone, tiny_weights, tmp_path):
    moved = tmp_path / "moved.weights.h5"
    tiny.write_weights(moved)
    strange = tmp_path / "strange.weights.h5"
    tiny.write_weights(strange, seed=6)
    source = open_encoder(["tiny", "tiny-other"], weights={"tiny-other": moved})
    assert source.weights_files == [None, str(moved)]
    moved = moved.rename(tmp_path / "there.weights.h5")

    def find(given):
        first, second = reopen(source, weights=given).parts
        return first.find_weights(), second.find_weights()

    with pytest.raises(TripletkitError, match=r"which is gone.*`weights=tiny-other=FILE`"):
        find({})
    assert find({"tiny-other": moved}) == (tiny_weights, moved)
    with pytest.raises(TripletkitError, match=r"strange.*got others.*`weights=tiny-other=FILE`"):
        find({"tiny-other": strange})
    with pytest.raises(TripletkitError, match="expected a backbone among tiny, tiny-other"):
        find({"resnet50": moved})


def test_weights_go_to_the_backbone_that_they_are_for():
    a, b = Path("a.h5"), Path("b.h5")
    assert assign_weights(["x"], {}) == [None]
    assert assign_weights(["x"], {None: a}) == assign_weights(["x"], {"x": a}) == [a]
    assert assign_weights(["x", "y"], {"y": b, "x": a}) == [a, b]
    assert assign_weights(["x", "y"], {"y": b}) == [None, b]
    for names, given, message in (
        (["x", "y"], {None: a}, r"`weights=a.h5`: expected NAME=FILE.*\(x, y\)"),
        (["x"], {"y": a}, "`weights=y=a.h5`: expected a backbone among x"),
        (["auto"], {None: a}, "`weights` needs `backbone`"),
    ):
        with pytest.raises(TripletkitError, match=message):
            assign_weights(names, given)


def test_backbones_that_cannot_stand_side_by_side_are_refused(tiny_backbone):
    check_backbone_names(["auto"])
    check_backbone_names(["tiny", "resnet50"])
    for names, message in (
        (["tiny", "tiny"], '"tiny" is there twice'),
        (["auto", "tiny"], '"auto" chooses one backbone'),
        (["tiny", "resnet51"], 'Did you mean "resnet50"'),
        (["tiny", ""], 'got ""'),
    ):
        with pytest.raises(TripletkitError, match=message):
            check_backbone_names(names)


@pytest.mark.slow
def test_depths_are_the_layers_own_statistics(load, toy_competition, tiny_backbone, tiny_weights):
    """Mean and deviation over the map of each stage, each of length 1, behind the last features."""
    plain = load(open_encoder(["tiny"])).features
    features = load(open_encoder(["tiny"], depth="all")).features
    early = load(open_encoder(["tiny"], depth="early"), store="early").features

    model = tiny.build(tiny_weights)
    maps = keras.Model(
        model.inputs, [model.get_layer(s.layer).output for s in tiny_backbone.stages]
    )
    folder = toy_competition.images
    pixels = np.stack([read_pixels(folder / name, tiny.SIDE_PX, "bilinear") for name in NAMES])
    pieces = [plain]
    for values in maps([pixels / np.float32(127.5) - 1]):
        flat = np.asarray(values).reshape(len(NAMES), -1, values.shape[-1])
        pieces += [flat.mean(axis=1), flat.std(axis=1)]
    expected = np.hstack([piece / np.linalg.norm(piece, axis=1)[:, None] for piece in pieces])
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(early, features[:, plain.shape[1] :])


def test_depths_are_computed_together_and_stored_apart(load, tiny_backbone):
    everything = load(open_encoder(["tiny"], depth="all"))
    assert everything.n_computed == len(NAMES)
    for depth in ("last", "early"):
        assert load(open_encoder(["tiny"], depth=depth)).n_computed == 0


def test_a_depth_comes_back_from_its_record(tiny_backbone, tmp_path, load):
    source = open_encoder(["tiny"], depth="all")
    again = reopen(source)
    assert again.facts == source.facts
    assert again.fingerprint != open_encoder(["tiny"]).fingerprint
    assert list(again.columns) == ["tiny", "tiny:stem_relu", "tiny:widen"]
    assert again.columns["tiny:widen"] == slice(48, 96)
    load(source)
    assert load(again).n_computed == 0
    features = json.loads(json.dumps(source.facts))
    features["parts"][1]["stage"]["layer"] = "gone"
    with pytest.raises(TripletkitError, match=r'expected a stage among .*, got "gone"'):
        reopen(source, features)


def test_a_depth_that_is_not_there_is_refused(tiny_backbone, monkeypatch):
    with pytest.raises(TripletkitError, match='among last, early, all, got "deep"'):
        open_encoder(["tiny"], depth="deep")
    bare = replace(tiny_backbone, name="tiny-bare", stages=())
    monkeypatch.setitem(BACKBONES, bare.name, bare)
    with pytest.raises(TripletkitError, match="tiny-bare: names no stages"):
        open_encoder([bare.name], depth="early")


@pytest.fixture
def encoder(tiny_backbone):
    return open_encoder(["tiny"])


@pytest.fixture
def function(encoder, tiny_cache):
    return encoder.network_functions(tiny_cache)[0]


@pytest.fixture
def images(toy_competition):
    """Forty files: more than a batch, and not a whole number of them."""
    return sorted(toy_competition.images.iterdir())[:40]


@pytest.fixture
def run(encoder, function, tmp_path):
    """Extract with a store."""
    (part,) = encoder.parts

    def run(paths, store_name="store", compute=function, **options):
        with FeatureStore(tmp_path / store_name) as store:
            return extract.extract_features(
                paths, part.backbone, [part.space], store, compute, **options
            )

    return run


def never(_pixels=None):
    raise AssertionError("the network was run although nothing had to be computed")


def test_features_equal_the_network_on_decoded_images(run, images, function):
    values = run(images).features
    pixels = np.stack(
        [
            np.asarray(Image.open(path).resize((32, 32), Image.Resampling.BILINEAR))
            for path in images
        ]
    )
    filler = np.zeros((24, 32, 32, 3), np.uint8)
    batches = np.concatenate([pixels, filler]).reshape(2, 32, 32, 32, 3)
    expected = np.concatenate([function(batch) for batch in batches])[:40]
    np.testing.assert_array_equal(values, expected)


def test_features_of_a_image_are_the_same_alone_and_among_others(run, images):
    together = run(images).features
    for index in (0, 17, 39):
        alone = run([images[index]], store_name=f"alone{index}").features
        np.testing.assert_array_equal(alone[0], together[index])
    backwards = run(images[::-1], store_name="backwards").features
    np.testing.assert_array_equal(backwards[::-1], together)


def test_the_same_content_under_two_names_costs_once(run, images, tmp_path):
    copy = tmp_path / "copy.png"
    shutil.copy(images[0], copy)
    result = run([images[0], copy, images[0], images[1]])
    assert len(result.computed) == 2
    np.testing.assert_array_equal(result.features[[0, 0]], result.features[[1, 2]])


def test_a_image_that_changed_is_computed_again(run, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    red = run([path]).features
    Image.new("RGB", (8, 8), "blue").save(path)
    blue = run([path])
    assert len(blue.computed) == 1
    assert not np.array_equal(red, blue.features)


@pytest.fixture
def n_batches(function):
    """Count the batches that the network gets, in a list."""
    batches = []

    def count(pixels):
        batches.append(len(pixels))
        return function(pixels)

    return batches, count


def test_each_view_is_computed_once(run, images, n_batches):
    batches, compute = n_batches
    told = []
    plain = run(images, compute=compute)
    assert len(batches) == 2
    flip = run(
        images, compute=compute, views=VIEW_SETS["flip"], progress=lambda *done: told.append(done)
    )
    assert (len(batches), len(flip.computed)) == (4, 40)
    assert told == [(32, 40), (40, 40)]
    ten = run(images[:8], compute=compute, views=VIEW_SETS["ten-crop"])
    assert (len(batches), len(ten.computed)) == (14, 8)
    np.testing.assert_array_equal(run(images, compute=never).features, plain.features)
    for views, of_all in (("flip", flip.features), ("ten-crop", ten.features)):
        again = run(images[: len(of_all)], compute=never, views=VIEW_SETS[views])
        assert again.computed == frozenset()
        np.testing.assert_array_equal(again.features, of_all)


def test_a_run_that_breaks_off_loses_at_most_one_batch_of_a_view(
    run, images, n_batches, monkeypatch
):
    batches, compute = n_batches
    original = FeatureStore.write

    def break_off(store, *args):
        if len(batches) == 3:
            raise KeyboardInterrupt
        original(store, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "write", break_off)
        with pytest.raises(KeyboardInterrupt):
            run(images, compute=compute, views=VIEW_SETS["flip"])
    batches.clear()
    # Both views of 32 images were stored, and the batch that was under way is lost.
    resumed = run(images, compute=compute, views=VIEW_SETS["flip"])
    assert (len(batches), len(resumed.computed)) == (2, 8)
    fresh = run(images, store_name="fresh", views=VIEW_SETS["flip"])
    np.testing.assert_array_equal(resumed.features, fresh.features)


def test_images_that_cannot_be_read_are_listed_and_the_rest_kept(run, images, tmp_path):
    broken, twin, gone = tmp_path / "broken.png", tmp_path / "twin.png", tmp_path / "gone.png"
    broken.write_bytes(b"no image")
    shutil.copy(broken, twin)
    result = run([images[0], broken, gone, None, twin, images[1], tmp_path])
    assert len(result.computed) == 2
    assert set(result.problems) == {1, 2, 4, 6}
    for index, name in ((1, "broken.png"), (2, "gone.png"), (4, "twin.png")):
        assert result.problems[index].startswith(f"{tmp_path / name}: ")
    usable = np.isfinite(result.features).all(axis=1)
    assert usable.tolist() == [True, False, False, False, False, True, False]
    again = run([images[0], images[1]], compute=never)
    np.testing.assert_array_equal(again.features, result.features[[0, 5]])


def test_a_image_that_changes_while_it_is_read_is_not_filed_wrongly(
    run, images, tmp_path, monkeypatch
):
    path = tmp_path / "a.png"
    shutil.copy(images[0], path)
    original = extract._read_checked

    def overwrite_first(path, *given):
        Image.new("RGB", (8, 8), "blue").save(path)
        return original(path, *given)

    monkeypatch.setattr(extract, "_read_checked", overwrite_first)
    result = run([path])
    assert "changed while it was being read" in result.problems[0]
    monkeypatch.undo()
    shutil.copy(images[0], path)
    assert len(run([path]).computed) == 1


def test_a_failing_store_stops_the_decoding(run, images, monkeypatch):
    n_read = []
    original = extract._read_checked

    def slowly(*args):
        n_read.append(args)
        time.sleep(0.02)
        return original(*args)

    def fail(*_):
        raise StoreError("full")

    monkeypatch.setattr(extract, "_read_checked", slowly)
    monkeypatch.setattr(FeatureStore, "write", fail)
    monkeypatch.setattr(defaults, "EXTRACT_BATCH_SIZE", 1)
    with pytest.raises(StoreError, match="full"):
        run(images, compute=lambda pixels: np.zeros((1, tiny.N_FEATURES), np.float32))
    assert len(n_read) < len(images) / 2


def test_what_another_process_clears_meanwhile_changes_nothing(run, images, function, tmp_path):
    before = run(images)

    def clear_and_compute(pixels):
        clear_store(tmp_path / "store")
        return function(pixels)

    after = run(images, compute=clear_and_compute, views=VIEW_SETS["flip"])
    again = run(images, views=VIEW_SETS["flip"])
    np.testing.assert_array_equal(after.features, again.features)
    np.testing.assert_array_equal(run(images).features, before.features)


def test_a_damaged_vector_is_computed_again_and_said(run, images, n_batches, tmp_path):
    batches, compute = n_batches
    before = run(images)
    with FeatureStore(tmp_path / "store") as store:
        (vector,) = store._database.execute(
            "SELECT vector FROM features WHERE rowid = 7"
        ).fetchone()
        flipped = bytes([vector[0] ^ 1, *vector[1:]])
        store._database.execute("UPDATE features SET vector = ? WHERE rowid = 7", (flipped,))
    with pytest.warns(DataWarning, match="stored features of 1 images are damaged"):
        after = run(images, compute=compute)
    np.testing.assert_array_equal(after.features, before.features)
    assert (len(after.computed), len(batches)) == (1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(run(images, compute=never).features, before.features)


def test_a_network_that_gives_no_numbers_is_a_problem_of_the_image(run, images, function):
    def spoil(pixels):
        features = function(pixels).copy()
        features[3, 1] = np.nan
        return features

    result = run(images[:8], compute=spoil)
    assert result.problems == {3: f"{images[3]}: the backbone gives no finite numbers for it"}
    assert len(result.computed) == 7
    assert np.isnan(result.features[3]).all()
    assert np.isfinite(np.delete(result.features, 3, axis=0)).all()
    # Nothing of it was stored.
    assert len(run(images[:8]).computed) == 1


def test_a_file_that_is_not_what_the_store_says_is_right_the_next_time(
    run, images, tmp_path, monkeypatch
):
    """Whatever made the store wrong about a file, `run the command again` has to help."""
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10_000_000_000)
    path = images[0]
    with FeatureStore(tmp_path / "store") as store:
        store.remember_files([(path, path.stat(), b"\x00" * 32)])
    assert "changed while it was being read; run the command again" in run([path]).problems[0]
    assert run([path]).problems == {}


@pytest.mark.parametrize("limit", [0, 1 << 26])
def test_a_large_file_is_read_as_a_small_one_is(run, images, monkeypatch, tmp_path, limit):
    before = run(images).features
    monkeypatch.setattr(extract, "_LARGE_FILE_BYTES", limit)
    after = run(images, store_name="other")
    np.testing.assert_array_equal(after.features, before)
    if limit == 0:
        path = tmp_path / "a.png"
        shutil.copy(images[0], path)
        original = extract._read_views

        def overwrite_then(*args):
            pixels = original(*args)
            time.sleep(0.02)
            Image.new("RGB", (8, 8), "blue").save(path)
            return pixels

        monkeypatch.setattr(extract, "_read_views", overwrite_then)
        assert "changed while it was being read" in run([path], store_name="third").problems[0]


@pytest.mark.timeout(60)
def test_a_pipe_is_refused_and_not_waited_for(run, images, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    result = run([images[0], tmp_path / "pipe.png", tmp_path])
    assert list(result.problems) == [1, 2]
    assert result.problems[1].endswith(
        "pipe.png: expected an image, got a folder, a pipe or a device"
    )


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def look(image, size_px, views):
    return extract._read_views(image, size_px, Preprocessing("bicubic"), VIEW_SETS[views])


def test_views_are_the_image_crops_of_256_and_their_mirror_images(image):
    original, mirrored = look(image, 48, "flip")
    np.testing.assert_array_equal(original, read_pixels(image, 48, "bicubic"))
    np.testing.assert_array_equal(mirrored, original[:, ::-1])
    views = look(image, 224, "ten-crop")
    resized = Image.open(image).resize((256, 256), Image.Resampling.BICUBIC)
    corners = [(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)]
    crops = [np.asarray(resized.crop((x, y, x + 224, y + 224))) for x, y in corners]
    np.testing.assert_array_equal(views, crops + [crop[:, ::-1] for crop in crops])
    np.testing.assert_array_equal(look(image, 224, "five-crop"), views[:5])


def test_views_have_one_order_and_each_counts_once():
    chosen = choose_views(["five-crop", "flip", "original"])
    assert chosen == choose_views(["original", "original", "flip", "five-crop"])
    assert [view.name for view in chosen[:3]] == ["original", "flip", "crop-top-left"]
    assert len({view.name for view in chosen}) == len(chosen) == 7
    assert [get_view(view.name) for view in chosen] == list(chosen)


def test_an_unknown_view_is_named():
    with pytest.raises(
        TripletkitError, match=r'five-crop, ten-crop, got "flips".*Did you mean "flip"'
    ):
        choose_views(["original", "flips"])
    with pytest.raises(TripletkitError, match=r'got "crop-7".*Update tripletkit'):
        get_view("crop-7")


def test_results_come_in_order_and_few_wait():
    lock, at_work, most = threading.Lock(), 0, 0

    def square(number):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.002 * (number % 3))
        return number * number

    got = []
    for result in extract.read_ahead(square, range(20), 4):
        with lock:
            at_work -= 1
        got.append(result)
    assert got == [number * number for number in range(20)]
    assert most <= 4
