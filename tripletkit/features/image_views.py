"""Views of an image: the whole of it, its mirror image, crops; their features are averaged.

Averaging over such views is known as test-time augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from tripletkit.data.decoding import read_image, resize_to_square
from tripletkit.errors import BackboneError, SettingsError
from tripletkit.features.backbones import Preprocessing
from tripletkit.registry import describe_unknown

# Crops are 224 pixels of 256 wherever the backbone takes 224, and in proportion elsewhere.
_ENLARGED = 256 / 224


@dataclass(frozen=True)
class View:
    """One way to look at an image."""

    name: str  # in the key of stored features: what shows other pixels gets another name
    # Left and top of a crop, as shares of the room there is; None for the whole image.
    place: tuple[float, float] | None = None
    is_mirrored: bool = False

    def resized_px(self, size_px: int) -> int:
        """Return the side of the square that an image is resized to before it is cut."""
        return size_px if self.place is None else round(size_px * _ENLARGED)

    def corner_px(self, size_px: int) -> tuple[int, int]:
        """Return left and top of what is cut out of that square."""
        room_px = self.resized_px(size_px) - size_px
        left, top = self.place or (0.0, 0.0)
        return int(left * room_px), int(top * room_px)

    def cut(self, resized: np.ndarray, size_px: int) -> np.ndarray:
        """Return the view's pixels of an image that was resized to `resized_px(size_px)`."""
        left, top = self.corner_px(size_px)
        pixels = resized[top : top + size_px, left : left + size_px]
        return pixels[:, ::-1] if self.is_mirrored else pixels


def _mirrored(views: Sequence[View]) -> tuple[View, ...]:
    return tuple(View(f"{view.name}-flip", view.place, is_mirrored=True) for view in views)


ORIGINAL = View("original")
_FLIP = View("flip", is_mirrored=True)
_FIVE_CROPS = (
    View("crop-top-left", (0.0, 0.0)),
    View("crop-top-right", (1.0, 0.0)),
    View("crop-bottom-left", (0.0, 1.0)),
    View("crop-bottom-right", (1.0, 1.0)),
    View("crop-center", (0.5, 0.5)),
)

# What can be asked for -> the views that are averaged then. Ten crops: Krizhevsky, Sutskever,
# Hinton. ImageNet classification with deep convolutional neural networks. NeurIPS 2012.
VIEW_SETS: dict[str, tuple[View, ...]] = {
    "original": (ORIGINAL,),
    "flip": (ORIGINAL, _FLIP),
    "five-crop": _FIVE_CROPS,
    "ten-crop": _FIVE_CROPS + _mirrored(_FIVE_CROPS),
}
# Every view, in the order in which views are looked at and summed.
_VIEWS = {view.name: view for views in VIEW_SETS.values() for view in views}


def choose_views(names: Sequence[str]) -> tuple[View, ...]:
    """Return the views of one or several `VIEW_SETS`, each once and in an order of their own."""
    for name in names:
        if name not in VIEW_SETS:
            raise SettingsError("views", describe_unknown(name, VIEW_SETS))
    chosen = {view for name in names for view in VIEW_SETS[name]}
    return tuple(view for view in _VIEWS.values() if view in chosen)


def get_view(name: str) -> View:
    """Return one view by its own name."""
    if name not in _VIEWS:
        raise BackboneError(
            f'expected a view among {", ".join(_VIEWS)}, got "{name}". Update tripletkit.'
        )
    return _VIEWS[name]


def read_views(
    path: Path,
    size_px: int,
    how: Preprocessing,
    views: Sequence[View],
    file: BinaryIO | None = None,
) -> np.ndarray:
    """Decode an image once and return views of it: `(n_views, size_px, size_px, 3)` uint8, RGB."""
    image = read_image(path, at_least_px=how.cut_from_px or size_px, file=file)
    if how.cut_from_px is not None:
        middle = _cut_middle(image, size_px, how)
        return np.stack([view.cut(middle, size_px) for view in views])
    sides = {view.resized_px(size_px) for view in views}
    resized = {side: resize_to_square(image, side, how.resample) for side in sides}
    return np.stack([view.cut(resized[view.resized_px(size_px)], size_px) for view in views])


def _cut_middle(image: Image.Image, size_px: int, how: Preprocessing) -> np.ndarray:
    """Resize an image and cut a square from its middle, as an encoder's own processor does."""
    if how.shortest_edge_px is None:
        width = height = how.square_px or size_px
    else:
        # Rounded down in this order, as Hugging Face's processors and torchvision do.
        shorter = min(image.size)
        width, height = (how.shortest_edge_px * side // shorter for side in image.size)
    resized = image.resize((width, height), Image.Resampling[how.resample.upper()])
    rooms = (side - size_px for side in (width, height))
    # Python rounds a half to the even number.
    left, top = (round(room / 2) if how.rounds_half else room // 2 for room in rooms)
    return np.asarray(resized.crop((left, top, left + size_px, top + size_px)))
