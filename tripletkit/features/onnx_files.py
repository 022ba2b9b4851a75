"""Encoders from ONNX files that someone exported or downloaded: what goes in, what comes out.

All that decides features is found in the file or said by the user, and becomes part of the facts
of the features, so that answering from stored ones needs no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tripletkit import defaults
from tripletkit.data.decoding import PIXELS_VERSION
from tripletkit.data.outputs import note_input
from tripletkit.errors import NetworkFileError
from tripletkit.features.backbones import FROM_FILE, Backbone, Preprocessing
from tripletkit.features.encoder_trial import (
    TOLERANCE,
    TOLERANCE_HALF,
    RowCountError,
    trial_images,
    try_encoder,
)
from tripletkit.features.image_processor import (
    CONFIG_FILE,
    EXAMPLE,
    ImageProcessor,
    find_config,
    parse_processor,
    read_processor,
)
from tripletkit.features.onnx_engine import (
    open_session,
    order_channels,
    prepare_pixels,
    run_network,
)
from tripletkit.features.store import file_stamp
from tripletkit.features.weights_files import file_sha256

if TYPE_CHECKING:
    import onnxruntime

    from tripletkit.features.extract import FeatureFunction

SUFFIX = ".onnx"
# Outputs of exported encoders that are the image's features, the better first.
_FEATURE_OUTPUTS = ("image_embeds", "pooler_output", "sentence_embedding")
_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# What images may be given as; a network that takes whole numbers scales them by itself.
_INPUTS: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
# Layers whose scale is that of the whole batch.
_OF_BATCH = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger", "ConvInteger"}
_CLASSIFYING_LAYERS = ("Softmax", "LogSoftmax", "Sigmoid", "Hardmax", "ArgMax")
_CLASSIFYING_NAMES = ("logits", "logit", "probs", "probabilities", "scores", "predictions")
# Classes of ImageNet, with and without one for what is none of them.
_CLASSIFYING_SIZES = (1000, 1001, 21841, 21843)
_TRIAL_LIMIT_S = 120.0
# Sides of images that encoders are exported for.
_SIDES_TRIED = (
    *(32, 64, 96, 112, 128, 160, 192, 196, 224, 240, 256, 260, 280, 288, 299, 300, 320, 331),
    *(336, 378, 384, 392, 416, 448, 476, 480, 512, 518, 560, 576, 600, 640, 768, 896, 1024),
)


class _Graph(NamedTuple):
    """What has to be known of the graph in an ONNX file."""

    data_files: tuple[str, ...]  # beside it, that it keeps data in
    has_one_written_in: bool  # a shape in it begins with a batch of one
    scales_by_batch: bool
    is_half: bool
    made_by: Mapping[str, str]  # name of a value -> the kind of layer that gives it


@dataclass(frozen=True)
class OnnxFile(Backbone):
    """An encoder from a file, in the place of a registered backbone.

    Attributes:
        image_input: name of the input that takes images.
        layout: of that input, `"nchw"` or `"nhwc"`.
        output: name of the output that is taken.
        pooling: how that becomes a vector: `"none"`, `"cls"` (the first token) or `"mean"` (of all
            tokens, or of the map).
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

    @property
    def batch_size(self) -> int:
        """How many images it takes at once: fewer of large ones, so that memory has a bound."""
        usual = defaults.EXTRACT_BATCH_SIZE
        return max(1, min(usual, usual * 448**2 // self.input_size_px**2))


def is_network_file(name: str) -> bool:
    """Return whether the name of a backbone is the path of an ONNX file."""
    return name.lower().endswith(SUFFIX)


def open_network_file(
    path: Path, preprocess: str | None = None, output: str | None = None
) -> OnnxFile:
    """Return the encoder in an ONNX file, once it was tried.

    Args:
        path: the file; data that it keeps in other files is found beside it.
        preprocess: what its images go through, as `parse_processor` takes it. Defaults to the
            configuration beside it.
        output: name of the output to take, and `:cls` or `:mean` where it gives tokens or a map.
            Defaults to what common encoders call it, or to the only one that is clear.
    """
    note_input(path)
    for other in data_files(path):
        note_input(path.parent / other)
    session = _open_session(path, _stamp(path))
    image_input = _find_image_input(path, session.get_inputs())
    takes_whole = _INPUTS[image_input.type] is np.uint8
    if preprocess is not None:
        processor = parse_processor(preprocess, scales=not takes_whole)
    elif (config := find_config(path)) is not None:
        processor = read_processor(config)
    else:
        raise NetworkFileError(
            f"{path}: expected {CONFIG_FILE} beside it, or to be told what its images go through: "
            f"`preprocess={EXAMPLE}`"
        )
    if takes_whole:
        processor = processor.without_scaling()
    encoder = OnnxFile(
        name=path.name,
        build="",
        n_features=0,
        input_size_px=processor.input_size_px,
        preprocessing=processor.preprocessing,
        image_input=image_input.name,
        layout=_find_layout(path, image_input, processor),
    )
    values = _try_all_outputs(path, encoder, session)
    taken, pooling = _find_output(path, values, encoder, output)
    encoder = replace(encoder, output=taken, pooling=pooling)
    encoder = replace(encoder, n_features=_pool(values[taken], encoder).shape[-1])
    open_file_function(encoder, path)
    return encoder


def recorded_network_file(facts: Mapping[str, Any], name: str) -> OnnxFile:
    """Return the encoder of a file from what `OnnxFile.facts` gave."""
    names = ("n_features", "input_size_px", "image_input", "layout", "output", "pooling")
    told = {key: facts[key] for key in names}
    return OnnxFile(name=name, build="", preprocessing=Preprocessing.of_facts(facts), **told)


def open_file_function(encoder: OnnxFile, path: Path) -> FeatureFunction:
    """Return the function from images to features of an encoder from a file, once it was tried.

    A network that one image is written into is given images one at a time, and so is one that
    scales by the whole batch (dynamic quantisation).
    """
    return _open_tried(encoder, path, _stamp(path))


@lru_cache(maxsize=4)
def _open_tried(encoder: OnnxFile, path: Path, stamp: tuple[object, ...]) -> FeatureFunction:
    session, graph = _open_session(path, stamp), _inspect(path)
    (taken,) = (value for value in session.get_inputs() if value.name == encoder.image_input)
    batch_size = taken.shape[0] if isinstance(taken.shape[0], int) else None
    if graph.scales_by_batch:
        batch_size = batch_size or 1

    def tried(size: int | None) -> FeatureFunction:
        within = _make_function(encoder, session, taken, size, str(path), _TRIAL_LIMIT_S)
        tolerance = TOLERANCE_HALF if graph.is_half else TOLERANCE
        try_encoder(str(path), within, encoder.input_size_px, tolerance)
        return _make_function(encoder, session, taken, size, str(path))

    try:
        return tried(batch_size)
    except RowCountError:
        if batch_size is not None or not graph.has_one_written_in:
            raise
    except NetworkFileError as error:
        if batch_size is not None or not isinstance(error.__cause__, Exception):
            raise
        # It failed, which an image alone may not.
    return tried(1)


@lru_cache(maxsize=4)
def _open_session(path: Path, _stamp: tuple[object, ...]) -> onnxruntime.InferenceSession:
    return open_session(path)


def _stamp(path: Path) -> tuple[object, ...]:
    """Return what changes whenever a network's files do."""
    files = [path, *(path.parent / name for name in data_files(path))]
    return tuple(file_stamp(file.stat()) for file in files)


def _make_function(
    encoder: OnnxFile,
    session: onnxruntime.InferenceSession,
    taken: Any,
    batch_size: int | None,
    name: str,
    limit_s: float | None = None,
) -> FeatureFunction:
    dtype = _INPUTS[taken.type]

    def compute(pixels: np.ndarray) -> np.ndarray:
        prepared = _prepare(pixels, encoder, dtype)
        size = batch_size or len(prepared)
        found = []
        for start in range(0, len(prepared), size):
            part = prepared[start : start + size]
            batch = np.zeros((size, *part.shape[1:]), dtype)
            batch[: len(part)] = part
            (values,) = run_network(session, [encoder.output], {taken.name: batch}, name, limit_s)
            vectors = _pool(values, encoder)
            if len(vectors) != size:
                raise RowCountError(
                    f"{name}: expected a vector for each image, got {len(vectors)} for {size}. "
                    "It mixes the images of a batch, or was exported for a batch of one."
                )
            found.append(vectors[: len(part)])
        return np.concatenate(found).astype(np.float32)

    return compute


def _prepare(pixels: np.ndarray, encoder: OnnxFile, dtype: type[np.generic]) -> np.ndarray:
    """Return images as the network takes them: `(n, 3, side, side)` where its layout is nchw."""
    how = encoder.preprocessing
    is_whole = dtype is np.uint8
    prepared = order_channels(pixels, how) if is_whole else prepare_pixels(pixels, how)
    if encoder.layout == "nchw":
        prepared = prepared.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(prepared, dtype)


def _try_all_outputs(
    path: Path, encoder: OnnxFile, session: onnxruntime.InferenceSession
) -> dict[str, np.ndarray]:
    """Return all outputs of one image, by name; of what fails, say which size would not."""
    names = [value.name for value in session.get_outputs()]
    (taken,) = session.get_inputs()

    def run(side_px: int) -> list[Any]:
        image = _prepare(trial_images(side_px)[:1], encoder, _INPUTS[taken.type])
        if isinstance(taken.shape[0], int):
            image = np.repeat(image, taken.shape[0], axis=0)
        return run_network(session, names, {taken.name: image}, str(path), _TRIAL_LIMIT_S)

    def runs(side_px: int) -> bool:
        with suppress(NetworkFileError):
            return bool(run(side_px))
        return False

    try:
        found = run(encoder.input_size_px)
    except NetworkFileError as error:
        right_px = next(filter(runs, _SIDES_TRIED), None)
        if right_px is None:
            raise
        raise NetworkFileError(
            f"{path}: was exported for images of {right_px} pixels, its preprocessing makes them "
            f"{encoder.input_size_px}. Say it with `preprocess`, such as size={right_px}."
        ) from error
    outputs = zip(names, found, strict=True)
    return {name: value for name, value in outputs if isinstance(value, np.ndarray)}


def network_sha256(path: Path) -> str:
    """Return the hash of an ONNX file and of all data that it keeps in other files."""
    own = file_sha256(path)
    parts = [file_sha256(path.parent / name) for name in data_files(path)]
    return hashlib.sha256("".join([own, *parts]).encode()).hexdigest() if parts else own


def data_files(path: Path) -> tuple[str, ...]:
    """Return the names of the other files that an ONNX file keeps data in, which must be there."""
    names = _inspect(path).data_files
    for name in names:
        if not (path.parent / name).is_file():
            raise NetworkFileError(f"{path}: expected its data in {name} beside it, there is none")
    return names


def _inspect(path: Path) -> _Graph:
    try:
        return _inspect_once(path, file_stamp(path.stat()))
    except OSError as error:
        raise NetworkFileError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=8)
def _inspect_once(path: Path, _stamp: tuple[int, int]) -> _Graph:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise NetworkFileError(f"{path}: expected an ONNX file, cannot be read as one") from error
    graph = model.graph
    if not graph.node or not model.opset_import:
        raise NetworkFileError(f"{path}: expected an ONNX file, got one without a network")
    # In practice these hold a graph's arrays: its weights and its constants.
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors[node.output[0]] = attribute.t
    entries = (entry for tensor in tensors.values() for entry in tensor.external_data)
    kinds = {tensor.data_type for tensor in graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in graph.output}
    # Reshape of old files has its shape in an attribute, and one input.
    shapes = [
        onnx.numpy_helper.to_array(tensors[name]).ravel()[:1].tolist()
        for node in graph.node
        if node.op_type in ("Reshape", "Expand")
        for name in node.input[1:2]
        if name in tensors and not tensors[name].external_data
    ]
    return _Graph(
        tuple(sorted({entry.value for entry in entries if entry.key == "location"})),
        [1] in shapes,
        not _OF_BATCH.isdisjoint(node.op_type for node in graph.node),
        onnx.TensorProto.FLOAT16 in kinds,
        {name: node.op_type for node in graph.node for name in node.output},
    )


def _pool(values: np.ndarray, encoder: OnnxFile) -> np.ndarray:
    if encoder.pooling == "cls":
        return values[:, 0]
    if encoder.pooling == "mean":
        is_map = values.ndim == 4
        axes = ((2, 3) if encoder.layout == "nchw" else (1, 2)) if is_map else 1
        return values.mean(axis=axes, dtype=np.float32)
    return values


def _find_image_input(path: Path, inputs: Sequence[Any]) -> Any:
    if texts := [value.name for value in inputs if value.name in _TEXT_INPUTS]:
        raise NetworkFileError(
            f"{path}: expected an encoder of images alone, got one that wants text too "
            f"({', '.join(texts)}). Export the part that takes images."
        )
    images = [value for value in inputs if value.type in _INPUTS and len(value.shape) == 4]
    if len(images) != 1 or len(inputs) != 1:
        got = "; ".join(f"{value.name} {value.type} {value.shape}" for value in inputs)
        raise NetworkFileError(
            f"{path}: expected one input, images of floats or uint8 in four dimensions, got "
            f"{got or 'none'}"
        )
    return images[0]


def _find_layout(path: Path, image_input: Any, processor: ImageProcessor) -> str:
    """Return where the channels are: the file says it, or the user, or the name of the input."""
    shape, side = list(image_input.shape), processor.input_size_px
    n_channels = 1 if processor.preprocessing.is_gray else 3
    said = processor.layout
    if said is None:
        says_channels = [isinstance(size, int) or "channel" in str(size) for size in shape]
        if shape[1] in (1, 3) or (says_channels[1] and not isinstance(shape[1], int)):
            said = "nchw"
        elif shape[3] in (1, 3) or (says_channels[3] and not isinstance(shape[3], int)):
            said = "nhwc"
        elif image_input.name == "pixel_values":
            # What Hugging Face calls images, always with channels first.
            said = "nchw"
        else:
            raise NetworkFileError(
                f"{path}: expected an input that says where its channels are, got "
                f"{image_input.name} {shape}. Add layout=nchw or layout=nhwc to `preprocess`."
            )
    wanted = (n_channels, side, side) if said == "nchw" else (side, side, n_channels)
    if any(
        isinstance(got, int) and got != want for got, want in zip(shape[1:], wanted, strict=True)
    ):
        raise NetworkFileError(
            f"{path}: expected images of {side} pixels ({said}) to fit its input "
            f"{image_input.name} {shape}. Give the right size, layout and channels (such as "
            "channels=gray) with `preprocess`."
        )
    return said


def _find_output(
    path: Path,
    values: Mapping[str, np.ndarray],
    encoder: OnnxFile,
    asked: str | None,
) -> tuple[str, str]:
    """Return which output is taken and how it is pooled, from what each gives for an image."""
    choices = {
        name: {2: ("none",), 3: ("cls", "mean"), 4: ("mean",)}.get(found.ndim, ())
        for name, found in values.items()
        if found.dtype.kind == "f"
    }
    choice_of = {
        name if pooling == "none" else f"{name}:{pooling}": (name, pooling)
        for name, poolings in choices.items()
        for pooling in poolings
    }
    if not choice_of:
        shapes = "; ".join(f"{name} {found.shape}" for name, found in values.items())
        raise NetworkFileError(
            f"{path}: expected an output of vectors, tokens or maps, got {shapes}"
        )
    if asked is not None:
        if choices.get(asked) == ("mean",):
            return asked, "mean"
        if asked not in choice_of:
            raise NetworkFileError(
                f'{path}: expected an output among {", ".join(choice_of)}, got "{asked}"'
            )
        return choice_of[asked]
    for name in _FEATURE_OUTPUTS:
        if choices.get(name) == ("none",):
            return name, "none"
    answers = {
        name: why
        for name in choices
        if (why := _why_classifier(path, name, _pool(values[name], encoder)))
    }
    left = {text: choice for text, choice in choice_of.items() if choice[0] not in answers}
    if not left:
        name, why = next(iter(answers.items()))
        raise NetworkFileError(
            f"{path}: its output {name} is a classifier's answer, not features: {why}. Export a "
            f"layer before it, or take it all the same with `backbone_output={name}`."
        )
    if len(left) > 1:
        raise NetworkFileError(
            f"{path}: has several outputs that could be the features. Choose one with "
            f"`backbone_output`: {', '.join(left)}"
        )
    return next(iter(left.values()))


def _why_classifier(path: Path, name: str, values: np.ndarray) -> str:
    """Say why an output is the answer of a classifier; empty where it is not."""
    if values.ndim != 2:
        return ""
    row, n = values[0].astype(np.float64), values.shape[1]
    made_by = _inspect(path).made_by.get(name)
    if n == 1:
        return "1 number"
    if row.min() >= 0 and abs(row.sum() - 1) < 1e-3:
        return f"{n} numbers between 0 and 1 that sum to 1"
    if row.max() <= 0 and abs(np.exp(row).sum() - 1) < 1e-3:
        return f"the logarithms of {n} numbers that sum to 1"
    if made_by in _CLASSIFYING_LAYERS:
        return f"{n} numbers behind a layer {made_by}"
    if name.lower() in _CLASSIFYING_NAMES:
        return f"{n} numbers that are called {name}"
    if n in _CLASSIFYING_SIZES:
        return f"{n} numbers, as many as ImageNet has classes"
    return ""
