"""examples/tfds_to_folder.py, with TFDS's own mock data and with a small set of JPEGs."""

from __future__ import annotations

import io
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from tripletkit import TripletkitError
from tripletkit.data.labels import read_labels

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = [
    pytest.mark.skipif(find_spec("tensorflow_datasets") is None, reason="needs tripletkit[tfds]"),
    # Of TFDS under this TensorFlow and numpy; nothing of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import tfds_to_folder

    return tfds_to_folder


def draw_jpeg(number):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), (number * 20 % 256, 80, 160)).save(buffer, "JPEG", quality=71)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def make_builder(tmp_path_factory):
    """Return a function that prepares a small set, split by split, of (image, class)."""
    import tensorflow_datasets as tfds

    class SmallSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        splits: ClassVar = {}
        image = tfds.features.Image(shape=(None, None, 3))
        further: ClassVar = {}

        def _info(self):
            label = tfds.features.ClassLabel(names=["rose", "a/b", "none of these", "Rose"])
            features = {"photo": self.image, "kind": label} | self.further
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name) for name in self.splits}

        def _generate_examples(self, split):
            for number, (data, kind) in enumerate(self.splits[split]):
                yield number, {"photo": io.BytesIO(data), "kind": kind}

    def make(splits, **changes):
        kind = type("SmallSet", (SmallSet,), {"splits": splits} | changes, skip_registration=True)
        builder = kind(data_dir=str(tmp_path_factory.mktemp("tfds")))
        if not changes:
            builder.download_and_prepare()
        return builder

    return make


@pytest.mark.slow
def test_images_are_kept_byte_for_byte(script, make_builder, tmp_path, monkeypatch, capsys):
    splits = {
        "train": [(draw_jpeg(number), number % 2) for number in range(7)],
        "test": [(draw_jpeg(9), 3), (draw_jpeg(10), -1)],
    }
    builder = make_builder(splits)
    monkeypatch.setattr(script, "open_builder", lambda name, _: {"small_set": builder}[name])
    monkeypatch.setattr(sys, "argv", ["tfds_to_folder.py", "small_set", str(tmp_path / "small")])
    script.main()
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"{tmp_path}/small/train: 7 images of 2 classes",
        f"{tmp_path}/small/test: 1 images of 1 classes, 1 without a label left out",
    ]
    files = sorted(path.relative_to(tmp_path).parts[1:] for path in tmp_path.rglob("*.*"))
    assert [parts[:2] for parts in files] == (
        [("test", "Rose_3")] + [("train", "a_b")] * 3 + [("train", "rose")] * 4
    )
    assert {parts[2][5:] for parts in files} == {".jpg"}
    for split, class_name, index in (("train", "rose", 0), ("train", "a_b", 1)):
        found = {path.read_bytes() for path in (tmp_path / "small" / split / class_name).iterdir()}
        assert found == {data for data, kind in splits[split] if kind == index}
    assert not list((tmp_path / "small" / "test").glob("none*"))
    labels = read_labels(tmp_path / "small" / "train", tmp_path / "small")
    assert Counter(labels.values()) == Counter(rose=4, a_b=3)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_nothing_is_overwritten_or_left_when_it_fails(script, make_builder, tmp_path, monkeypatch):
    builder = make_builder({"train": [(draw_jpeg(number), 0) for number in range(4)]})
    with pytest.raises(TripletkitError, match="is there already"):
        script.write_folder(builder, tmp_path)
    with pytest.raises(TripletkitError, match="does not exist; make it first"):
        script.write_folder(builder, tmp_path / "none" / "there")
    read = script.read_encoded

    def failing(*arguments):
        yield from list(read(*arguments))[:2]
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "read_encoded", failing)
    with pytest.raises(KeyboardInterrupt):
        script.write_folder(builder, tmp_path / "small")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_other_sets_are_refused(script, make_builder, tmp_path):
    import tensorflow_datasets as tfds

    grey = tfds.features.Image(shape=(None, None, 1))
    deep = tfds.features.Image(shape=(None, None, 3), dtype=np.uint16)
    for changes, message in (
        ({"further": {"mask": grey}}, r"expected one Image .* got 2 .*photo.*mask"),
        ({"image": deep}, "expected images of 8 bits, got uint16"),
    ):
        with pytest.raises(script.DatasetError, match=message):
            script.write_folder(make_builder({}, **changes), tmp_path / "small")
    with pytest.raises(script.DatasetError, match="no_such_set"):
        script.open_builder("no_such_set", tmp_path)


def test_class_names_become_safe_and_stay_distinct(script):
    names = ["rose", "AC/DC", "Rose", "..", "aux", "", "ROSE", "寿司"]
    names += ["a:b", "a?b", ".hidden", "x" * 300]
    safe = script.safe_names(names)
    assert safe[:4] == ["rose", "AC_DC", "Rose_2", "_"]
    assert safe[7] == "寿司"
    assert len({name.casefold() for name in safe}) == len(names)
    assert all(name and name[0] != "." and not set(name) & set('/\\:?*"<>|') for name in safe)


def test_a_format_that_few_programs_read_becomes_png(script):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    data, suffix = script.as_file(buffer.getvalue())
    assert suffix == ".png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))
