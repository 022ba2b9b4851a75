"""Encoders from ONNX files, here or on the Hugging Face hub: what goes in, what comes out.

All that decides features is found in the file or said by the user, and becomes part of the facts
of the features, so that answering from stored ones needs no file. On the hub only a name that the
user gave is looked up. What is in the hub's own cache is taken without the network; the commit of
the repository and the hash of the file become part of a model's record.

An encoder that others made is tried before its first vector is kept: the vector of an image must
not depend on the other images of a batch, nor on chance. Two different images are encoded alone,
together, in the other order, and again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tripletkit import defaults
from tripletkit.data.decoding import PIXELS_VERSION
from tripletkit.data.outputs import note_input
from tripletkit.errors import BackboneError, NetworkFileError, WeightsError
from tripletkit.features.backbones import (
    FROM_FILE,
    Backbone,
    FeatureFunction,
    Preprocessing,
    file_sha256,
)
from tripletkit.features.image_processor import CONFIG_FILES, ImageProcessor, open_processor
from tripletkit.features.onnx_engine import open_session, prepare_pixels, run_network
from tripletkit.features.store import file_stamp
from tripletkit.registry import import_extra

if TYPE_CHECKING:
    import onnxruntime

_log = logging.getLogger("tripletkit")

_SUFFIX = ".onnx"
_HUB = "hf:"
_HUB_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(?P<file>/[\w./-]+\.onnx)?"
)
# What files of the part that sees images are called, before their numbers are said.
_STEMS = ("vision_model", "image_encoder", "visual", "vision", "model", "encoder")
# How a file's name ends by how the numbers of a network are kept; the better has the lower number.
_PRECISIONS = {"": 0, "fp32": 0, "fp16": 1, "int8": 2, "quantized": 2, "uint8": 2}
_PRECISION = re.compile(r"_(fp32|fp16|int8|quantized|uint8|q4|q4f16|bnb4|q8|q2|o[1-4]|fp8|bf16)$")
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
# Largest difference of two vectors of one image, as a share of its largest number. Sums of floats
# in another order differ by less than a hundredth of that.
_TOLERANCE = 1e-3
_TOLERANCE_HALF = 2e-2
_TOLERANCE_AGAIN = 1e-4
# Sides of images that encoders are exported for.
_SIDES_TRIED = (
    *(32, 64, 96, 112, 128, 160, 192, 196, 224, 240, 256, 260, 280, 288, 299, 300, 320, 331),
    *(336, 378, 384, 392, 416, 448, 476, 480, 512, 518, 560, 576, 600, 640, 768, 896, 1024),
)


class _Graph(NamedTuple):
    """What has to be known of the graph in an ONNX file."""

    data_files: tuple[str, ...]  # beside it, that it keeps data in
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

    def hash_weights(self, path: Path) -> str:
        own = file_sha256(path)
        parts = [file_sha256(path.parent / name) for name in _data_files(path)]
        return hashlib.sha256("".join([own, *parts]).encode()).hexdigest() if parts else own

    def open_function(self, find_weights: Callable[[], Path]) -> FeatureFunction:
        """Return the tried function from images to features; one image at a time where the network
        takes or gives one, or scales by the whole batch (dynamic quantisation)."""
        path = find_weights()
        return _open_tried(self, path, _stamp(path))

    @property
    def batch_size(self) -> int:
        """How many images it takes at once: fewer of large ones, so that memory has a bound."""
        usual = defaults.EXTRACT_BATCH_SIZE
        return max(1, min(usual, usual * 448**2 // self.input_size_px**2))


def is_network_name(name: str) -> bool:
    """Return whether the name of a backbone is the path of an ONNX file, or is on the hub."""
    return name.startswith(_HUB) or name.lower().endswith(_SUFFIX)


def check_network_name(name: str) -> None:
    """Refuse the name of a network that cannot be one, or a file that is not there."""
    if name.startswith(_HUB):
        _match_hub_name(name)
    elif not Path(name).is_file():
        raise BackboneError(f"{name}: expected an ONNX file, there is none.")


def find_network(name: str) -> Path:
    """Return the path of an ONNX file, downloaded if need be where the name is on the hub."""
    return _find_on_hub(name).path if name.startswith(_HUB) else Path(name)


def open_network(
    name: str, preprocess: str | None = None, output: str | None = None
) -> tuple[OnnxFile, Path, str]:
    """Return the encoder in an ONNX file once it was tried, its path, and what a record says of it.

    For `preprocess` see `open_processor`; `output` names the output to take, with `:cls` or `:mean`
    where it gives tokens or a map, else it is what common encoders call it, or the only one that is
    clear.
    """
    if name.startswith(_HUB):
        found = _find_on_hub(name)
        encoder = replace(_open_encoder(found.path, preprocess, output), name=_HUB + found.repo)
        return encoder, found.path, f"{_HUB}{found.repo}@{found.commit}/{found.file}"
    path = Path(name)
    return _open_encoder(path, preprocess, output), path, str(path.absolute())


def _open_encoder(path: Path, preprocess: str | None, output: str | None) -> OnnxFile:
    note_input(path)
    for other in _data_files(path):
        note_input(path.parent / other)
    session = _open_session(path, _stamp(path))
    image_input = _find_image_input(path, session.get_inputs())
    takes_whole = _INPUTS[image_input.type] is np.uint8
    processor = open_processor(path, preprocess, scales=not takes_whole)
    encoder = OnnxFile(
        name=path.name,
        build="",
        n_features=0,
        input_size_px=processor.input_size_px,
        preprocessing=processor.preprocessing,
        image_input=image_input.name,
        layout=_find_layout(path, image_input, processor),
    )
    values = _run_all_outputs(path, encoder, session)
    taken, pooling = _find_output(path, values, encoder, output)
    encoder = replace(encoder, output=taken, pooling=pooling)
    encoder = replace(encoder, n_features=_pool(values[taken], encoder).shape[-1])
    encoder.open_function(lambda: path)
    return encoder


def recorded_network(facts: Mapping[str, Any], origin: str | None) -> OnnxFile:
    """Return the encoder of a file from its `facts` and what a record says of it."""
    name = Path(origin or FROM_FILE).name
    if origin is not None and origin.startswith(_HUB):
        name = _HUB + _match_hub_name(origin)["repo"]
    names = ("n_features", "input_size_px", "image_input", "layout", "output", "pooling")
    told = {key: facts[key] for key in names}
    return OnnxFile(name=name, build="", preprocessing=Preprocessing.of_facts(facts), **told)


@lru_cache(maxsize=4)
def _open_tried(encoder: OnnxFile, path: Path, stamp: tuple[object, ...]) -> FeatureFunction:
    session, graph = _open_session(path, stamp), _inspect(path)
    (taken,) = (value for value in session.get_inputs() if value.name == encoder.image_input)
    dtype = _INPUTS[taken.type]

    def compute(pixels: np.ndarray, at_once: int | None, limit_s: float | None) -> np.ndarray:
        prepared = _prepare(pixels, encoder, dtype)
        size = at_once or len(prepared)
        found = []
        for start in range(0, len(prepared), size):
            part = prepared[start : start + size]
            batch = np.zeros((size, *part.shape[1:]), dtype)
            batch[: len(part)] = part
            given = {taken.name: batch}
            (values,) = run_network(session, [encoder.output], given, str(path), limit_s)
            vectors = _pool(values, encoder)
            if len(vectors) != size:
                raise _RowCountError(
                    f"{path}: expected a vector for each image, got {len(vectors)} for {size}. "
                    "It mixes the images of a batch."
                )
            found.append(vectors[: len(part)])
        return np.concatenate(found).astype(np.float32)

    def tried(at_once: int | None) -> FeatureFunction:
        within = partial(compute, at_once=at_once, limit_s=_TRIAL_LIMIT_S)
        tolerance = _TOLERANCE_HALF if graph.is_half else _TOLERANCE
        try_encoder(str(path), within, encoder.input_size_px, tolerance)
        return partial(compute, at_once=at_once, limit_s=None)

    if isinstance(taken.shape[0], int) or graph.scales_by_batch:
        return tried(taken.shape[0] if isinstance(taken.shape[0], int) else 1)
    try:
        return tried(None)
    except NetworkFileError as error:
        if not isinstance(error, _RowCountError) and error.__cause__ is None:
            raise
        # It fails on several images, or mixes them, which an image alone may not.
    return tried(1)


@lru_cache(maxsize=4)
def _open_session(path: Path, _stamp: tuple[object, ...]) -> onnxruntime.InferenceSession:
    return open_session(path)


def _stamp(path: Path) -> tuple[object, ...]:
    """Return what changes whenever a network's files do."""
    files = [path, *(path.parent / name for name in _data_files(path))]
    return tuple(file_stamp(file.stat()) for file in files)


def _prepare(pixels: np.ndarray, encoder: OnnxFile, dtype: type[np.generic]) -> np.ndarray:
    """Return images as the network takes them: `(n, 3, side, side)` where its layout is nchw."""
    prepared = prepare_pixels(pixels, encoder.preprocessing, dtype)
    if encoder.layout == "nchw":
        prepared = prepared.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(prepared, dtype)


def _run_all_outputs(
    path: Path, encoder: OnnxFile, session: onnxruntime.InferenceSession
) -> dict[str, np.ndarray]:
    """Return all outputs of one image, by name; of what fails, say which size would not."""
    names = [value.name for value in session.get_outputs()]
    (taken,) = session.get_inputs()

    def run(side_px: int) -> list[Any]:
        image = _prepare(_trial_images(side_px)[:1], encoder, _INPUTS[taken.type])
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


def _data_files(path: Path) -> tuple[str, ...]:
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
    return _Graph(
        tuple(sorted({entry.value for entry in entries if entry.key == "location"})),
        not _OF_BATCH.isdisjoint(node.op_type for node in graph.node),
        onnx.TensorProto.FLOAT16 in kinds,
        {name: node.op_type for node in graph.node for name in node.output},
    )


class _RowCountError(NetworkFileError):
    """An encoder does not give a vector for each image."""


def _trial_images(side_px: int) -> np.ndarray:
    """Return noise and a slope of colours: `(2, side_px, side_px, 3)` uint8."""
    noise = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    slope = np.linspace(0, 255, side_px)
    rows, columns = np.meshgrid(slope, slope, indexing="ij")
    colours = np.stack([rows, columns, 255 - (rows + columns) / 2], axis=-1)
    return np.stack([noise, colours.astype(np.uint8)])


def try_encoder(
    name: str,
    function: Callable[[np.ndarray], np.ndarray],
    side_px: int,
    tolerance: float = _TOLERANCE,
) -> int:
    """Return how many numbers a vector has, refusing an encoder for which other images matter."""
    images = _trial_images(side_px)

    def encode(chosen: np.ndarray) -> np.ndarray:
        vectors = function(np.ascontiguousarray(chosen))
        _check_vectors(name, vectors, len(chosen))
        return vectors.astype(np.float64)

    alone = encode(images[:1])
    if not _is_close(encode(images[:1]), alone, _TOLERANCE_AGAIN):
        raise NetworkFileError(
            f"{name}: gives other numbers for the same image when it is asked again, such as with "
            "dropout left on. Export it for inference."
        )
    alone = np.concatenate([alone, encode(images[1:])])
    for order in ((0, 1), (1, 0)):
        if not _is_close(encode(images[list(order)]), alone[list(order)], tolerance):
            raise NetworkFileError(
                f"{name}: gives other numbers for an image alone than among others, such as with "
                "batch normalisation left in training mode. Export it for inference."
            )
    if _is_close(alone[:1], alone[1:], 1e-6):
        raise NetworkFileError(
            f"{name}: gives the same numbers for two different images, so that they tell nothing."
        )
    return alone.shape[1]


def _check_vectors(name: str, vectors: np.ndarray, n_images: int) -> None:
    if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or not vectors.shape[1]:
        raise NetworkFileError(
            f"{name}: expected a vector for each image, got {vectors.dtype} of shape "
            f"{vectors.shape} for {n_images} images."
        )
    if len(vectors) != n_images:
        raise _RowCountError(
            f"{name}: expected a vector for each image, got {len(vectors)} for {n_images}. It "
            "mixes the images of a batch."
        )
    if not np.isfinite(vectors).all():
        raise NetworkFileError(
            f"{name}: expected finite numbers, gives others for an image of noise or a slope of "
            "colours. Its preprocessing may be another."
        )


def _is_close(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    if got.shape != want.shape:
        return False
    largest = np.abs(want).max(axis=1, keepdims=True)
    return bool((np.abs(got - want) <= tolerance * largest).all())


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
        says_channels = [size in (1, 3) or "channel" in str(size) for size in shape]
        # What Hugging Face calls `pixel_values` always has its channels first.
        if not (says_channels[1] or says_channels[3] or image_input.name == "pixel_values"):
            raise NetworkFileError(
                f"{path}: expected an input that says where its channels are, got "
                f"{image_input.name} {shape}. Add layout=nchw or layout=nhwc to `preprocess`."
            )
        said = "nhwc" if says_channels[3] and not says_channels[1] else "nchw"
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


class _HubFile(NamedTuple):
    """An ONNX file of a repository at a commit."""

    repo: str  # OWNER/NAME
    commit: str
    file: str  # its path in the repository
    path: Path  # and in the cache


def _match_hub_name(name: str) -> re.Match[str]:
    if (found := _HUB_NAME.fullmatch(name)) is None:
        raise BackboneError(
            f"{name}: expected hf:OWNER/NAME, with @REVISION and /FILE.onnx behind it where they "
            "are to be said, such as hf:onnx-community/dinov2-small."
        )
    return found


def _find_on_hub(name: str) -> _HubFile:
    """Return the ONNX file of a name, downloaded with what belongs to it if need be."""
    asked = _match_hub_name(name)
    repo, revision, file = asked["repo"], asked["revision"] or "main", (asked["file"] or "")[1:]
    hub = _import_hub()
    kept = _find_kept(hub, repo, revision, file)
    found = kept or _download(hub, repo, revision, file)
    _check_hashes(found)
    if kept is None:
        size_mb = found.path.stat().st_size / 1e6
        _log.info("%s: %s of commit %s, %.0f MB.", name, found.file, found.commit[:12], size_mb)
    return found


def _find_kept(hub: ModuleType, repo: str, revision: str, file: str) -> _HubFile | None:
    """Return what the cache has, if no better file can be on the hub; it asks no network."""
    try:
        folder = Path(
            hub.snapshot_download(
                repo, revision=revision, local_files_only=True, allow_patterns=["*.onnx"]
            )
        )
    except (hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError):
        return None
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{_SUFFIX}"))
    if not there or (file and file not in there):
        return None
    chosen = file or _choose_file(repo, there)
    is_best = bool(file) or not _PRECISIONS[_split(chosen)[1]]
    if not is_best and not hub.constants.HF_HUB_OFFLINE:
        return None
    try:
        _data_files(folder / chosen)
    except NetworkFileError:
        return None
    return _HubFile(repo, folder.name, chosen, folder / chosen)


def _download(hub: ModuleType, repo: str, revision: str, file: str) -> _HubFile:
    try:
        about = hub.HfApi().model_info(repo, revision=revision)
        files = [sibling.rfilename for sibling in about.siblings or ()]
        chosen = file or _choose_file(repo, files)
        if chosen not in files:
            raise BackboneError(
                f"{_HUB}{repo}: expected the file {chosen}, there are "
                f"{', '.join(name for name in files if name.endswith(_SUFFIX)) or 'no ONNX files'}."
            )

        folder = chosen.rpartition("/")[0]
        wanted = {name for config in CONFIG_FILES for name in (config, f"{folder}/{config}")}
        wanted |= {name for name in files if name.startswith(f"{chosen}_data")}
        wanted |= {f"{chosen}.data", f"{chosen.removesuffix(_SUFFIX)}.data"}
        for name in sorted(wanted & set(files)):
            hub.hf_hub_download(repo, name, revision=about.sha)
        # It comes last, so that what is there of a killed download does not look whole. Asked for
        # by its branch or tag, so that the library notes which commit that was.
        path = Path(hub.hf_hub_download(repo, chosen, revision=revision))
        if about.sha not in path.parts:
            raise BackboneError(f"{_HUB}{repo}: changed meanwhile. Run the command again.")
        return _HubFile(repo, about.sha, chosen, path)
    except BackboneError:
        raise
    # The library raises its own kinds, those of its connection, and OSError for a full disk.
    except Exception as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise BackboneError(
            f"{_HUB}{repo}: cannot be had from the hub ({type(error).__name__}: {why}). Give an "
            "ONNX file that is at hand."
        ) from error


def _choose_file(repo: str, files: list[str]) -> str:
    """Return the ONNX file of the part that sees images, in the best precision that is there."""
    networks = [name for name in files if name.endswith(_SUFFIX)]
    by_stem: dict[str, list[str]] = {}
    for name in networks:
        stem, precision = _split(name)
        if precision in _PRECISIONS:
            by_stem.setdefault(stem, []).append(name)
    stems = [stem for stem in _STEMS if stem in by_stem] or list(by_stem)
    if not stems or (len(stems) > 1 and stems[0] not in _STEMS):
        raise BackboneError(
            f"{_HUB}{repo}: expected an ONNX file of an encoder of images, there are "
            f"{', '.join(networks) or 'no ONNX files'}. "
            + (f"Say which: {_HUB}{repo}/FILE.onnx." if networks else "Export one.")
        )
    return min(by_stem[stems[0]], key=lambda name: _PRECISIONS[_split(name)[1]])


def _split(name: str) -> tuple[str, str]:
    """Return the stem of a file's name, and what it says of the precision."""
    base = name.rpartition("/")[2].removesuffix(_SUFFIX)
    found = _PRECISION.search(base)
    return base[: found.start() if found else None], found[1] if found else ""


def _check_hashes(found: _HubFile) -> None:
    """Compare large files with the hash that the cache calls them by; wrong ones are deleted."""
    for name in [found.path.name, *_data_files(found.path)]:
        path = found.path.parent / name
        blob = path.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and file_sha256(blob) != blob.name:
            path.unlink()
            blob.unlink(missing_ok=True)
            raise WeightsError(
                f"{_HUB}{found.repo}: {name} is not what the hub says (its sha256 differs from "
                f"{blob.name[:12]}...) and was taken out of the cache. Run the command again."
            )


def _import_hub() -> ModuleType:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    missing = (
        "Encoders from the hub need huggingface_hub, which is not installed. Run: pip install "
        "'tripletkit[hub]', or give an ONNX file."
    )
    modules = ("huggingface_hub", "huggingface_hub.errors", "huggingface_hub.utils")
    hub, _, utils = import_extra(missing, *modules)
    utils.disable_progress_bars()
    return hub
