"""The choice of parts: useful ones weigh, few triplets leave them alike, scale says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tripletkit.training.parts_trainer import _choose_parts, _choose_steps


def make_margins(n: int, strengths: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Margins of independent parts, each right the oftener the stronger it is."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(size=(len(strengths), n)) + np.array(strengths)[:, None]
    images = rng.integers(0, n, (n, 3))
    return margins, images


def test_stronger_parts_weigh_more_and_useless_ones_nothing() -> None:
    choice = _choose_parts(*make_margins(4000, [1.0, 0.5, -0.5]))
    assert choice.weights[0] > choice.weights[1] > choice.weights[2]
    assert choice.weights[2] == pytest.approx(0, abs=0.01)
    assert choice.weights.sum() == pytest.approx(1)


def test_few_images_leave_parts_more_alike_than_many() -> None:
    margins, images = make_margins(600, [1.0, 0.2])
    many = _choose_parts(margins, images)
    few = _choose_parts(margins, images % 5)
    assert abs(few.weights[0] - 0.5) < abs(many.weights[0] - 0.5)


def test_the_scale_of_a_part_does_not_matter() -> None:
    margins, images = make_margins(500, [1.0, 0.5])
    scaled = margins * np.array([[1.0], [100.0]])
    plain, other = _choose_parts(margins, images), _choose_parts(scaled, images)
    assert other.weights == pytest.approx(plain.weights, abs=1e-3)
    assert other.distance_weights[1] == pytest.approx(
        plain.distance_weights[1] / 100 / (plain.distance_weights @ [1, 0.01]), rel=0.02
    )


def test_the_ensemble_is_better_than_its_best_part_on_other_triplets() -> None:
    margins, images = make_margins(2000, [0.8, 0.7, 0.6])
    choice = _choose_parts(margins, images)
    others, _ = make_margins(5000, [0.8, 0.7, 0.6], seed=9)
    right = np.mean(choice.margins(others) > 0)
    assert right > np.mean(others > 0, axis=1).max() + 0.03


def test_parts_that_say_nothing_do_no_harm() -> None:
    margins, images = make_margins(300, [1.0])
    choice = _choose_parts(np.vstack([margins, np.zeros((1, 300))]), images)
    assert np.isfinite(choice.distance_weights).all()
    assert np.array_equal(choice.margins(np.vstack([margins, margins * 0])) > 0, margins[0] > 0)


def test_parts_that_are_all_wrong_are_weighed_alike() -> None:
    choice = _choose_parts(-np.ones((2, 50)), np.arange(150).reshape(50, 3))
    assert choice.weights.sum() == pytest.approx(1)


def test_steps_are_those_that_answer_most_images_count_alike() -> None:
    margins, images = make_margins(400, [0.2, 0.6, 0.4, 0.1, 0.5])
    owners = np.array([0, 0, 0, 1, 2])
    times = np.bincount(images.ravel())
    right = [
        sum((m > 0) * (1 / times[image]).mean() for m, image in zip(row, images, strict=True))
        for row in margins
    ]
    assert _choose_steps(margins, owners, images).tolist() == [int(np.argmax(right[:3])), 3, 4]


def test_fewer_steps_are_taken_where_more_are_no_better() -> None:
    margins = np.array([[1.0, -1.0, 1.0], [2.0, 3.0, -1.0], [5.0, -5.0, 5.0]])
    images = np.arange(9).reshape(3, 3)
    assert _choose_steps(margins, np.array([0, 0, 0]), images).tolist() == [0]
