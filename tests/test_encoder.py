"""Encoders: one backbone as ever, or several and views of an image, joined."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_backbone as tiny

from tripletkit import TripletkitError, open_images
from tripletkit.data.decoding import read_pixels
from tripletkit.features.backbones import BACKBONES, get_backbone
from tripletkit.features.encoder import EncoderRecord, open_encoder, open_recorded_encoder
from tripletkit.features.extract import _view_space
from tripletkit.features.feature_parts import assign_weights, check_backbone_names
from tripletkit.features.image_views import ORIGINAL, VIEW_SETS
from tripletkit.features.store import FeatureStore
from tripletkit.features.weights_files import file_sha256

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
def load(toy_competition, tmp_path):
    def load(source, names=NAMES, store="store", **policy):
        places = [f"t.txt:{name}" for name in names]
        files = open_images(toy_competition.images, names, places, **policy)
        with FeatureStore(tmp_path / store) as opened:
            return source.load(files, opened)

    return load


@pytest.fixture
def two(other_backbone):
    return open_encoder(["tiny", "tiny-other"])


def test_a_record_of_the_first_version_means_what_it_meant():
    source = open_recorded_encoder(EncoderRecord(OLD_FEATURES, [None], 1280), Path("m"))
    (part,) = source.parts
    assert part.backbone == get_backbone("efficientnet-lite0")
    assert part.space.facts == OLD_FEATURES
    assert source.views == (ORIGINAL,)
    assert source.fingerprint == f"features {OLD_FINGERPRINT}"
    assert part.space.fingerprint == OLD_FINGERPRINT
    assert _view_space(part.space, ORIGINAL).fingerprint == OLD_FINGERPRINT


def test_one_backbone_is_recorded_as_the_first_version_did(tiny_backbone, tiny_weights):
    source = open_encoder(["tiny"], weights={None: tiny_weights})
    weights_sha256 = file_sha256(tiny_weights)
    assert source.facts == {**tiny_backbone.facts(), "weights_sha256": weights_sha256}
    assert source.record.weights_files == [str(tiny_weights)]
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


@pytest.mark.slow
def test_a_broken_image_is_named_once(load, two, toy_competition, tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for name in NAMES[:3]:
        (tmp_path / "images" / name).write_bytes((toy_competition.images / name).read_bytes())
    (tmp_path / "images" / NAMES[1]).write_bytes(b"no image")
    monkeypatch.setattr(type(toy_competition), "images", tmp_path / "images", raising=False)
    with pytest.raises(TripletkitError, match=r"t\.txt:p01\.png: .*expected an image") as caught:
        load(two, NAMES[:3])
    assert str(caught.value).count("p01.png: expected") == 1
    skipped = load(two, NAMES[:3], skip_bad=True)
    assert skipped.is_usable().tolist() == [True, False, True]
    assert (len(skipped.problems), skipped.n_computed) == (1, 0)


@pytest.mark.parametrize("names", [["tiny"], ["tiny", "tiny-other"], ["tiny-other", "tiny"]])
@pytest.mark.parametrize("views", ["original", "flip", "five-crop"])
def test_an_encoder_comes_back_from_its_record(other_backbone, tiny_weights, names, views):
    source = open_encoder(names, weights={"tiny": tiny_weights}, views=[views])
    features = json.loads(json.dumps(source.facts))
    again = open_recorded_encoder(source.record._replace(features=features), Path("m"))
    assert again == source
    assert again.facts == features
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
    assert source.record.weights_files == [None, str(moved)]
    moved = moved.rename(tmp_path / "there.weights.h5")

    def find(given):
        first, second = open_recorded_encoder(source.record, tmp_path / "m", weights=given).parts
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
    features = json.loads(json.dumps(source.facts))
    again = open_recorded_encoder(source.record._replace(features=features), tmp_path / "m")
    assert again.facts == source.facts
    assert again.fingerprint != open_encoder(["tiny"]).fingerprint
    assert list(again.columns) == ["tiny", "tiny:stem_relu", "tiny:widen"]
    assert again.columns["tiny:widen"] == slice(48, 96)
    load(source)
    assert load(again).n_computed == 0
    features["parts"][1]["stage"]["layer"] = "gone"
    with pytest.raises(TripletkitError, match=r'expected a stage among .*, got "gone"'):
        open_recorded_encoder(source.record._replace(features=features), tmp_path / "m")


def test_a_depth_that_is_not_there_is_refused(tiny_backbone, monkeypatch):
    with pytest.raises(TripletkitError, match='among last, early, all, got "deep"'):
        open_encoder(["tiny"], depth="deep")
    bare = replace(tiny_backbone, name="tiny-bare", stages=())
    monkeypatch.setitem(BACKBONES, bare.name, bare)
    with pytest.raises(TripletkitError, match="tiny-bare: names no stages"):
        open_encoder([bare.name], depth="early")
