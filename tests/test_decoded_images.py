"""Work ahead in threads: in order, and never more waiting than allowed."""

from __future__ import annotations

import threading
import time

import pytest

from tripletkit.features.extract import read_ahead


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
