"""Shortest decimal text of many float32 numbers at once.

Python's `repr` and numpy's `astype(str)` write one number at a time, about a microsecond each,
which is most of the time that an answer file of millions of rows would take. Here digits are
found by arithmetic on whole arrays.
"""

from __future__ import annotations

import numpy as np

# "-0.0000123456789" is the longest text of the plain range, "-1.1754944e-38" of the rest.
WIDTH = 16
# Outside, plain notation would be long or its arithmetic inexact; such margins are rare.
_PLAIN_RANGE = (1e-5, 1e6)
# Six digits tell any two short decimals apart, nine bring any float32 back.
_FEWEST_DIGITS, _MOST_DIGITS = 6, 9
_POWERS = 10 ** np.arange(19, dtype=np.int64)


def format_decimals(values: np.ndarray) -> np.ndarray:
    """Write float32 numbers as the shortest decimals that read back as the same numbers.

    Args:
        values: `(n,)` float32, finite or NaN.
    Returns:
        `(n, WIDTH)` uint8, ASCII text with NUL for unused places; nothing but NUL for NaN.
    Example:
        >>> text = format_decimals(np.float32([0.1, -2.5, 0, np.nan]))
        >>> [bytes(row[row > 0]).decode() for row in text]
        ['0.1', '-2.5', '0.0', '']
    """
    values = np.asarray(values, dtype=np.float32)
    size = np.abs(values.astype(np.float64))
    is_plain = (size >= _PLAIN_RANGE[0]) & (size < _PLAIN_RANGE[1])
    digits, n_decimals = _shortest_digits(np.where(is_plain, size, 0))
    text = _plain_text(digits, n_decimals, values < 0)
    if (rare := np.flatnonzero(~is_plain & (size != 0))).size:
        words = np.where(np.isnan(values[rare]), b"", values[rare].astype(f"S{WIDTH}"))
        text[rare] = words.astype(f"S{WIDTH}").view(np.uint8).reshape(-1, WIDTH)
    return text


def _shortest_digits(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return integers and numbers of decimals so that `digits / 10**n_decimals` is the size."""
    digits = np.zeros(len(size), dtype=np.int64)
    n_decimals = np.ones(len(size), dtype=np.int64)
    pending = np.flatnonzero(size)
    exponent = np.floor(np.log10(size[pending])).astype(np.int64)
    for n_digits in range(_FEWEST_DIGITS, _MOST_DIGITS + 1):
        places = np.maximum(n_digits - 1 - exponent, 1)
        scale = _POWERS[places].astype(np.float64)
        rounded = np.rint(size[pending] * scale)
        digits[pending], n_decimals[pending] = rounded, places
        # Both are exact in float64, so the quotient is what a reader of the text would get.
        is_open = (rounded / scale).astype(np.float32) != size[pending].astype(np.float32)
        pending, exponent = pending[is_open], exponent[is_open]
    while (padded := np.flatnonzero((digits % 10 == 0) & (n_decimals > 1))).size:
        digits[padded] //= 10
        n_decimals[padded] -= 1
    return digits, n_decimals


def _plain_text(digits: np.ndarray, n_decimals: np.ndarray, is_negative: np.ndarray) -> np.ndarray:
    """Lay digits out from the right: decimals, the point, the whole part, the sign."""
    text = np.zeros((len(digits), WIDTH), dtype=np.uint8)
    place = np.zeros(len(digits), dtype=np.int64)
    n_left = np.maximum(n_decimals + 1, _count_digits(digits))
    for column in range(WIDTH - 1, -1, -1):
        is_point = place == n_decimals
        is_digit = ~is_point & (place <= n_left)
        is_sign = is_negative & (place == n_left + 1)
        digits, digit = np.where(is_digit, digits // 10, digits), digits % 10
        text[:, column] = np.select([is_point, is_digit, is_sign], [46, 48 + digit, 45], 0)
        place += 1
    return text


def _count_digits(digits: np.ndarray) -> np.ndarray:
    return np.searchsorted(_POWERS, digits, side="right")
