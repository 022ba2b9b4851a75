"""Distribution shift: images unlike those of the training are found, and said with the answers."""

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tripletkit as tk
from tripletkit.model.distribution_shift import (
    _MAX_IMAGES,
    _MIN_IMAGES,
    ShiftDetector,
    _chance_of_less,
)
from tripletkit.model.model_folder import load_model
from tripletkit.reporting import model_view, page

N_FEATURES = 48


def draw(rng, n_images, kinds):
    """Return features around centers: kind after kind, as many of each."""
    centers = np.random.default_rng(9).normal(size=(12, N_FEATURES)) * 3
    noise = rng.normal(size=(n_images, N_FEATURES))
    return (centers[np.arange(n_images) % len(kinds) + kinds[0]] + noise).astype(np.float32)


def test_images_of_the_same_kinds_pass_and_others_do_not():
    rng = np.random.default_rng(0)
    detector = ShiftDetector.of(draw(rng, 300, range(6)))
    said = [detector.describe(draw(rng, 60, range(6))) for _ in range(40)]
    # A false alarm in twenty is what the test is for.
    assert sum(each is not None for each in said) <= 6
    assert "60 of them unlike all" in detector.describe(draw(rng, 60, range(6, 12)))


def test_a_third_of_new_classes_is_found():
    rng = np.random.default_rng(6)
    detector = ShiftDetector.of(draw(rng, 300, range(6)))
    asked = np.concatenate([draw(rng, 80, range(6)), draw(rng, 40, range(6, 12))])
    assert detector.describe(asked).startswith("The 120 images are less like those of the training")


def test_the_nearest_cosine_is_that_of_a_loop():
    rng = np.random.default_rng(1)
    training, asked = draw(rng, 90, range(3)), draw(rng, 40, range(1, 5))
    detector = ShiftDetector.of(training)

    def unit(vector):
        return vector / np.linalg.norm(vector)

    mean = np.mean([unit(vector) for vector in training], axis=0)

    def cosine(one, other):
        return float(unit(unit(one) - mean) @ unit(unit(other) - mean))

    found = detector.nearest(asked)
    for vector, nearest in zip(asked, found, strict=True):
        # What the projection may change.
        assert nearest == pytest.approx(max(cosine(vector, known) for known in training), abs=0.15)
    others = [max(cosine(training[0], known) for known in training[1:])]
    assert detector.known[:1] == pytest.approx(others, abs=0.15)


def test_it_is_kept_to_the_byte(tmp_path):
    rng = np.random.default_rng(2)
    training, asked = draw(rng, 80, range(4)), draw(rng, 80, range(2, 8))
    for name in ("one.npz", "two.npz"):
        ShiftDetector.of(training).save(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    kept = ShiftDetector.load(tmp_path / "one.npz")
    assert kept.describe(asked) == ShiftDetector.of(training).describe(asked)


def test_few_images_many_images_and_images_that_cannot_be_used():
    rng = np.random.default_rng(3)
    assert ShiftDetector.of(draw(rng, _MIN_IMAGES - 1, range(3))) is None
    detector = ShiftDetector.of(draw(rng, _MAX_IMAGES + 50, range(3)))
    assert len(detector.images) == _MAX_IMAGES
    broken = np.full((2, N_FEATURES), np.nan, np.float32)
    assert detector.describe(np.repeat(broken, 20, axis=0)) is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shift")
    rng = np.random.default_rng(4)
    features = np.concatenate([draw(rng, 60, range(3)), draw(rng, 20, range(6, 9))])
    names = [f"known{n}" for n in range(60)] + [f"new{n}" for n in range(20)]
    np.savez(folder / "features.npz", names=np.array(names), features=features)
    places = np.arange(60)
    rows = np.stack([places, (places + 3) % 60, (places + 1) % 60], axis=1)
    model = tk.train(
        rows, names=names[:60], features=folder / "features.npz", epochs=1, val_fraction=0
    )
    return model.save(folder / "model"), folder


def ask(trained, names):
    model, folder = trained
    rows = np.add.outer(np.arange(len(names)), np.arange(3))
    model = tk.load(folder / "model", features=folder / "features.npz")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.answer(rows % len(names), names=names)
    return [str(each.message) for each in caught if each.category is tk.DistributionShiftWarning]


@pytest.mark.slow
def test_answers_about_another_kind_of_images_come_with_a_caution(trained):
    new = [f"new{n}" for n in range(20)]
    (message,) = ask(trained, new)
    assert message.startswith("The 20 images are less like those of the training")
    assert len(ask(trained, [*new, *(f"known{n}" for n in range(50))])) == 1


@pytest.mark.slow
def test_a_report_about_another_kind_of_images_says_so(trained):
    _, folder = trained
    (folder / "images").mkdir()
    for n in range(18):
        Image.new("RGB", (8, 8), (10 * n, 0, 0)).save(folder / "images" / f"new{n}.png")
    rows = [[f"new{n}", f"new{n + 1}", f"new{n + 2}"] for n in range(0, 18, 3)]
    view, *_ = model_view.open_views(
        [load_model(folder / "model")],
        triplets=pd.DataFrame(rows),
        images=folder / "images",
        features=folder / "features.npz",
    )
    (said,) = [each for each in page._list_warnings([view]) if "less like" in each]
    assert said.startswith("The 18 images are less like those of the training")


def test_ranks_are_compared_as_scipy_does():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    for shift in (-0.3, 0.0, 0.5):
        some, others = rng.normal(shift, 1, 40).round(1), rng.normal(0, 1, 90).round(1)
        expected = mannwhitneyu(some, others, alternative="less").pvalue
        assert _chance_of_less(some, others) == pytest.approx(expected)
