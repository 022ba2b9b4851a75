"""Pixels for training: kept or streamed, in order, and never more waiting than allowed."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tripletkit import TripletkitError
from tripletkit.data.decoding import read_pixels
from tripletkit.features.backbones import get_backbone
from tripletkit.features.extract import read_ahead
from tripletkit.training.decoded_images import DecodedImages


@pytest.fixture
def paths(toy_images):
    return sorted(toy_images.iterdir())


@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
def test_images_are_what_the_backbone_takes(paths, keep_bytes):
    told = []
    images = DecodedImages(paths, get_backbone("cnn"), keep_bytes, lambda *done: told.append(done))
    assert told == [(n, len(paths)) for n in range(1, len(paths) + 1)]
    assert images.kept_bytes == (len(paths) * 32 * 32 * 3 if keep_bytes else 0)
    got = images.read(np.array([3, 0, 3]))
    want = [read_pixels(paths[index], 32, "bilinear") for index in (3, 0, 3)]
    np.testing.assert_array_equal(got, want)
    parts = list(images.batches(np.arange(len(paths)), 3))
    assert [len(part) for part in parts] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate(parts), images.read(np.arange(len(paths))))


@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
def test_what_is_missing_or_broken_is_known_at_once(paths, tmp_path, keep_bytes):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images = DecodedImages([paths[0], None, broken, paths[1]], get_backbone("cnn"), keep_bytes)
    assert images.is_usable().tolist() == [True, False, False, True]
    assert list(images.problems) == [2]
    assert str(broken) in images.problems[2]
    want = read_pixels(paths[1], 32, "bilinear")
    np.testing.assert_array_equal(images.read(np.array([3]))[0], want)


def test_a_image_that_goes_away_while_training_streams_is_an_error(paths, tmp_path):
    gone = tmp_path / "gone.png"
    gone.write_bytes(paths[0].read_bytes())
    streamed = DecodedImages([gone], get_backbone("cnn"), keep_bytes=0)
    gone.unlink()
    with pytest.raises(TripletkitError, match=r"gone\.png"):
        streamed.read(np.array([0]))


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
    for result in read_ahead(square, range(20), 4):
        with lock:
            at_work -= 1
        got.append(result)
    assert got == [number * number for number in range(20)]
    assert most <= 4


def test_an_error_in_a_thread_is_raised_and_nothing_goes_on():
    started = []

    def fail(number):
        started.append(number)
        if number == 2:
            raise ValueError("two")
        return number

    with pytest.raises(ValueError, match="two"):
        list(read_ahead(fail, range(100), 3))
    assert len(started) < 10
