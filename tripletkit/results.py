"""How results show themselves: as text, as HTML in a notebook, in a line, and as JSON values.

A result says once what there is to see, as tables and sentences; its text and its HTML are made
of these. Nothing here is imported that takes time, so that help does not wait for it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

_CELL = "text-align:{};padding:2px 10px;white-space:nowrap"
# In a notebook a long list of sentences or rows is cut, or nobody would scroll past it.
_MOST_ROWS = 20


@dataclass(frozen=True)
class Table:
    """Rows of texts, the same number in each, with these columns to the right, such as numbers."""

    rows: Sequence[Sequence[str]]
    right: Collection[int] = ()
    has_heading: bool = True
    title: str = ""

    def __str__(self) -> str:
        text = _align_columns(self.rows, self.right)
        return f"{self.title}\n{text}" if self.title else text

    def to_html(self) -> str:
        """Return it as HTML that takes its colors from the page around it."""
        n_shown = _MOST_ROWS + self.has_heading
        body = ""
        for number, row in enumerate(self.rows[:n_shown]):
            tag = "th" if self.has_heading and number == 0 else "td"
            cells = (
                f"<{tag} style='{_CELL.format('right' if column in self.right else 'left')}'>"
                f"{html.escape(text.strip())}</{tag}>"
                for column, text in enumerate(row)
            )
            body += f"<tr>{''.join(cells)}</tr>"
        more = len(self.rows) - n_shown
        note = f"<div>... and {more:,} rows more</div>" if more > 0 else ""
        title = f"<div><strong>{html.escape(self.title.strip())}</strong></div>" * bool(self.title)
        return f"{title}<table style='margin:2px 0 6px'>{body}</table>{note}"


# One below the other, without a blank line between them in text.
Section = Sequence[Table | str]


def show_head(frame: DataFrame, n_rows: int = 5) -> Table:
    """Return the first rows of a table as texts."""
    rows = [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        for values in frame.head(n_rows).itertuples(index=False)
    ]
    return Table([list(map(str, frame.columns)), *rows])


class Result:
    """What a public function gives: it shows itself on a terminal, in a notebook and as JSON.

    `str()` is what the command of the same name prints, `to_dict()` what it prints with `--json`.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, as JSON takes them: intervals as [low, high], None for NaN."""
        return _plain_fields(self)

    def _sections(self) -> Sequence[Section]:
        """Return what there is to see, in parts that a blank line stands between in text."""
        return [[self._summary()]]

    def _notebook_sections(self) -> Sequence[Section]:
        """Return what a notebook shows, where that is other than the text."""
        return self._sections()

    def _summary(self) -> str:
        """Return what matters most, in a few words."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n\n".join("\n".join(map(str, section)) for section in self._sections())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._summary()}>"

    def _repr_html_(self) -> str:
        """Return it as a small table or card, for notebooks."""
        parts = [
            part.to_html() if isinstance(part, Table) else f"<div>{html.escape(part)}</div>"
            for section in self._notebook_sections()
            for part in section
            if part
        ]
        return f"<div>{''.join(parts)}</div>"


def _align_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Join rows of texts to lines with columns two blanks apart.

    Example:
        >>> print(_align_columns([["right", "90"], ["wrong", "7"]], right=[1]))
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


def plain_values(value: Any) -> Any:
    """Return what JSON can hold: records by field, intervals as their ends, None for NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {plain_values(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    if hasattr(value, "to_list"):
        return value.to_list()
    if isinstance(value, Result):
        return value.to_dict()
    return _plain_fields(value) if is_dataclass(value) else value


def _plain_fields(record: Any) -> dict[str, Any]:
    """Return the fields of a record; beside an interval that may be missing, why it is."""
    plain = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if "NoInterval" in str(field.type):
            plain[field.name] = plain_values(value) if value else None
            is_missing = value is not None and not value
            plain[f"no_{field.name}"] = value.detail if is_missing else None
        else:
            plain[field.name] = plain_values(value)
    return plain
