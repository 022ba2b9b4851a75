"""Lengths of time on the command line, such as `90s` or `2min`."""

from __future__ import annotations

import re

import click

_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Duration(click.ParamType):
    """Seconds, from a number and its unit; seconds where none is given."""

    name = "time"

    def convert(
        self, value: str | float, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
        if found is None or found[2] not in _SECONDS:
            self.fail(f"expected a time such as 90s, 2min or 1h, got {value!r}", param, context)
        return float(found[1]) * _SECONDS[found[2]]


DURATION = Duration()
