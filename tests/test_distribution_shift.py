"""Distribution shift: images unlike those of the training are found, and said with the answers."""

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import mannwhitneyu

import tripletkit as tk
from tripletkit.model.distribution_shift import (
    _MAX_IMAGES,
    _MIN_IMAGES,
    ShiftDetector,
    _chance_of_less,
)

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
    a_third = np.concatenate([draw(rng, 80, range(6)), draw(rng, 40, range(6, 12))])
    assert detector.describe(a_third).startswith("The 120 images are less like those of the tra")


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


def test_ranks_are_compared_as_scipy_does():
    rng = np.random.default_rng(0)
    for shift in (-0.3, 0.0, 0.5):
        some, others = rng.normal(shift, 1, 40).round(1), rng.normal(0, 1, 90).round(1)
        expected = mannwhitneyu(some, others, alternative="less").pvalue
        assert _chance_of_less(some, others) == pytest.approx(expected)


@pytest.mark.slow
def test_answers_and_reports_about_another_kind_of_images_come_with_a_caution(
    tmp_path, undrawn_figures
):
    rng = np.random.default_rng(4)
    features = np.concatenate([draw(rng, 60, range(3)), draw(rng, 20, range(6, 9))])
    known, new = [f"known{n}" for n in range(60)], [f"new{n}" for n in range(20)]
    file = tmp_path / "features.npz"
    np.savez(file, names=np.array(known + new), features=features)
    places = np.arange(60)
    rows = np.stack([places, (places + 3) % 60, (places + 1) % 60], axis=1)
    model = tk.train(rows, names=known, features=file, epochs=1, val_fraction=0)
    model.save(tmp_path / "model")
    for names in (new, new + known[:50]):
        asked = np.add.outer(np.arange(len(names)), np.arange(3)) % len(names)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tk.load(tmp_path / "model", features=file).answer(asked, names=names)
        (said,) = [each for each in caught if each.category is tk.DistributionShiftWarning]
        assert str(said.message).startswith(f"The {len(names)} images are less like those of the")
    (tmp_path / "images").mkdir()
    for name in new[:18]:
        Image.new("RGB", (8, 8), (10 * int(name[3:]), 0, 0)).save(
            tmp_path / "images" / f"{name}.png"
        )
    tk.report(
        tmp_path / "model",
        output=tmp_path / "r.html",
        triplets=pd.DataFrame([new[n : n + 3] for n in range(0, 18, 3)]),
        images=tmp_path / "images",
        features=file,
    )
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The 18 images are less like those of the training" in page
