"""Features of files: computed once a content, the same whatever stands beside them."""

from __future__ import annotations

import os
import shutil
import time
import warnings

import numpy as np
import pytest
import tiny_backbone as tiny
from PIL import Image

from tripletkit import defaults, open_images
from tripletkit.data import images as image_lists
from tripletkit.errors import DataWarning, ImageNameError, ImageReadError, StoreError
from tripletkit.features import extract
from tripletkit.features.encoder import Encoder, open_encoder
from tripletkit.features.extract import extract_features
from tripletkit.features.feature_parts import FeaturePart
from tripletkit.features.image_views import VIEW_SETS
from tripletkit.features.keras_backbones import make_keras_function
from tripletkit.features.store import FeatureSpace, FeatureStore, clear_store


@pytest.fixture
def space(tiny_backbone):
    return FeatureSpace(tiny_backbone.facts(), tiny_backbone.n_features)


@pytest.fixture(scope="module")
def function(tiny_weights):
    backbone = tiny.register()
    tiny.unregister()
    return make_keras_function(backbone, tiny.build(tiny_weights))


@pytest.fixture
def images(toy_competition):
    """Forty files: more than a batch, and not a whole number of them."""
    return sorted(toy_competition.images.iterdir())[:40]


@pytest.fixture
def run(tiny_backbone, space, function, tmp_path):
    """Extract with a store, and count how often the network had to be loaded."""

    def run(paths, store_name="store", **options):
        with FeatureStore(tmp_path / store_name) as store:
            return extract_features(
                paths,
                tiny_backbone,
                [space],
                store,
                options.pop("compute", function),
                **options,
            )

    return run


def never(_pixels=None):
    raise AssertionError("the network was run although nothing had to be computed")


def test_features_equal_the_network_on_decoded_images(run, images, function):
    values = run(images).values
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
    together = run(images).values
    for index in (0, 17, 39):
        alone = run([images[index]], store_name=f"alone{index}").values
        np.testing.assert_array_equal(alone[0], together[index])
    backwards = run(images[::-1], store_name="backwards").values
    np.testing.assert_array_equal(backwards[::-1], together)


def test_the_same_content_under_two_names_costs_once(run, images, tmp_path):
    copy = tmp_path / "copy.png"
    shutil.copy(images[0], copy)
    result = run([images[0], copy, images[0], images[1]])
    assert len(result.computed) == 2
    np.testing.assert_array_equal(result.values[[0, 0]], result.values[[1, 2]])


def test_a_folder_that_moved_costs_nothing(run, images, tmp_path):
    before = run(images).values
    moved = tmp_path / "moved"
    shutil.copytree(images[0].parent, moved)
    after = run([moved / path.name for path in images], compute=never)
    np.testing.assert_array_equal(after.values, before)


def test_a_image_that_changed_is_computed_again(run, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    red = run([path]).values
    Image.new("RGB", (8, 8), "blue").save(path)
    blue = run([path])
    assert len(blue.computed) == 1
    assert not np.array_equal(red, blue.values)


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
        images,
        compute=compute,
        views=VIEW_SETS["flip"],
        progress=lambda *done: told.append(done),
    )
    assert (len(batches), len(flip.computed)) == (4, 40)
    assert told == [(32, 40), (40, 40)]
    ten = run(images[:8], compute=compute, views=VIEW_SETS["ten-crop"])
    assert (len(batches), len(ten.computed)) == (14, 8)
    np.testing.assert_array_equal(run(images, compute=never).values, plain.values)
    for views, of_all in (("flip", flip.values), ("ten-crop", ten.values)):
        again = run(images[: len(of_all)], compute=never, views=VIEW_SETS[views])
        assert again.computed == frozenset()
        np.testing.assert_array_equal(again.values, of_all)


def test_views_are_averaged_and_the_first_is_that_of_old(run, images):
    plain = run(images).values
    mirrored = run(images, views=VIEW_SETS["flip"][1:]).values
    both = run(images, views=VIEW_SETS["flip"]).values
    assert np.abs(plain - mirrored).max() > 0.01
    np.testing.assert_allclose(both, (plain + mirrored) / 2, rtol=1e-6)


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
    np.testing.assert_array_equal(resumed.values, fresh.values)


def test_images_that_cannot_be_read_are_listed_and_the_rest_kept(run, images, tmp_path):
    broken, twin, gone = tmp_path / "broken.png", tmp_path / "twin.png", tmp_path / "gone.png"
    broken.write_bytes(b"no image")
    shutil.copy(broken, twin)
    result = run([images[0], broken, gone, None, twin, images[1], tmp_path])
    assert len(result.computed) == 2
    assert set(result.problems) == {1, 2, 4, 6}
    for index, name in ((1, "broken.png"), (2, "gone.png"), (4, "twin.png")):
        assert result.problems[index].startswith(f"{tmp_path / name}: ")
    usable = np.isfinite(result.values).all(axis=1)
    assert usable.tolist() == [True, False, False, False, False, True, False]
    again = run([images[0], images[1]], compute=never)
    np.testing.assert_array_equal(again.values, result.values[[0, 5]])


def test_a_image_that_changes_while_it_is_read_is_not_filed_wrongly(
    run, images, tmp_path, monkeypatch
):
    path = tmp_path / "a.png"
    shutil.copy(images[0], path)
    original = extract._read_checked

    def overwrite_first(path, content, backbone, views):
        Image.new("RGB", (8, 8), "blue").save(path)
        return original(path, content, backbone, views)

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
        run(
            images,
            compute=lambda pixels: np.zeros((1, tiny.N_FEATURES), np.float32),
        )
    assert len(n_read) < len(images) / 2


@pytest.fixture
def collect(tiny_backbone, space, tiny_weights, tmp_path, toy_competition):
    def collect(names, skip_bad=False, find_weights=lambda: tiny_weights):
        places = [f"t.txt:{number}" for number in range(1, len(names) + 1)]
        files = open_images(toy_competition.images, names, places, skip_bad=skip_bad)
        source = Encoder((FeaturePart(tiny_backbone, space.facts, find_weights),))
        with FeatureStore(tmp_path / "store") as store:
            return source.load(files, store)

    return collect


def test_a_collection_has_features_in_the_order_of_names(collect):
    one = collect(["p00.png", "p01", "p02.png"])
    other = collect(["p02", "p00"], find_weights=never)
    np.testing.assert_array_equal(other.features, one.features[[2, 0]])
    assert one.is_usable().all()


def test_a_collection_with_a_missing_image_is_refused_or_skipped(collect):
    with pytest.raises(ImageNameError, match=r't\.txt:2: there is no image "no\.png"') as caught:
        collect(["p00.png", "no.png"])
    assert "`skip_bad=True`" in str(caught.value)
    skipped = collect(["p00.png", "no.png"], skip_bad=True)
    assert skipped.is_usable().tolist() == [True, False]
    assert 'there is no image "no.png"' in skipped.problems[1]


def test_a_collection_with_a_broken_image_keeps_the_others(
    collect, toy_competition, tmp_path, monkeypatch
):
    images = tmp_path / "images"
    shutil.copytree(toy_competition.images, images)
    (images / "p01.png").write_bytes(b"no image")
    monkeypatch.setattr(type(toy_competition), "images", images, raising=False)
    with pytest.raises(ImageReadError, match=r"t\.txt:2: .*p01\.png: expected an image"):
        collect(["p00.png", "p01.png", "p02.png"])
    skipped = collect(["p00.png", "p01.png", "p02.png"], skip_bad=True, find_weights=never)
    assert skipped.is_usable().tolist() == [True, False, True]


def test_what_another_process_clears_meanwhile_changes_nothing(run, images, function, tmp_path):
    before = run(images)

    def clear_and_compute(pixels):
        clear_store(tmp_path / "store")
        return function(pixels)

    after = run(images, compute=clear_and_compute, views=VIEW_SETS["flip"])
    again = run(images, views=VIEW_SETS["flip"])
    np.testing.assert_array_equal(after.values, again.values)
    np.testing.assert_array_equal(run(images).values, before.values)


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
    np.testing.assert_array_equal(after.values, before.values)
    assert (len(after.computed), len(batches)) == (1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(run(images, compute=never).values, before.values)


def test_a_network_that_gives_no_numbers_is_a_problem_of_the_image(run, images, function):
    def spoil(pixels):
        features = function(pixels).copy()
        features[3, 1] = np.nan
        return features

    result = run(images[:8], compute=spoil)
    assert result.problems == {3: f"{images[3]}: the backbone gives no finite numbers for it"}
    assert len(result.computed) == 7
    assert np.isnan(result.values[3]).all()
    assert np.isfinite(np.delete(result.values, 3, axis=0)).all()
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
    before = run(images).values
    monkeypatch.setattr(extract, "_LARGE_FILE_BYTES", limit)
    after = run(images, store_name="other")
    np.testing.assert_array_equal(after.values, before)
    if limit == 0:
        path = tmp_path / "a.png"
        shutil.copy(images[0], path)
        original = extract.read_views

        def overwrite_then(*args):
            pixels = original(*args)
            time.sleep(0.02)
            Image.new("RGB", (8, 8), "blue").save(path)
            return pixels

        monkeypatch.setattr(extract, "read_views", overwrite_then)
        assert "changed while it was being read" in run([path], store_name="third").problems[0]


def test_a_content_is_hashed_once_for_all_that_asks_for_it(
    toy_competition, tiny_backbone, tiny_weights, tmp_path, monkeypatch
):
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["a.png", "b.png", "c.png"]
    for name, source in zip(names, ("p00.png", "p01.png", "p00.png"), strict=True):
        shutil.copy(toy_competition.images / source, folder / name)
    hashed = []
    original = image_lists._hash_or_error

    def count(path):
        hashed.append(path.name)
        return original(path)

    monkeypatch.setattr(image_lists, "_hash_or_error", count)
    source = open_encoder(["tiny"], weights={"tiny": tiny_weights})
    with FeatureStore(tmp_path / "store") as store:
        files = open_images(folder, names, names)
        assert files.first_of_same(store).tolist() == [0, 1, 0]
        collection = source.load(files, store)
        # Two names of one image are one image, whose features are counted once.
        assert (collection.n_computed, collection.n_stored) == (2, 0)
        again = source.load(files, store)
        assert (again.n_computed, again.n_stored) == (0, 2)
    assert sorted(hashed) == names


@pytest.mark.timeout(60)
def test_a_pipe_is_refused_and_not_waited_for(run, images, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    result = run([images[0], tmp_path / "pipe.png", tmp_path])
    assert list(result.problems) == [1, 2]
    assert result.problems[1].endswith(
        "pipe.png: expected an image, got a folder, a pipe or a device"
    )
