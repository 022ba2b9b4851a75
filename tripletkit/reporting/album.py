"""The images of a page, each held once."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tripletkit.reporting.collages import read_thumbnail
from tripletkit.reporting.model_view import ModelView

_THUMBNAIL_PX = 128
# With at most some 420 images, the whole stays below 5 MB.
_THUMBNAIL_BYTES = 5_500


@dataclass
class Album:
    """The images of a page, each held once.

    Attributes:
        view: whose images; all models of a page are asked about the same ones.
        sources: data URIs in the order in which images were first asked for.
        numbers: image -> place in `sources`.
    """

    view: ModelView
    sources: list[str] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)

    def add(self, image: int) -> dict[str, Any]:
        """Return what the template needs of an image."""
        if image not in self.numbers:
            path = self.view.paths[image]
            assert path is not None, "an image that cannot be read is shown nowhere"
            self.numbers[image] = len(self.sources)
            self.sources.append(thumbnail_uri(path))
        return {
            "number": self.numbers[image],
            "name": self.view.triplets.names[image],
            "label": self.view.label_of(image),
        }


def thumbnail_uri(path: Path) -> str:
    """Return a small JPEG as a data URI, of as good a quality as its size allows.

    Raises:
        ImageReadError: if it cannot be read.
    """
    thumbnail = read_thumbnail(path, _THUMBNAIL_PX)
    for quality in (80, 65, 50, 35, 20):
        buffer = io.BytesIO()
        thumbnail.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _THUMBNAIL_BYTES:
            break
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(data: bytes, kind: str) -> str:
    """Return a file as an address that holds it.

    Example:
        >>> data_uri(b"a", "text/plain")
        'data:text/plain;base64,YQ=='
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
