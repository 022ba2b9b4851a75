"""Plain text tables for people: columns in line, nothing drawn."""

from __future__ import annotations

from collections.abc import Sequence


def align_columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Join rows of texts to lines with columns two blanks apart.

    Args:
        rows: texts, the same number in each row.
        right: indices of the columns to align to the right, such as numbers.
    Example:
        >>> print(align_columns([["right", "90"], ["wrong", "7"]], right=[1]))
        right  90
        wrong   7
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def show_count(count: float) -> str:
    """Return a count with thousands marked; half rows keep their half."""
    return f"{count:,.0f}" if count == int(count) else f"{count:,.1f}"
