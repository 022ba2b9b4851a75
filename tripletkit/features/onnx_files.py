"""Encoders from ONNX files that someone exported or downloaded: what goes in, what comes out.

All that decides features is found in the file or said by the user, and becomes part of the facts
of the features, so that answering from stored ones needs no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tripletkit.data.decoding import PIXELS_VERSION
from tripletkit.errors import BackboneError, NetworkFileError, PreprocessingError
from tripletkit.features.backbones import FROM_FILE, Backbone, Preprocessing
from tripletkit.features.image_processor import (
    CONFIG_FILE,
    EXAMPLE,
    ImageProcessor,
    find_config,
    parse_processor,
    read_processor,
)
from tripletkit.features.onnx_engine import open_session, prepare_pixels
from tripletkit.features.weights_files import file_sha256

if TYPE_CHECKING:
    import onnxruntime

    from tripletkit.features.extract import FeatureFunction

SUFFIX = ".onnx"
# Outputs of exported encoders that are the image's features, the better first.
_FEATURE_OUTPUTS = ("image_embeds", "pooler_output", "sentence_embedding")
_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# How an output becomes one vector an image.
POOLINGS = {
    "none": "the vector as it is",
    "cls": "the first token",
    "mean": "the mean of all tokens, or of the map",
}


@dataclass(frozen=True)
class OnnxFile(Backbone):
    """An encoder from a file, in the place of a registered backbone.

    Attributes:
        image_input: name of the input that takes images.
        layout: of that input, `"nchw"` or `"nhwc"`.
        output: name of the output that is taken.
        pooling: a key of `POOLINGS`.
    """

    image_input: str = ""
    layout: str = ""
    output: str = ""
    pooling: str = ""

    def facts(self) -> dict[str, object]:
        """Return what of it decides the features; its name and place do not."""
        return {
            "backbone": FROM_FILE,
            "input_size_px": self.input_size_px,
            **self.preprocessing.facts(),
            "pixels_version": PIXELS_VERSION,
            "image_input": self.image_input,
            "layout": self.layout,
            "output": self.output,
            "pooling": self.pooling,
            "n_features": self.n_features,
        }

    def resized(self, size_px: int | None) -> Backbone:
        """Refuse another size: that of its images is part of its preprocessing.

        Raises:
            BackboneError: if it is another.
        """
        if size_px not in (None, self.input_size_px):
            raise BackboneError(
                f"{self.name}: expected images of {self.input_size_px} pixels, as its "
                f"preprocessing says, got {size_px}."
            )
        return self


def is_network_file(name: str) -> bool:
    """Return whether the name of a backbone is the path of an ONNX file."""
    return name.lower().endswith(SUFFIX)


def open_network_file(
    path: Path, preprocess: str | None = None, output: str | None = None
) -> OnnxFile:
    """Return the encoder in an ONNX file.

    Args:
        path: the file; data that it keeps in other files is found beside it.
        preprocess: what its images go through, as `parse_processor` takes it. Defaults to the
            `preprocessor_config.json` beside it.
        output: name of the output to take, and `:cls` or `:mean` where it gives tokens or a map.
            Defaults to what common encoders call it, or to the only one that is clear.
    Raises:
        NetworkFileError: if it is no ONNX file, takes no images, or it is not clear which output
            to take.
        PreprocessingError: if it is not said what its images go through.
    """
    check_network_file(path)
    session = open_session(path)
    image_input = _find_image_input(path, session.get_inputs())
    if preprocess is not None:
        processor = parse_processor(preprocess)
    elif (config := find_config(path)) is not None:
        processor = read_processor(config)
    else:
        raise PreprocessingError(
            f"{path}: expected {CONFIG_FILE} beside it, or to be told what its images go through: "
            f"`preprocess={EXAMPLE}`"
        )
    layout = _find_layout(path, image_input, processor)
    taken, pooling = _find_output(path, session.get_outputs(), output)
    encoder = OnnxFile(
        name=path.name,
        build="",
        n_features=0,
        input_size_px=processor.input_size_px,
        preprocessing=processor.preprocessing,
        weights=None,
        licence="its own",
        paper="",
        image_input=image_input.name,
        layout=layout,
        output=taken,
        pooling=pooling,
    )
    side = processor.input_size_px
    tried = make_file_function(encoder, session)(np.zeros((1, side, side, 3), np.uint8))
    if tried.ndim != 2 or len(tried) != 1 or not tried.shape[1]:
        raise NetworkFileError(
            f'{path}: expected a vector for each image from "{taken}" ({POOLINGS[pooling]}), got '
            f"shape {tried.shape[1:]}"
        )
    return replace(encoder, n_features=tried.shape[1])


def recorded_network_file(facts: Mapping[str, Any], name: str) -> OnnxFile:
    """Return the encoder of a file from the facts of its features.

    Args:
        facts: as `OnnxFile.facts` gave them.
        name: what to call it.
    """
    divisor = facts["divisor"]
    how = Preprocessing(
        resample=facts["resample"],
        reverse_channels=facts["reverse_channels"],
        mean=tuple(facts["mean"]),
        divisor=tuple(divisor) if isinstance(divisor, list) else divisor,
        shortest_edge_px=facts.get("shortest_edge_px"),
    )
    return OnnxFile(
        name=name,
        build="",
        n_features=facts["n_features"],
        input_size_px=facts["input_size_px"],
        preprocessing=how,
        weights=None,
        licence="its own",
        paper="",
        image_input=facts["image_input"],
        layout=facts["layout"],
        output=facts["output"],
        pooling=facts["pooling"],
    )


def make_file_function(encoder: OnnxFile, session: onnxruntime.InferenceSession) -> FeatureFunction:
    """Return the function from images to features of an encoder from a file.

    Args:
        session: of its file.
    Returns:
        A function from `(batch, side, side, 3)` uint8 to `(batch, n_features)` float32.
    """
    (taken,) = (value for value in session.get_inputs() if value.name == encoder.image_input)
    dtype = _FLOATS[taken.type]
    # Many exports take one image at a time.
    batch_size = taken.shape[0] if isinstance(taken.shape[0], int) else None

    def compute(pixels: np.ndarray) -> np.ndarray:
        prepared = prepare_pixels(pixels, encoder.preprocessing)
        if encoder.layout == "nchw":
            prepared = prepared.transpose(0, 3, 1, 2)
        prepared = np.ascontiguousarray(prepared, dtype)
        size = batch_size or len(prepared)
        found = []
        for start in range(0, len(prepared), size):
            part = prepared[start : start + size]
            batch = np.zeros((size, *part.shape[1:]), dtype)
            batch[: len(part)] = part
            (values,) = session.run([encoder.output], {taken.name: batch})
            found.append(_pool(values, encoder)[: len(part)])
        return np.concatenate(found).astype(np.float32)

    return compute


def network_sha256(path: Path) -> str:
    """Return the hash of an ONNX file and of all data that it keeps in other files.

    Raises:
        NetworkFileError: if it is no ONNX file, or data of it is missing.
        WeightsError: if a file cannot be read.
    """
    own = file_sha256(path)
    parts = [file_sha256(path.parent / name) for name in check_network_file(path)]
    return hashlib.sha256("".join([own, *parts]).encode()).hexdigest() if parts else own


def check_network_file(path: Path) -> list[str]:
    """Return the names of the other files that an ONNX file keeps data in.

    Raises:
        NetworkFileError: if it is no ONNX file, or one of these is missing.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise NetworkFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise NetworkFileError(f"{path}: expected an ONNX file, cannot be read as one") from error
    if not model.graph.node or not model.opset_import:
        raise NetworkFileError(f"{path}: expected an ONNX file, got one without a network")
    # In practice these are a graph's weights and its constants.
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    names = {
        entry.value
        for tensor in tensors
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in sorted(names):
        if not (path.parent / name).is_file():
            raise NetworkFileError(f"{path}: expected its data in {name} beside it, there is none")
    return sorted(names)


def _pool(values: np.ndarray, encoder: OnnxFile) -> np.ndarray:
    if encoder.pooling == "cls":
        return values[:, 0]
    if encoder.pooling == "mean":
        is_map = values.ndim == 4
        axes = ((2, 3) if encoder.layout == "nchw" else (1, 2)) if is_map else 1
        return values.mean(axis=axes, dtype=np.float32)
    return values.reshape(len(values), -1) if values.ndim == 4 else values


def _find_image_input(path: Path, inputs: Sequence[Any]) -> Any:
    if texts := [value.name for value in inputs if value.name in _TEXT_INPUTS]:
        raise NetworkFileError(
            f"{path}: expected an encoder of images alone, got one that wants text too "
            f"({', '.join(texts)}). Export the part that takes images."
        )
    images = [value for value in inputs if value.type in _FLOATS and len(value.shape) == 4]
    if len(images) != 1 or len(inputs) != 1:
        got = "; ".join(f"{value.name} {value.type} {value.shape}" for value in inputs)
        raise NetworkFileError(
            f"{path}: expected one input, images of floats in four dimensions, got {got or 'none'}"
        )
    return images[0]


def _find_layout(path: Path, image_input: Any, processor: ImageProcessor) -> str:
    """Return where the channels are: the file says it, or the user, or the name of the input."""
    shape = list(image_input.shape)
    fits = {
        layout: all(
            not isinstance(got, int) or got == want
            for got, want in zip(
                shape[1:],
                _shape(layout, processor.input_size_px),
                strict=True,
            )
        )
        for layout in ("nchw", "nhwc")
    }
    said = processor.layout
    if said is None:
        says_channels = [isinstance(side, int) or "channel" in str(side) for side in shape]
        if shape[1] == 3 or (says_channels[1] and not isinstance(shape[1], int)):
            said = "nchw"
        elif shape[3] == 3 or (says_channels[3] and not isinstance(shape[3], int)):
            said = "nhwc"
        elif image_input.name == "pixel_values":
            # What Hugging Face calls images, always with channels first.
            said = "nchw"
        else:
            raise PreprocessingError(
                f"{path}: expected an input that says where its channels are, got "
                f"{image_input.name} {shape}. Add layout=nchw or layout=nhwc to `preprocess`."
            )
    if not fits[said]:
        raise PreprocessingError(
            f"{path}: expected images of {processor.input_size_px} pixels ({said}) to fit its "
            f"input {image_input.name} {shape}. Give the right size and layout with `preprocess`."
        )
    return said


def _shape(layout: str, side: int) -> tuple[int, int, int]:
    return (3, side, side) if layout == "nchw" else (side, side, 3)


def _find_output(path: Path, outputs: Sequence[Any], asked: str | None) -> tuple[str, str]:
    """Return which output is taken and how it is pooled."""
    rank_of = {
        value.name: len(value.shape) for value in outputs if value.type in _FLOATS and value.shape
    }
    choices = {
        name: {2: ("none",), 3: ("cls", "mean"), 4: ("mean",)}.get(rank, ())
        for name, rank in rank_of.items()
    }
    texts = [
        name if pooling == "none" else f"{name}:{pooling}"
        for name, poolings in choices.items()
        for pooling in poolings
    ]
    if not texts:
        shapes = "; ".join(f"{value.name} {value.shape}" for value in outputs)
        raise NetworkFileError(
            f"{path}: expected an output of vectors, tokens or maps, got {shapes}"
        )
    if asked is not None:
        name, _, pooling = asked.rpartition(":") if asked not in choices else (asked, "", "")
        poolings = choices.get(name, ())
        pooling = pooling or (poolings[0] if len(poolings) == 1 else "")
        if pooling not in poolings:
            raise NetworkFileError(
                f'{path}: expected an output among {", ".join(texts)}, got "{asked}"'
            )
        return name, pooling
    for name in _FEATURE_OUTPUTS:
        if choices.get(name) == ("none",):
            return name, "none"
    if len(texts) == 1:
        (name, (pooling,)), *_ = ((n, p) for n, p in choices.items() if p)
        return name, pooling
    raise NetworkFileError(
        f"{path}: has several outputs that could be the features. Choose one with "
        f"`backbone_output`: {', '.join(texts)}"
    )
