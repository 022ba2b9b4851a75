"""What an encoder from a file wants done to images first: from its configuration, or as told.

Never guessed: features of images that were prepared in another way look right and are wrong. What
a configuration leaves out, or says null for, is what its class of processor does by default.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tripletkit.data.outputs import note_input
from tripletkit.errors import NetworkFileError
from tripletkit.features.backbones import Preprocessing

CONFIG_FILE = "preprocessor_config.json"
# Of transformers from 5 on, of open_clip, and of timm; the first that is there is read.
CONFIG_FILES = (CONFIG_FILE, "processor_config.json", "open_clip_config.json", "config.json")
_EXAMPLE = "size=224,resample=bicubic,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,crop=224"

# Pillow's numbers for its filters.
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# Images of this side or more are resized by ConvNeXt's processor whatever their shape.
_CROPPED_BELOW_PX = 384
MAX_SIDE_PX = 8192
_KEYS = ("size", "resample", "mean", "std", "crop", "scale", "layout", "channels")
_LAYOUTS = ("nchw", "nhwc")
_CHANNELS = ("rgb", "bgr", "gray")

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


@cache
def _read_classes() -> dict[str, dict[str, Any]]:
    """Return what processors of transformers 5.24 do by themselves; the nameless, what most do."""
    table = Path(__file__).with_name("image_processors.json")
    classes: dict[str, dict[str, Any]] = json.loads(table.read_text(encoding="utf-8"))
    return {name: {**classes[""], **own} for name, own in classes.items()}


class ImageProcessor(NamedTuple):
    """What is done to images before an encoder."""

    input_size_px: int
    preprocessing: Preprocessing
    layout: str | None = None  # nchw, nhwc; None where it is to be seen from the file


def open_processor(
    network: Path, text: str | None = None, *, scales: bool = True
) -> ImageProcessor:
    """Return what images go through before an ONNX file: as told (see docs/encoders.md), else by
    its configuration."""
    if text is not None:
        processor = _parse(text, scales)
    elif (config := _find_config(network)) is not None:
        processor = _read_config(config)
    else:
        raise NetworkFileError(
            f"{network}: expected {CONFIG_FILE} beside it, or to be told what its images go "
            f"through: `preprocess={_EXAMPLE}`"
        )
    if scales:
        return processor
    n_channels = 1 if processor.preprocessing.is_gray else 3
    how = replace(processor.preprocessing, mean=(0.0,) * n_channels, divisor=(1.0,) * n_channels)
    return processor._replace(preprocessing=how)


def _parse(text: str, scales: bool) -> ImageProcessor:
    given: dict[str, str] = {}
    for item in text.split(","):
        key, is_pair, value = (part.strip() for part in item.partition("="))
        if not is_pair or key not in _KEYS or key in given:
            raise NetworkFileError(
                f"preprocessing: expected each of {', '.join(_KEYS)} once as KEY=VALUE, got "
                f'"{item}". For example: {_EXAMPLE}'
            )
        given[key] = value
    _check_keys(given, scales)
    size_px = _whole("size", given["size"])
    crop_px = _whole("crop", given["crop"]) if "crop" in given else None
    resample = _choose("resample", given["resample"], FILTERS.values())
    layout = _choose("layout", given["layout"], _LAYOUTS) if "layout" in given else None
    channels = _choose("channels", given.get("channels", "rgb"), _CHANNELS)
    n_channels = 1 if channels == "gray" else 3
    return _make(
        crop_px or size_px,
        {"shortest_edge_px": size_px} if crop_px else {},
        resample,
        _numbers("mean", given.get("mean", "0"), n_channels),
        _numbers("std", given.get("std", "1"), n_channels),
        _numbers("scale", given.get("scale", "1"), 1)[0] if scales else 255.0,
        layout,
        channels,
    )


def _check_keys(given: Mapping[str, str], scales: bool) -> None:
    needed = ["size", "resample"]
    if scales and ("scale" not in given or {"mean", "std"} & set(given)):
        needed += ["mean", "std"]
    if missing := [key for key in needed if key not in given]:
        raise NetworkFileError(
            f'preprocessing: expected "{missing[0]}", got only {", ".join(given)}. For example: '
            f"{_EXAMPLE}"
        )
    if not scales and (extra := [key for key in ("mean", "std", "scale") if key in given]):
        raise NetworkFileError(
            f"preprocessing: the encoder takes pixels as uint8 and scales them by itself; leave "
            f"out {', '.join(extra)}."
        )


def _find_config(network: Path) -> Path | None:
    """Return the first configuration beside a network, or above its folder `onnx`."""
    folders = [network.parent]
    if network.absolute().parent.name == "onnx":
        folders.append(network.absolute().parent.parent)
    for path in (folder / name for folder in folders for name in CONFIG_FILES):
        if path.name == CONFIG_FILE and path.is_file():
            return path
        # Others are there for much else, too.
        with suppress(OSError, ValueError, AttributeError):
            config = json.loads(path.read_text(encoding="utf-8"))
            keys = ("image_processor", "preprocess_cfg", "pretrained_cfg")
            if any(isinstance(config.get(key), dict) for key in keys):
                return path
    return None


def _read_config(path: Path) -> ImageProcessor:
    """Read a configuration of transformers, open_clip or timm."""
    note_input(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if "preprocess_cfg" in config:
            return _of_open_clip(config)
        if "pretrained_cfg" in config:
            return _of_timm(config["pretrained_cfg"])
        return _of_transformers(config.get("image_processor") or config)
    except OSError as error:
        raise NetworkFileError(f"{path}: cannot be read: {error.strerror}") from error
    except NetworkFileError as error:
        raise NetworkFileError(f"{path}: {error}. Say it with `preprocess`.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NetworkFileError(
            f"{path}: expected the configuration of an image processor, cannot be read as one: "
            f"{error}. Say it with `preprocess={_EXAMPLE}`"
        ) from error


def _of_transformers(config: Mapping[str, Any]) -> ImageProcessor:
    named = config.get("image_processor_type") or config.get("feature_extractor_type")
    given = {key: value for key, value in config.items() if value is not None}
    whose = "" if named is None else _class_name(named)
    classes = _read_classes()
    if named is not None and whose not in set(classes) - {""}:
        raise NetworkFileError(
            f"expected an image processor among {', '.join(sorted(classes)[1:])}, got {named}"
        )
    usual = classes[whose] if named is not None else _without_class(given)
    _check_nulls(config, usual)
    how = {**usual, **given}
    if not how["do_resize"]:
        raise NetworkFileError("expected images that are resized, got do_resize false")
    if how.get("do_pad"):
        raise NetworkFileError("expected images without padding, got do_pad true")
    input_size_px, cut = _find_sizes(how, whose)
    resample = FILTERS.get(how["resample"])
    if resample is None:
        raise NetworkFileError(f'expected a known "resample", got {how["resample"]!r}')
    scale = 255.0 * how["rescale_factor"] if how["do_rescale"] else 255.0
    mean, deviation = [0.0] * 3, [1.0] * 3
    if how["do_normalize"]:
        mean, deviation = _three(how["image_mean"]), _three(how["image_std"])
    if how["do_rescale"] and how.get("rescale_offset"):
        mean = [value + 1 for value in mean]
    if how.get("include_top"):
        deviation = [
            value * once for value, once in zip(deviation, _three(how["image_std"]), strict=True)
        ]
    channels = "bgr" if how.get("do_flip_channel_order") else "rgb"
    return _make(input_size_px, cut, resample, mean, deviation, scale, None, channels)


def _check_nulls(config: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Refuse a null where versions of transformers differ in what it means."""
    for key, value in config.items():
        default = usual.get(key)
        is_switch = isinstance(default, bool) and default
        if value is None and (is_switch or (key == "resample" and default != 2)):
            raise NetworkFileError(f'expected "{key}" to say what is done, got null')


def _class_name(named: str) -> str:
    for end in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        named = named.removesuffix(end)
    return {"ConvNeXt": "ConvNext", "MobileVit": "MobileViT", "EfficientNetB": "EfficientNet"}.get(
        named, named
    )


def _without_class(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is usual where no class is named, so that all that matters has to be there."""
    needed = ["size", "resample"]
    needed += ["image_mean", "image_std"] * given.get("do_normalize", True)
    needed += ["crop_size"] * given.get("do_center_crop", False)
    for key in needed:
        if key not in given:
            raise NetworkFileError(f'expected "{key}", or "image_processor_type", got none')
    is_square = not given.get("do_center_crop", False)
    return {**_read_classes()[""], "is_square": is_square}


# How images are resized before a square is cut from their middle, as `Preprocessing` says it; empty
# where they are resized to the square.
_Cut = dict[str, Any]


def _find_sizes(how: Mapping[str, Any], whose: str) -> tuple[int, _Cut]:
    """Return the side of the encoder's images, and how they are resized before."""
    size = how["size"]
    if isinstance(size, int):
        size = {"height": size, "width": size} if how.get("is_square", True) else {
            "shortest_edge": size
        }  # fmt: skip
    elif isinstance(size, list):
        size = dict(zip(("height", "width"), size, strict=True))
    if {key for key, value in size.items() if value is not None} - {
        "shortest_edge", "height", "width"
    }:  # fmt: skip
        raise NetworkFileError(f"expected images of one size, got size {size}")
    shortest_px: int | None = size.get("shortest_edge")
    crop_pct: Any = how.get("crop_pct")
    if whose == "ConvNext" or (not whose and crop_pct is not None):
        if shortest_px is None:
            shortest_px = _side(size)
        if shortest_px >= _CROPPED_BELOW_PX:
            return shortest_px, {}
        return shortest_px, {"shortest_edge_px": int(shortest_px / crop_pct)}
    side_px = _side(size) if shortest_px is None else None
    if whose == "PoolFormer":
        shortest_px = int((shortest_px or _side(size)) / crop_pct)
    if whose == "Levit" and shortest_px is not None:
        shortest_px = int(256 / 224 * shortest_px)
    if not how["do_center_crop"]:
        if side_px is None or shortest_px is not None:
            raise NetworkFileError(f"expected square images, got size {size} without a crop")
        return side_px, {}
    crop = how["crop_size"]
    crop_px = crop if isinstance(crop, int) else _side(crop)
    if shortest_px is not None:
        return crop_px, {"shortest_edge_px": shortest_px}
    return crop_px, {} if side_px == crop_px else {"square_px": side_px}


def _of_open_clip(config: Mapping[str, Any]) -> ImageProcessor:
    how = config["preprocess_cfg"]
    side = how.get("size") or config["model_cfg"]["vision_cfg"].get("image_size", 224)
    side_px = side if isinstance(side, int) else _side({"height": side[-2], "width": side[-1]})
    mode = how.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise NetworkFileError(f'expected "resize_mode" shortest or squash, got {mode!r}')
    cut = {"shortest_edge_px": side_px, "rounds_half": True} if mode == "shortest" else {}
    return _make_plain(side_px, cut, how.get("interpolation") or "bicubic", how, _CLIP)


def _of_timm(how: Mapping[str, Any]) -> ImageProcessor:
    _, height, width = how["input_size"]
    side_px = _side({"height": height, "width": width})
    scaled_px = math.floor(side_px / (how.get("crop_pct") or 0.875))
    mode = how.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise NetworkFileError(f'expected "crop_mode" center or squash, got {mode!r}')
    edge = "shortest_edge_px" if mode == "center" else "square_px"
    cut = {edge: scaled_px, "rounds_half": True}
    if mode == "squash" and scaled_px == side_px:
        cut = {}
    return _make_plain(side_px, cut, how.get("interpolation") or "bilinear", how, _IMAGENET)


def _make_plain(
    side_px: int,
    cut: _Cut,
    resample: str,
    how: Mapping[str, Any],
    usual: Mapping[str, list[float]],
) -> ImageProcessor:
    """Return what open_clip and timm do: filters by name, pixels from 0 to 1."""
    if resample not in FILTERS.values():
        raise NetworkFileError(
            f'expected "interpolation" among {", ".join(FILTERS.values())}, got {resample!r}'
        )
    mean = _three(how.get("mean") or usual["image_mean"])
    deviation = _three(how.get("std") or usual["image_std"])
    return _make(side_px, cut, resample, mean, deviation)


def _make(
    input_size_px: int,
    cut: _Cut,
    resample: str,
    mean: list[float],
    deviation: list[float],
    scale: float = 1.0,
    layout: str | None = None,
    channels: str = "rgb",
) -> ImageProcessor:
    by_pixel = 255.0 / scale if scale > 0 else 0.0
    how = Preprocessing(
        resample=resample,
        reverse_channels=channels == "bgr",
        is_gray=channels == "gray",
        mean=tuple(value * by_pixel for value in mean),
        divisor=tuple(value * by_pixel for value in deviation),
        **cut,
    )
    before_px = how.cut_from_px or input_size_px
    if before_px < input_size_px:
        raise NetworkFileError(
            f"expected a crop within the image, got {input_size_px} pixels of {before_px}"
        )
    if not all(value > 0 for value in (input_size_px, scale, *deviation)):
        raise NetworkFileError("expected sizes, scale and deviations above 0")
    if before_px > MAX_SIDE_PX:
        raise NetworkFileError(f"expected images of at most {MAX_SIDE_PX} pixels, got {before_px}")
    return ImageProcessor(input_size_px, how, layout)


def _side(size: Mapping[str, Any]) -> int:
    sides = {size[key] for key in ("height", "width") if size.get(key) is not None}
    if len(sides) != 1:
        raise NetworkFileError(f"expected square images, got size {dict(size)}")
    return int(sides.pop())


def _choose(key: str, text: str, choices: Any) -> str:
    if (chosen := text.lower()) not in choices:
        raise NetworkFileError(
            f'preprocessing: expected {key} among {", ".join(choices)}, got "{text}"'
        )
    return chosen


def _whole(key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= MAX_SIDE_PX:
        raise NetworkFileError(
            f'preprocessing: expected 1 to {MAX_SIDE_PX} pixels as {key}, got "{text}"'
        )
    return int(text)


def _numbers(key: str, text: str, n: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
        if len(numbers) not in (1, n) or not all(map(math.isfinite, numbers)):
            raise ValueError
    except ValueError:
        many = f"one number or {n} with colons between" if n > 1 else "one number"
        raise NetworkFileError(f'preprocessing: expected {key} as {many}, got "{text}"') from None
    return numbers * n if len(numbers) == 1 else numbers


def _three(values: Any) -> list[float]:
    numbers = [float(value) for value in (values if isinstance(values, list) else [values])]
    if len(numbers) not in (1, 3):
        raise ValueError(f"expected one or three numbers, got {values}")
    return numbers * 3 if len(numbers) == 1 else numbers
