"""Collages: images in rows, each with its name and a number below.

Right and wrong are told by colour and by a sign, so that nobody has to tell the colours apart.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from tripletkit.collecting.serving import data_uri
from tripletkit.data.images import Images
from tripletkit.data.outputs import MARK, OutputFile, open_output
from tripletkit.reporting.figures import LIGHT, find_font, read_thumbnail

_COLLAGE_SIDE_PX = 144
_THUMBNAIL_PX = 128
# With at most some 420 images, the whole stays below 5 MB.
_THUMBNAIL_BYTES = 5_500


def thumbnail_uri(path: Path) -> str:
    """Return a small JPEG as a data URI, of as good a quality as its size allows."""
    thumbnail = read_thumbnail(path, _THUMBNAIL_PX)
    for quality in (80, 65, 50, 35, 20):
        buffer = io.BytesIO()
        thumbnail.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _THUMBNAIL_BYTES:
            break
    return data_uri(buffer.getvalue(), "image/jpeg")


_TEXT_PX = 13
_LINE_PX = 17
_GAP_PX = 10
_FRAME_PX = 4
_SIGN_PX = 22


@dataclass(frozen=True)
class _Tile:
    """An image of a collage, with the lines below it, and marked as right, as wrong or not."""

    path: Path
    lines: Sequence[str]
    is_right: bool | None = None


def write_image(file: OutputFile, image: Image.Image) -> None:
    """Write an image in the format that the suffix says; whole or not at all."""
    form = file.path.suffix.lower().removeprefix(".").replace("jpg", "jpeg")
    info, exif = PngInfo(), Image.Exif()
    info.add_text("Software", MARK)
    exif[ExifTags.Base.Software] = MARK
    # In memory first: of a full disk Pillow says "encoder error".
    buffer = io.BytesIO()
    image.save(buffer, form, optimize=True, quality=90, pnginfo=info, exif=exif)
    with open_output(file, "wb") as opened:
        opened.write(buffer.getbuffer())


def _draw_grid(
    rows: Sequence[Sequence[_Tile]],
    column_headings: Sequence[str] = (),
    row_headings: Sequence[str] = (),
    *,
    gap_after_first: bool = False,
    side_px: int = _COLLAGE_SIDE_PX,
) -> Image.Image:
    """Draw rows of images, each fitted into a square of `side_px`.

    `gap_after_first` sets the first column apart, such as queries from their neighbours.
    """
    n_lines = max(len(tile.lines) for row in rows for tile in row)
    step_x = side_px + _GAP_PX
    step_y = side_px + n_lines * _LINE_PX + _GAP_PX + 4
    font = find_font("", _TEXT_PX)
    widest = max((int(font.getlength(text)) + _GAP_PX for text in row_headings), default=0)
    left = _GAP_PX + widest
    top = _GAP_PX + (_LINE_PX + 4 if column_headings else 0)
    n_columns = max(map(len, rows))
    extra = 2 * _GAP_PX if gap_after_first else 0
    size = (left + n_columns * step_x + extra, top + len(rows) * step_y)
    canvas = Image.new("RGB", size, LIGHT.background)
    draw = ImageDraw.Draw(canvas)

    def x_of(column: int) -> int:
        return left + column * step_x + (extra if column else 0)

    for column, text in enumerate(column_headings):
        place = (x_of(column) + side_px // 2, _GAP_PX)
        draw.text(place, text, LIGHT.text, font, anchor="ma")
    for number, row in enumerate(rows):
        y = top + number * step_y
        if row_headings:
            draw.text((_GAP_PX, y + side_px // 2), row_headings[number], LIGHT.text, font, "lm")
        for column, tile in enumerate(row):
            _draw_tile(canvas, draw, tile, (x_of(column), y), side_px)
    if gap_after_first:
        x = x_of(1) - extra // 2 - _GAP_PX // 2
        draw.line([x, top, x, size[1] - _GAP_PX], LIGHT.grid)
    return canvas


def _shorten(text: str, width_px: float, size_px: int = _TEXT_PX) -> str:
    """Take letters out of the middle until a text fits: names differ at both ends."""
    font = find_font(text, size_px)
    if font.getlength(text) <= width_px:
        return text
    for n_kept in range(len(text) - 1, 0, -1):
        shown = f"{text[: (n_kept + 1) // 2]}…{text[len(text) - n_kept // 2 :]}"
        if font.getlength(shown) <= width_px:
            return shown
    return "…"


def _draw_tile(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: _Tile, corner: tuple[int, int], side: int
) -> None:
    x, y = corner
    draw.rectangle([x, y, x + side - 1, y + side - 1], LIGHT.empty)
    image = read_thumbnail(tile.path, side)
    canvas.paste(image, (x + (side - image.width) // 2, y + (side - image.height) // 2))
    if tile.is_right is not None:
        colour = LIGHT.right if tile.is_right else LIGHT.wrong
        draw.rectangle([x, y, x + side - 1, y + side - 1], outline=colour, width=_FRAME_PX)
        _draw_sign(draw, tile.is_right, (x + side - _SIGN_PX, y), colour)
    for line, text in enumerate(tile.lines):
        shown = _shorten(text, side)
        place = (x + side // 2, y + side + 4 + line * _LINE_PX)
        draw.text(place, shown, LIGHT.text, find_font(shown, _TEXT_PX), anchor="ma")


def _draw_sign(
    draw: ImageDraw.ImageDraw, is_right: bool, corner: tuple[int, int], colour: str
) -> None:
    """Draw a tick or a cross on a square of the mark's colour."""
    x, y = corner
    draw.rectangle([x, y, x + _SIGN_PX - 1, y + _SIGN_PX - 1], colour)
    tick, cross = [[(6, 11), (10, 16), (16, 6)]], [[(6, 6), (16, 16)], [(6, 16), (16, 6)]]
    for stroke in tick if is_right else cross:
        draw.line([(x + a, y + b) for a, b in stroke], "white", 3, joint="curve")


def draw_triplets(
    names: Sequence[str], paths: Mapping[int, Path], rows: np.ndarray, *, by_rows: bool
) -> Image.Image:
    """Draw triplets, a row each of anchors, positives and negatives, or a column each."""
    grid = [[_Tile(paths[image], [names[image]]) for image in row] for row in rows.tolist()]
    headings = ["anchor", "positive", "negative"]
    if by_rows:
        return _draw_grid(list(zip(*grid, strict=True)), row_headings=headings)
    return _draw_grid(grid, column_headings=headings)


def draw_neighbors(
    output: OutputFile, answers: list[dict[str, Any]], query_files: Images, files: Images
) -> None:
    """Draw the answers that `list_neighbors` gives."""
    path_of = {name: path for name, path in zip(files.names, files.paths, strict=True) if path}
    rows = []
    for answer, path in zip(answers, filter(None, query_files.paths), strict=True):
        row = [_Tile(path, (path.name, answer.get("label") or ""))]
        for near in answer["neighbors"]:
            lines = (near["name"], f"{near['distance']:.4f}")
            row.append(_Tile(path_of[near["name"]], lines, near.get("same_label")))
        rows.append(row)
    headings = ["query", *map(str, range(1, max(map(len, rows))))]
    write_image(output, _draw_grid(rows, headings, gap_after_first=True))
