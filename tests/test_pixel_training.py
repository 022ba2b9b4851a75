"""Training from pixels: bit for bit the same when it goes on, and frozen means frozen."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tripletkit.data.decoding import read_pixels
from tripletkit.data.labels import ImageLabels
from tripletkit.errors import ImageReadError, ModelFolderError
from tripletkit.features.backbones import get_backbone
from tripletkit.features.keras_backbones import build_backbone, write_random_weights
from tripletkit.model.settings import Settings
from tripletkit.training.pixel_training import (
    _augment,
    _DecodedImages,
    _PixelNetwork,
    _PixelTraining,
    _unfreeze_blocks,
)
from tripletkit.training.trainer import Checkpoints, Examples, keep_best_epoch

# The smallest images that its three halvings leave something of.
CNN = get_backbone("cnn").resized(32)
SETTINGS = Settings.of_recipe("mlp", hidden=16, dim=4, epochs=3, batch_size=16)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "start.weights.h5"
    write_random_weights(CNN, 0, path)
    return path


@pytest.fixture(scope="module")
def rows(toy_competition):
    rng = np.random.default_rng(0)
    labels = toy_competition.labels
    drawn = rng.integers(0, 50, (2000, 3))
    a, p, n = labels[drawn].T
    return drawn[(a == p) & (a != n) & (drawn[:, 0] != drawn[:, 1])][:96].astype(np.int32)


@pytest.fixture(scope="module")
def make(toy_competition, start, rows):
    def make(settings=SETTINGS, labels=None, **options):
        network = _PixelNetwork.from_scratch(CNN, start, settings)
        paths = sorted(toy_competition.images.iterdir())
        return _PixelTraining(
            _DecodedImages(paths, CNN),
            network,
            Examples(np.empty((60, 0)), rows, np.arange(42)[:, None], labels),
            settings,
            **options,
        )

    return make


def assert_same(got, want):
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_learns_and_its_images_have_embeddings(make, rows):
    told = []
    settings = dataclasses.replace(SETTINGS, dropout=0.0, learning_rate=1e-2)
    training = make(settings, on_epoch=lambda _: lambda *done: told.append(done))
    first, _ = training.run_epoch()
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {total for _, total in told} == {told[-1][0]}
    for _ in range(7):
        last, _ = training.run_epoch()
    assert last < 0.5 * first
    embeddings = training.embed()
    needed = np.union1d(rows, np.arange(42))
    np.testing.assert_allclose(np.linalg.norm(embeddings[needed], axis=1), 1, atol=1e-5)
    others = np.setdiff1d(np.arange(60), needed)
    assert len(others) > 0
    assert np.isnan(embeddings[others]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "mining"),
    [("triplet", "none"), ("triplet+cross-entropy", "semi-hard"), ("center", "none")],
)
def test_going_on_from_a_state_is_going_on(make, toy_competition, loss, mining):
    """With Dropout, Adam, a classifier, centers and injected positives: all have a state."""
    labels = ImageLabels(list("abcdef"), toy_competition.labels.astype(np.int32))
    settings = dataclasses.replace(
        SETTINGS, loss=loss, mining=mining, inject_positives=mining != "none", refresh=2
    )
    whole = make(settings, labels)
    whole.run_epoch()
    state = whole.state()
    for _ in range(2):
        whole_losses = whole.run_epoch()
    second = make(settings, labels)
    second.restore(state, 1)
    second.run_epoch()
    after_one = second.weights()
    assert second.run_epoch() == whole_losses
    for name, values in whole.state().items():
        assert_same(second.state()[name], values)
    assert_same(second.weights(), whole.weights())
    # Had the epoch's number been forgotten, its draws would be others.
    second.restore(state, 0)
    second.run_epoch()
    assert any((a != b).any() for a, b in zip(second.weights(), after_one, strict=True))


@pytest.mark.slow
def test_measuring_the_cost_leaves_the_training_where_it_is(make):
    plain, measured = make(), make()
    n_steps, n_shown, seconds_s = measured.measure_cost()
    assert n_steps == 6
    assert seconds_s > 0
    assert n_shown > 60
    assert plain.run_epoch() == measured.run_epoch()
    assert_same(measured.weights(), plain.weights())


def test_images_are_what_the_backbone_takes_kept_or_streamed(toy_images, tmp_path):
    gone = tmp_path / "gone.png"
    paths = [*sorted(toy_images.iterdir()), None, gone]
    gone.write_bytes(paths[0].read_bytes())
    told = []
    kept = _DecodedImages(paths, CNN, progress=lambda *done: told.append(done))
    streamed = _DecodedImages(paths, CNN, keep_bytes=0)
    assert told == [(n, 9) for n in range(1, 10)]
    assert (kept.kept_bytes, streamed.kept_bytes) == (9 * 32 * 32 * 3, 0)
    wanted = np.array([3, 0, 3, 9])
    expected = [read_pixels(paths[index], 32, "bilinear") for index in wanted]
    for images in (kept, streamed):
        np.testing.assert_array_equal(images.read(wanted), expected)
        parts = list(images.batches(wanted, 3))
        assert [len(part) for part in parts] == [3, 1]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    gone.unlink()
    for read in (lambda: streamed.read(wanted), lambda: _DecodedImages(paths, CNN)):
        with pytest.raises(ImageReadError, match=r"gone\.png"):
            read()


@pytest.mark.slow
def test_an_epoch_ends_after_so_many_images(make):
    told = []
    training = make(n_shown=50, on_epoch=lambda _: lambda *done: told.append(done))
    training.run_epoch()
    before, shown = told[-2][0], told[-1][0]
    assert before < 50 <= shown


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet50v2"])
def test_only_the_last_blocks_learn_and_batch_norm_never(name):
    backbone = get_backbone(name).resized(32)
    model = build_backbone(backbone, None)
    _unfreeze_blocks(backbone, model, 1)
    learning = {layer.name for layer in model.layers if layer.trainable_variables}
    last = {"efficientnet-lite0": ("block7", "head_"), "resnet50v2": ("conv5_",)}[name]
    assert learning
    assert all(layer.startswith(last) for layer in learning)
    assert not any("bn" in layer for layer in learning)


@pytest.mark.slow
def test_fine_tuning_changes_the_last_block_and_no_statistics(
    toy_competition, tiny_backbone, tiny_weights, rows
):
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-2)
    keras.utils.set_random_seed(0)
    layers = keras.layers.Dense(4), keras.layers.UnitNormalization()
    head = keras.Sequential([keras.Input((24,)), *layers])
    network = _PixelNetwork.unfrozen(tiny_backbone, tiny_weights, head, 1)
    model = network.backbone_model
    before = {weight.path: weight.numpy() for weight in model.weights}
    images = _DecodedImages(sorted(toy_competition.images.iterdir()), tiny_backbone)
    examples = Examples(np.empty((60, 0)), rows, rows)
    training = _PixelTraining(images, network, examples, dataclasses.replace(settings, shift=0.0))
    embeddings = training.embed()
    # What the network gives before any step is what head and backbone give apart.
    pixels = images.read(np.unique(rows)).astype(np.float32)
    apart = head(model((pixels - 127.5) / 127.5, training=False), training=False)
    np.testing.assert_allclose(embeddings[np.unique(rows)], apart, atol=1e-5)
    # Batch norm by the batch's own statistics would give others.
    in_training, as_kept = (network.encoder(pixels, training=on) for on in (True, False))
    np.testing.assert_array_equal(in_training, as_kept)
    training.run_epoch()
    after = {weight.path: weight.numpy() for weight in model.weights}
    changed = {path for path, value in before.items() if (after[path] != value).any()}
    assert changed == {"widen/kernel"}


@pytest.mark.slow
def test_the_best_epoch_and_patience_survive_a_stop_anywhere(make, tmp_path):
    # Validation by chance, so that it soon stops rising.
    rng = np.random.default_rng(1)
    val_rows = np.stack([rng.permutation(42)[:3] for _ in range(40)])
    settings = dataclasses.replace(SETTINGS, epochs=9, patience=1)

    class Copying(Checkpoints):
        def save(self, *arguments):
            super().save(*arguments)
            copies.append(self.path.read_bytes())

    def run(path):
        training = make(settings)
        checkpoints = Copying(path, {})
        checkpoints.open()
        trained = keep_best_epoch(training, val_rows, settings, checkpoints=checkpoints)
        return trained.best_epoch, len(trained.history), training.weights()

    copies: list[bytes] = []
    want = run(tmp_path / "whole.npz")
    assert want[0] + 1 == want[1] < 9
    for number, content in enumerate(list(copies)):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        got = run(path)
        assert got[:2] == want[:2]
        assert_same(got[2], want[2])


FACTS = {"seed": 0, "margin": 0.2, "images": "ab" * 32}


@pytest.fixture(scope="module")
def whole(make, tmp_path_factory):
    """A checkpoint of one epoch."""
    path = tmp_path_factory.mktemp("whole") / "m.checkpoint.npz"
    settings, none = dataclasses.replace(SETTINGS, epochs=1), np.empty((0, 3), int)
    keep_best_epoch(make(settings), none, settings, checkpoints=Checkpoints(path, FACTS))
    return path


@pytest.fixture
def written(whole, tmp_path):
    return Path(shutil.copy(whole, tmp_path))


def test_a_checkpoint_of_another_training_is_refused_saying_which(written):
    with pytest.raises(ModelFolderError) as caught:
        Checkpoints(written, {"seed": 0, "margin": 0.3, "images": "cd" * 32, "new": 1}).open()
    assert str(caught.value) == (
        f"{written}: expected the checkpoint of this very training, got one of another:\n"
        "  margin: was 0.2, is 0.3\n"
        "  images: was abababababab..., is cdcdcdcdcdcd...\n"
        "  new: was nothing, is 1\n"
        "Call it as before to go on, or begin anew with `overwrite=True`."
    )


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"PK\x03\x04 no archive",
        None,
        lambda text: text.pop("facts"),
        lambda text: text["history"][0].pop("loss"),
        lambda text: text.update(history=3),
        lambda text: text.update(best_epoch=5),
    ],
)
def test_a_broken_checkpoint_is_refused(written, damage):
    if callable(damage):
        with np.load(written) as file:
            arrays = dict(file)
        text = json.loads(bytes(arrays["text"]))
        damage(text)
        text = np.frombuffer(json.dumps(text).encode(), np.uint8)
        np.savez(written, **arrays | {"text": text})
    else:
        whole = written.read_bytes()
        written.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(ModelFolderError, match="cannot be read as one") as caught:
        Checkpoints(written, FACTS).open()
    assert "pickle" not in str(caught.value)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)


def see(pixels, flip=True, shift=0.125, seed=1):
    return _augment(pixels, np.random.default_rng(seed), flip=flip, shift=shift)


def shift_slowly(image, down, right):
    """Move an image pixel by pixel; what comes in repeats its edge."""
    side = len(image)
    moved = np.empty_like(image)
    for row in range(side):
        for column in range(side):
            from_row = min(max(row + down, 0), side - 1)
            from_column = min(max(column + right, 0), side - 1)
            moved[row, column] = image[from_row, from_column]
    return moved


def test_every_image_is_one_of_the_shifts_or_its_mirror_image(pixels):
    seen = see(pixels)
    n_flipped = 0
    for image, got in zip(pixels, seen, strict=True):
        possible = [
            shift_slowly(image, down, right) for down in range(-2, 3) for right in range(-2, 3)
        ]
        is_flipped = any((got[:, ::-1] == each).all() for each in possible)
        assert is_flipped or any((got == each).all() for each in possible)
        n_flipped += is_flipped
    assert 3 < n_flipped < 17


def test_switching_the_flip_off_leaves_the_shifts(pixels):
    np.testing.assert_array_equal(see(pixels, flip=False, shift=0), pixels)
    with_flips, without = see(pixels), see(pixels, flip=False)
    same = (with_flips == without).all(axis=(1, 2, 3))
    mirrored = (with_flips[:, :, ::-1] == without).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 0 < same.sum() < len(pixels)
