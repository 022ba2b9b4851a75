"""Training from pixels: bit for bit the same when it goes on, and frozen means frozen."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

from tripletkit.data.labels import ImageLabels
from tripletkit.errors import ModelFolderError, OutputError
from tripletkit.features.backbones import get_backbone
from tripletkit.features.weights_files import build_backbone, write_random_weights
from tripletkit.model.heads import build_head
from tripletkit.model.model_folder import check_model_output
from tripletkit.model.settings import Settings
from tripletkit.training.decoded_images import DecodedImages
from tripletkit.training.epochs import Checkpoints, keep_best_epoch
from tripletkit.training.pixel_training import (
    _augment,
    _PixelNetwork,
    _PixelTraining,
    _unfreeze_blocks,
)
from tripletkit.training.trainer import Examples

# The smallest images that its three halvings leave something of.
CNN = get_backbone("cnn").resized(32)
SETTINGS = Settings.of_recipe("mlp", hidden=16, dim=4, epochs=3, batch_size=16)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "start.weights.h5"
    write_random_weights(CNN, 0, path)
    return path


@pytest.fixture
def rows(toy_competition):
    rng = np.random.default_rng(0)
    labels = toy_competition.labels
    drawn = rng.integers(0, 50, (2000, 3))
    a, p, n = labels[drawn].T
    return drawn[(a == p) & (a != n) & (drawn[:, 0] != drawn[:, 1])][:96].astype(np.int32)


@pytest.fixture
def make(toy_competition, start, rows):
    def make(settings=SETTINGS, labels=None, **options):
        network = _PixelNetwork.from_scratch(CNN, start, settings)
        paths = sorted(toy_competition.images.iterdir())
        return _PixelTraining(
            DecodedImages(paths, CNN),
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
    cost = measured.measure_cost()
    assert cost.n_steps == 6
    assert cost.seconds > 0
    assert cost.n_shown > cost.n_embedded
    assert plain.run_epoch() == measured.run_epoch()
    assert_same(measured.weights(), plain.weights())


@pytest.mark.slow
def test_streamed_images_teach_what_kept_ones_do(make, toy_competition):
    kept, streamed = make(), make()
    paths = sorted(toy_competition.images.iterdir())
    streamed._decoded = DecodedImages(paths, CNN, keep_bytes=0)
    assert streamed.run_epoch() == kept.run_epoch()
    assert_same(streamed.weights(), kept.weights())


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
    head = build_head(24, 16, 4, dropout=0.0)
    network = _PixelNetwork.unfrozen(tiny_backbone, tiny_weights, head, 1)
    model = network.backbone_model
    before = {weight.path: weight.numpy() for weight in model.weights}
    images = DecodedImages(sorted(toy_competition.images.iterdir()), tiny_backbone)
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
    changed = {path for path, value in before.items() if (model_value(model, path) != value).any()}
    assert changed == {"widen/kernel"}


def model_value(model, path):
    (weight,) = (weight for weight in model.weights if weight.path == path)
    return weight.numpy()


def run(make, path, epochs, facts=None, **settings):
    chosen = dataclasses.replace(SETTINGS, epochs=epochs, **settings)
    training = make(chosen)
    checkpoints = Checkpoints(path, facts or {"seed": 0})
    n_epochs = checkpoints.open()
    trained = keep_best_epoch(training, np.empty((0, 3), int), chosen, checkpoints=checkpoints)
    return n_epochs, trained, training.weights()


@pytest.mark.slow
def test_a_checkpoint_is_all_that_going_on_needs(make, tmp_path):
    _, whole, weights = run(make, tmp_path / "whole.npz", 4)
    path = tmp_path / "m.checkpoint.npz"
    assert run(make, path, 2)[0] == 0
    n_epochs, resumed, again = run(make, path, 4)
    assert n_epochs == 2
    assert_same(again, weights)
    assert [repr(record) for record in resumed.history] == [repr(r) for r in whole.history]
    # Nothing is left to do: the best weights come from the file alone.
    n_epochs, finished, again = run(make, path, 4)
    assert (n_epochs, finished.best_epoch) == (4, 4)
    assert_same(again, weights)


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


@pytest.mark.slow
def test_a_checkpoint_of_another_training_is_refused_saying_which(make, tmp_path):
    path = tmp_path / "m.checkpoint.npz"
    run(make, path, 1, {"seed": 0, "margin": 0.2, "images": "ab" * 32})
    with pytest.raises(ModelFolderError) as caught:
        Checkpoints(path, {"seed": 0, "margin": 0.3, "images": "cd" * 32, "new": 1}).open()
    assert str(caught.value) == (
        f"{path}: expected the checkpoint of this very training, got one of another:\n"
        "  margin: was 0.2, is 0.3\n"
        "  images: was abababababab..., is cdcdcdcdcdcd...\n"
        "  new: was nothing, is 1\n"
        "Call it as before to go on, or begin anew with `overwrite=True`."
    )


@pytest.fixture(scope="module")
def kept() -> dict[str, bytes]:
    """Of a checkpoint that several tests damage, so that one training makes it."""
    return {}


@pytest.fixture
def written(make, tmp_path, kept):
    path = tmp_path / "m.checkpoint.npz"
    if not kept:
        run(make, path, 1)
        kept["whole"] = path.read_bytes()
    path.write_bytes(kept["whole"])
    return path


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_broken_checkpoint_is_refused(written, damage):
    path, whole = written, written.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(ModelFolderError, match="cannot be read as one") as caught:
        Checkpoints(path, {"seed": 0}).open()
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.pop("facts"),
        lambda text: text["history"][0].pop("loss"),
        lambda text: text.update(history=3),
        lambda text: text.update(best_epoch=5),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(written, change):
    path = written
    with np.load(path) as file:
        arrays = dict(file)
    text = json.loads(bytes(arrays["text"]))
    change(text)
    np.savez(path, **arrays | {"text": np.frombuffer(json.dumps(text).encode(), np.uint8)})
    with pytest.raises(ModelFolderError, match="cannot be read as one: it holds something else"):
        Checkpoints(path, {"seed": 0}).open()


def test_an_interrupted_training_is_not_overwritten_unasked(tmp_path):
    model = tmp_path / "m"
    check_model_output(model, begins_anew=True)
    (tmp_path / "m.checkpoint.npz").write_bytes(b"something")
    check_model_output(model, overwrite=True, begins_anew=True)
    check_model_output(model)
    with pytest.raises(OutputError, match="Go on with `resume`"):
        check_model_output(model, begins_anew=True)


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


def test_nothing_asked_for_changes_nothing(pixels):
    np.testing.assert_array_equal(see(pixels, flip=False, shift=0), pixels)


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
    with_flips, without = see(pixels), see(pixels, flip=False)
    same = (with_flips == without).all(axis=(1, 2, 3))
    mirrored = (with_flips[:, :, ::-1] == without).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 0 < same.sum() < len(pixels)
