"""Fonts that come with matplotlib or the system, and that have the letters of a text."""

from __future__ import annotations

from functools import cache

from matplotlib import font_manager
from PIL import ImageFont

# The first comes with matplotlib and has Latin, Greek, Cyrillic and more; the others, where
# they are installed, what it lacks.
FAMILIES = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
)


@cache
def installed_families() -> tuple[str, ...]:
    """Return which of `FAMILIES` there are, the first always among them."""
    there = set(font_manager.get_font_names())
    return tuple(family for family in FAMILIES if family in there)


def find_font(text: str, size_px: int) -> ImageFont.FreeTypeFont:
    """Return a font for drawing a text with Pillow: the first that has most of its letters."""
    letters = frozenset(map(ord, text))
    family = max(installed_families(), key=lambda family: len(letters & _letters(family)))
    return _load(family, size_px)


@cache
def _letters(family: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(family)).get_charmap())


@cache
def _load(family: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont(family), size_px)
