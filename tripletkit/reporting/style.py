"""The house style: one set of colours and lines for plots, collages and the report.

Colours are those of Okabe and Ito, which people with any kind of colour vision tell apart;
where two classes share one, their marks differ in shape.

Reference:
    Okabe, Ito. Color Universal Design. 2008. https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backend_bases import get_registered_canvas_class
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import ImageFont

from tripletkit.data.outputs import MARK, OutputFile, open_output

# The first comes with matplotlib and has Latin, Greek, Cyrillic and more; the others, where
# they are installed, what it lacks.
_FAMILIES = (
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
def _installed_families() -> tuple[str, ...]:
    """Return which of `_FAMILIES` there are, the first always among them."""
    there = set(font_manager.get_font_names())
    return tuple(family for family in _FAMILIES if family in there)


def find_font(text: str, size_px: int) -> ImageFont.FreeTypeFont:
    """Return a font for drawing a text with Pillow: the first that has most of its letters."""
    letters = frozenset(map(ord, text))
    family = max(_installed_families(), key=lambda family: len(letters & _letters(family)))
    return _load(family, size_px)


@cache
def _letters(family: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(family)).get_charmap())


@cache
def _load(family: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont(family), size_px)


_BLUE, _SKY, _GREEN, _ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
_VERMILLION, _PURPLE, _YELLOW = "#D55E00", "#CC79A7", "#F0E442"

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Theme:
    """The colours of a light or a dark page.

    Attributes:
        background, text, muted, grid: of the page, its words, its lesser words and its lines.
        empty: behind an image that does not fill its square.
        right, wrong: of answers, and of the near and the far image of a triplet.
        classes: of labels, in turn.
        scale: name of matplotlib's colour map for shares.
    """

    background: str
    text: str
    muted: str
    grid: str
    empty: str
    right: str
    wrong: str
    classes: tuple[str, ...]
    scale: str


LIGHT = Theme(
    background="#ffffff",
    text="#1a1a1a",
    muted="#595959",
    grid="#d9d9d9",
    empty="#f0f0f0",
    right=_BLUE,
    wrong=_VERMILLION,
    classes=(_BLUE, _ORANGE, _GREEN, _PURPLE, _SKY, _VERMILLION, "#000000"),
    scale="Blues",
)
DARK = Theme(
    background="#16181c",
    text="#ececec",
    muted="#b0b0b0",
    grid="#3a3d44",
    empty="#24272d",
    right=_SKY,
    wrong=_ORANGE,
    classes=(_SKY, _ORANGE, _GREEN, _PURPLE, _YELLOW, _VERMILLION, "#ffffff"),
    scale="cividis",
)


def make_axes(
    width_in: float, height_in: float, theme: Theme, n: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a new figure with axes beside each other; nothing global is touched."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor=theme.background)
    FigureCanvasAgg(figure)
    found = []
    for number in range(1, n + 1):
        axes = figure.add_subplot(1, n, number, facecolor=theme.background)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.muted)
        # Of both, or the small ticks of a logarithmic axis stay black on a dark page.
        axes.tick_params(which="both", colors=theme.muted, labelsize=9)
        axes.grid(True, color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        found.append(axes)
    return figure, found


def text_style(theme: Theme, size: float) -> dict[str, Any]:
    """Return size, colour and fonts of a text of a figure."""
    return {"fontsize": size, "fontfamily": _installed_families(), "color": theme.text}


def plain_text(text: str) -> str:
    """Return a text of the user's so that matplotlib shows it as it is, not as a formula.

    Every text that is not our own goes through here, once.
    """
    return text.replace("$", r"\$")


def label_axes(axes: Axes, theme: Theme, title: str, x: str, y: str) -> None:
    """Name axes and what they show."""
    axes.set_title(plain_text(title), loc="left", **text_style(theme, 11))
    axes.set_xlabel(x, **text_style(theme, 9.5))
    axes.set_ylabel(y, **text_style(theme, 9.5))


def add_legend(axes: Axes, theme: Theme, **options: Any) -> None:
    """Add a legend in the style of all figures."""
    fonts = {"size": 9, "family": _installed_families()}
    axes.legend(frameon=False, labelcolor=theme.text, prop=fonts, **options)


def write_figure(file: OutputFile, figure: Figure) -> None:
    """Write a figure in the format that the suffix says; whole or not at all."""
    data = render_figure(figure, file.path.suffix.lower().removeprefix("."))
    with open_output(file, "wb") as opened:
        opened.write(data)


def darken(svg: bytes) -> bytes:
    """Return a light SVG figure as it is on a dark page, without drawing it again.

    Colours of classes stay, as they do not go over one by one, and so do pixels.
    """
    names = ("background", "text", "muted", "grid", "right", "wrong")
    dark = {getattr(LIGHT, name).lower().encode(): getattr(DARK, name) for name in names}
    return re.sub(b"|".join(dark), lambda found: dark[found[0]].lower().encode(), svg)


def render_figure(figure: Figure, form: str) -> bytes:
    """Return a figure as a file's bytes, the same each time."""
    buffer = io.BytesIO()
    # A date or chance ids would make every run's file another; text as text can be edited and
    # has every letter that the viewer's fonts have.
    fixed: dict[Any, Any] = {"svg.hashsalt": "tripletkit", "svg.fonttype": "none"}
    about = {
        "svg": {"Date": None, "Creator": MARK},
        "pdf": {"CreationDate": None, "Creator": MARK},
        "png": {"Software": MARK},
    }
    with matplotlib.rc_context(fixed), warnings.catch_warnings():
        if form == "svg":
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # `savefig` draws everything twice: it may have to cut off a border, which ours never has.
        figure.dpi = _DOTS_PER_INCH
        canvas = get_registered_canvas_class(form)(figure)
        getattr(canvas, f"print_{form}")(buffer, metadata=about[form])
    return buffer.getvalue()
