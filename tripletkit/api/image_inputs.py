"""Images as the public functions take them: a folder, files, arrays, or PIL images.

All become named files. There is one road from images to vectors, and it starts at a file's content,
by which features are stored; an array in memory is written as a PNG first, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tripletkit.api.inputs import PathLike, is_path
from tripletkit.data.folder import list_images
from tripletkit.data.images import make_rgb
from tripletkit.errors import ImageNameError, ImageReadError
from tripletkit.features.image_features import NamedFiles, find_files

if TYPE_CHECKING:
    from typing_extensions import TypeIs

ImageLike = PathLike | np.ndarray | Image.Image
ImagesLike = ImageLike | Sequence[ImageLike]


@contextmanager
def open_images(
    images: ImagesLike,
    names: Sequence[str] | None = None,
    *,
    skip_bad: bool = False,
    follow_outside: bool = False,
) -> Iterator[NamedFiles]:
    """Give the names of images and their files, which those of arrays are for as long as it lasts.

    Args:
        images: a folder, whose images are named by their paths in it; or one or several of: path
            of a file, `(height, width)` or `(height, width, 3 or 4)` array of uint8 (RGB, RGBA) or
            bool, PIL image.
        names: of several, distinct. Defaults to the paths as they were given, and to the places
            in the list of what has none.
        skip_bad: keep going where a file is missing.
        follow_outside: allow links that lead out of a folder.
    Raises:
        ImageNameError: if there is none, or names are not one for each or not distinct.
        ImageReadError: if something is no image.
    """
    if is_path(images) and Path(images).is_dir():
        yield _list_folder(Path(images), follow_outside)
        return
    given: list[ImageLike] = [images] if _is_one(images) else list(images)
    if not given:
        raise ImageNameError("expected images, got none")
    if names is None:
        named = [str(image if is_path(image) else place) for place, image in enumerate(given)]
    else:
        named = [str(name) for name in names]
    if len(named) != len(given) or len(set(named)) != len(named):
        raise ImageNameError(
            f"expected a name of its own for each of {len(given):,} images, got {len(named):,} "
            f"names, {len(set(named)):,} of them distinct"
        )
    with TemporaryDirectory(prefix="tripletkit-") as folder:
        paths: list[Path | None] = []
        problems: dict[int, str] = {}
        for place, image in enumerate(given):
            path = (
                Path(image)
                if is_path(image)
                else _write(image, Path(folder) / f"{place}.png", named[place])
            )
            if not path.is_file():
                problems[place] = f'there is no image "{path}"'
                if not skip_bad:
                    raise ImageNameError(problems[place])
            paths.append(None if place in problems else path)
        yield NamedFiles(named, named, paths, problems)


def _list_folder(folder: Path, follow_outside: bool) -> NamedFiles:
    names = list_images(folder)
    if not names:
        raise ImageNameError(f"{folder}: expected a folder of images, there is none in it")
    return find_files(names, [str(folder)] * len(names), folder, follow_outside=follow_outside)


def _is_one(images: ImagesLike) -> TypeIs[ImageLike]:
    if is_path(images) or isinstance(images, Image.Image):
        return True
    return isinstance(images, np.ndarray) and (
        images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (3, 4))
    )


def _write(image: Any, path: Path, name: str) -> Path:
    """Write pixels as they are, and return the file."""
    try:
        pixels = image if isinstance(image, Image.Image) else _from_array(np.asarray(image))
        # Hardly compressed, because it is read once and then gone.
        make_rgb(pixels).save(path, compress_level=1)
    except (OSError, ValueError, TypeError) as error:
        raise ImageReadError(f"image {name}: {error}") from error
    return path


def _from_array(pixels: np.ndarray) -> Image.Image:
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if not is_image or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(
            "expected a path, a PIL image, or an array of uint8, 0 to 255, of the shape "
            f"(height, width) or (height, width, 3), got {pixels.dtype} of the shape "
            f"{pixels.shape}"
        )
    return Image.fromarray(pixels)
