"""What an encoder from a file wants done to images first: from its configuration, or as told.

Never guessed: features of images that were prepared in another way look right and are wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripletkit.errors import PreprocessingError
from tripletkit.features.backbones import Preprocessing

CONFIG_FILE = "preprocessor_config.json"
EXAMPLE = "size=224,resample=bicubic,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,crop=224"

# Pillow's numbers for its filters.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# Of images that shrink to a square of this side or more, ConvNeXt's own processor cuts nothing.
_CROPPED_BELOW_PX = 384
_KEYS = ("size", "resample", "mean", "std", "crop", "scale", "layout")
_LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True)
class ImageProcessor:
    """What is done to images before an encoder.

    Attributes:
        input_size_px: side of the square that the encoder takes.
        preprocessing: the rest.
        layout: `"nchw"`, `"nhwc"`, or None where it is to be seen from the file.
    """

    input_size_px: int
    preprocessing: Preprocessing
    layout: str | None = None


def parse_processor(text: str) -> ImageProcessor:
    """Read what a user wrote, such as `EXAMPLE`.

    - `size`: side in pixels to which images are resized, whatever their shape; with `crop` the
      length of the shorter side, and `crop` is the side of the square cut from the middle.
    - `resample`: the Pillow filter.
    - `mean`, `std`: of pixels from 0 to 1, three numbers (or one) with colons between.
    - `scale`: what a pixel of 255 is before mean and deviation. Defaults to 1.
    - `layout`: `nchw` or `nhwc`, where the file does not say.

    Raises:
        PreprocessingError: naming the key that is wrong or missing.
    """
    given: dict[str, str] = {}
    for item in text.split(","):
        key, is_pair, value = (part.strip() for part in item.partition("="))
        if not is_pair or key not in _KEYS or key in given:
            raise PreprocessingError(
                f"preprocessing: expected each of {', '.join(_KEYS)} once as KEY=VALUE, got "
                f'"{item}". For example: {EXAMPLE}'
            )
        given[key] = value
    for key in ("size", "resample", "mean", "std"):
        if key not in given:
            raise PreprocessingError(
                f'preprocessing: expected "{key}", got only {", ".join(given)}. For example: '
                f"{EXAMPLE}"
            )
    size_px = _whole("size", given["size"])
    crop_px = _whole("crop", given["crop"]) if "crop" in given else None
    scale = _numbers("scale", given.get("scale", "1"))[0]
    resample = given["resample"].lower()
    if resample not in _FILTERS.values():
        raise PreprocessingError(
            f"preprocessing: expected resample among {', '.join(_FILTERS.values())}, got "
            f'"{resample}"'
        )
    layout = given.get("layout", "").lower() or None
    if layout not in (None, *_LAYOUTS):
        raise PreprocessingError(
            f'preprocessing: expected layout nchw or nhwc, got "{given["layout"]}"'
        )
    mean, deviation = (_numbers(key, given[key]) for key in ("mean", "std"))
    return _make(
        crop_px or size_px, size_px if crop_px else None, resample, mean, deviation, scale, layout
    )


def find_config(network: Path) -> Path | None:
    """Return the configuration beside a network, or above a folder `onnx` that it is in."""
    folders = [network.parent]
    if network.absolute().parent.name == "onnx":
        folders.append(network.absolute().parent.parent)
    for folder in folders:
        if (folder / CONFIG_FILE).is_file():
            return folder / CONFIG_FILE
    return None


def read_processor(path: Path) -> ImageProcessor:
    """Read a Hugging Face `preprocessor_config.json`.

    Raises:
        PreprocessingError: if it cannot be read, or asks for what is not known here.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return _of_config(config)
    except OSError as error:
        raise PreprocessingError(f"{path}: cannot be read: {error.strerror}") from error
    except PreprocessingError as error:
        raise PreprocessingError(f"{path}: {error}. Say it with `preprocess`.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PreprocessingError(
            f"{path}: expected the configuration of an image processor, cannot be read as one: "
            f"{error}. Say it with `preprocess={EXAMPLE}`"
        ) from error


def _of_config(config: Mapping[str, Any]) -> ImageProcessor:
    if config.get("do_resize") is False:
        raise PreprocessingError("expected images that are resized, got do_resize false")
    if config.get("do_pad"):
        raise PreprocessingError("expected images without padding, got do_pad true")
    if "size" not in config:
        raise PreprocessingError('expected "size", got none')
    crops = bool(config.get("do_center_crop"))
    size = config["size"]
    size = {"shortest_edge" if crops else "side": size} if isinstance(size, int) else size
    shortest_px = size.get("shortest_edge")
    input_size_px = _side(size) if shortest_px is None else None
    if crops:
        crop = config["crop_size"]
        crop_px = crop if isinstance(crop, int) else _side(crop)
        if shortest_px is None and crop_px != input_size_px:
            raise PreprocessingError(
                f"expected a crop of images by their shorter side, got size {size} and crop {crop}"
            )
        input_size_px = crop_px
    elif shortest_px is not None:
        if "crop_pct" not in config:
            raise PreprocessingError(f"expected square images, got size {size} without a crop")
        input_size_px = shortest_px
        is_cropped = shortest_px < _CROPPED_BELOW_PX
        shortest_px = int(shortest_px / config["crop_pct"]) if is_cropped else None
    resample = _FILTERS.get(config.get("resample"))
    if resample is None:
        raise PreprocessingError(f'expected a known "resample", got {config.get("resample")!r}')
    scale = 255.0 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255
    mean, deviation = (0.0,) * 3, (1.0,) * 3
    if config.get("do_normalize", True):
        mean, deviation = _three(config["image_mean"]), _three(config["image_std"])
    reverse = bool(config.get("do_flip_channel_order"))
    return _make(input_size_px, shortest_px, resample, mean, deviation, scale, None, reverse)


def _make(
    input_size_px: int,
    shortest_edge_px: int | None,
    resample: str,
    mean: tuple[float, ...],
    deviation: tuple[float, ...],
    scale: float,
    layout: str | None,
    reverse_channels: bool = False,
) -> ImageProcessor:
    if shortest_edge_px is not None and shortest_edge_px < input_size_px:
        raise PreprocessingError(
            f"expected a crop within the image, got {input_size_px} pixels of {shortest_edge_px}"
        )
    if not all(value > 0 for value in (input_size_px, scale, *deviation)):
        raise PreprocessingError("expected sizes, scale and deviations above 0")
    by_pixel = 255.0 / scale
    how = Preprocessing(
        resample=resample,
        reverse_channels=reverse_channels,
        mean=tuple(value * by_pixel for value in mean),
        divisor=tuple(value * by_pixel for value in deviation),
        shortest_edge_px=shortest_edge_px,
    )
    return ImageProcessor(input_size_px, how, layout)


def _side(size: Mapping[str, Any]) -> int:
    sides = {size[key] for key in ("height", "width", "side") if key in size}
    if len(sides) != 1:
        raise PreprocessingError(f"expected square images, got size {dict(size)}")
    return int(sides.pop())


def _whole(key: str, text: str) -> int:
    if not text.isdecimal():
        raise PreprocessingError(f'preprocessing: expected pixels as {key}, got "{text}"')
    return int(text)


def _numbers(key: str, text: str) -> tuple[float, ...]:
    try:
        return _three([float(part) for part in text.split(":")])
    except ValueError:
        raise PreprocessingError(
            f"preprocessing: expected {key} as one number or three with colons between, got "
            f'"{text}"'
        ) from None


def _three(values: Any) -> tuple[float, ...]:
    numbers = [float(value) for value in (values if isinstance(values, list) else [values])]
    if len(numbers) not in (1, 3):
        raise ValueError(f"expected one or three numbers, got {values}")
    return tuple(numbers * 3 if len(numbers) == 1 else numbers)
