"""The whole network, backbones and head, as Keras or ONNX files that need no tripletkit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tripletkit.data.outputs import OutputForm, Outputs
from tripletkit.errors import OutputError
from tripletkit.features.backbones import Backbone
from tripletkit.features.encoder import Encoder
from tripletkit.features.extract import View
from tripletkit.features.image_processor import CONFIG_FILE, FILTERS
from tripletkit.features.onnx_files import OnnxFile
from tripletkit.model.model_folder import ModelFolder

if TYPE_CHECKING:
    import keras

logger = logging.getLogger("tripletkit")

_ENCODER_FILE = "encoder.keras"
_TRIPLET_FILE = "triplet_network.keras"
_ONNX_ENCODER_FILE = "encoder.onnx"
_ONNX_HEAD_FILE = "head.onnx"
# A `.keras` file begins with its configuration, in which the network is named.
_KERAS_FORMS = {
    file: OutputForm(
        f"the network {network} that tripletkit exports",
        mark=f'"class_name": "Functional", "config": {{"name": "{network}"',
    )
    for file, network in ((_ENCODER_FILE, "encoder"), (_TRIPLET_FILE, "triplet_network"))
}
_ONNX_FORM = OutputForm("an ONNX file that tripletkit wrote", mark="tripletkit")
_CONFIG_MARK = "tripletkit export"
_ONNX_FORMS = {
    _ONNX_ENCODER_FILE: _ONNX_FORM,
    _ONNX_HEAD_FILE: _ONNX_FORM,
    CONFIG_FILE: OutputForm("a configuration that `export` wrote", mark=_CONFIG_MARK),
}


def export_model(
    model: ModelFolder, folder: Path, encoder: Encoder, outputs: Outputs, *, as_onnx: bool = False
) -> list[Path]:
    """Write encoder and triplet network as Keras files, or encoder and head as ONNX files.

    They appear whole or not at all. The ONNX encoder takes images as Keras's does, float32, and
    gives `embedding`; the head takes `features`. Beside it stands how images are to be resized,
    where one form of them is enough, as `preprocessor_config.json` of transformers. Of a model
    whose features come from an ONNX file, or are given, there is only the head.
    """
    outputs.files_in(folder, _ONNX_FORMS if as_onnx else _KERAS_FORMS)
    why = _why_no_encoder(encoder)
    files = _make_onnx(model, encoder, why) if as_onnx else {}
    if not as_onnx:
        if why:
            raise OutputError(f"{folder}: expected a network that Keras can build, but {why}")
        network = _build_encoder(model, encoder)
        files = {_ENCODER_FILE: network.save}
        files[_TRIPLET_FILE] = _build_triplet_network(network).save
    with outputs.write_files(folder) as unfinished:
        for name, write in files.items():
            write(unfinished / name)
    return [folder / name for name in files]


def _make_onnx(
    model: ModelFolder, encoder: Encoder, why_no_encoder: str
) -> dict[str, Callable[[Path], object]]:
    from tripletkit.features.onnx_writer import make_onnx_model

    made = {}
    if why_no_encoder:
        logger.info("Only the head is written: %s", why_no_encoder)
    else:
        network = _build_encoder(model, encoder)
        names = [tensor.name for tensor in network.inputs]
        written = make_onnx_model(network, "embedding", input_names=names)
        made[_ONNX_ENCODER_FILE] = written.SerializeToString()
    head = make_onnx_model(model.load_head(), "embedding", input_names=["features"])
    made[_ONNX_HEAD_FILE] = head.SerializeToString()
    if not why_no_encoder and (config := _describe_images(encoder)) is not None:
        made[CONFIG_FILE] = config
    return {name: partial(Path.write_bytes, data=content) for name, content in made.items()}


def _describe_images(encoder: Encoder) -> bytes | None:
    """Return what images go through before the exported encoder; None where it takes several."""
    forms = encoder.pixel_inputs
    if len(forms) > 1:
        return None
    ((side_px, resample),) = forms
    (number,) = (number for number, name in FILTERS.items() if name == resample)
    config = {
        "made_by": _CONFIG_MARK,
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": side_px, "width": side_px},
        "resample": number,
        "do_rescale": False,
        "do_normalize": False,
    }
    return (json.dumps(config, indent=2) + "\n").encode()


def _why_no_encoder(encoder: Encoder) -> str:
    """Say why an encoder's networks cannot be built by Keras; empty where they can."""
    if encoder.is_given:
        return "the model was trained on given features."
    for part in encoder.parts:
        if not part.backbone.build:
            what = "ONNX file" if isinstance(part.backbone, OnnxFile) else "function"
            return (
                f"features come from the {what} {part.backbone.name}, which runs in front of the "
                "head."
            )
    return ""


def _build_encoder(model: ModelFolder, encoder: Encoder) -> keras.Model:
    head = model.load_head()
    from tripletkit.features.keras_backbones import build_backbone, take_pieces

    backbones = []
    for parts in encoder.networks:
        built = build_backbone(parts[0].backbone, parts[0].find_weights())
        backbones.append((parts[0].backbone, take_pieces(built, [part.stage for part in parts])))
    return _join_encoder(encoder, backbones, head)


_INPUT_NAMES = ("anchor", "positive", "negative")


def _join_encoder(
    encoder: Encoder, backbones: Sequence[tuple[Backbone, keras.Model]], head: keras.Model
) -> keras.Model:
    """Return the model from images to embeddings, preprocessing inside: uint8 or float to `(batch,
    dim)`.

    Built-in layers only, so that its `.keras` file loads with `safe_mode=True` and without
    tripletkit. Each backbone is frozen here; its model may have several outputs, each a piece of
    the features that counts alike. Where backbones and views need an image resized in several ways,
    there is an input for each, named like `pixels_224px_bilinear`, because no network resizes as
    Pillow does.
    """
    from tripletkit.features.keras_backend import keras

    inputs = {
        (side, resample): keras.Input((side, side, 3), name=name)
        for (side, resample), name in encoder.pixel_inputs.items()
    }
    pieces = [
        piece
        for backbone, model in backbones
        for piece in _add_views(inputs, backbone, model, encoder.views)
    ]
    if len(pieces) > 1:
        of_unit_length = [keras.layers.UnitNormalization()(piece) for piece in pieces]
        pieces = [keras.layers.Concatenate(name="backbones")(of_unit_length)]
    pixels = list(inputs.values())
    return keras.Model(pixels if len(pixels) > 1 else pixels[0], head(pieces[0]), name="encoder")


def _add_views(
    inputs: Mapping[tuple[int, str], keras.KerasTensor],
    backbone: Backbone,
    model: keras.Model,
    views: Sequence[View],
) -> list[keras.KerasTensor]:
    """Return the mean over views of each piece of a backbone's features."""
    from tripletkit.features.keras_backbones import add_preprocessing
    from tripletkit.features.keras_backend import keras

    model.trainable = False
    size, how = backbone.input_size_px, backbone.preprocessing
    prepared = {
        side: add_preprocessing(pixels, how, f"preprocessing{pixels.name.removeprefix('pixels')}")
        for (side, resample), pixels in inputs.items()
        if resample == how.resample
    }
    of_views = []
    for view in views:
        side = view.resized_px(size)
        pixels = prepared[side]
        if side != size:
            left, top = view.corner_px(size)
            pixels = keras.layers.Cropping2D(
                ((top, side - size - top), (left, side - size - left))
            )(pixels)
        if view.is_mirrored:
            pixels = keras.ops.flip(pixels, axis=2)
        pieces = model(pixels, training=False)
        of_views.append(pieces if isinstance(pieces, list) else [pieces])
    if len(views) == 1:
        return of_views[0]
    return [keras.layers.Average()(list(piece)) for piece in zip(*of_views, strict=True)]


def _build_triplet_network(encoder: keras.Model) -> keras.Model:
    """Return the source's model: three images in, the three embeddings side by side out. Its inputs
    are named anchor, positive and negative; where the encoder has several, there are three times as
    many, named like `anchor_224px_bilinear`."""
    from tripletkit.features.keras_backend import keras

    images = [
        [
            keras.Input(pixels.shape[1:], name=pixels.name.replace("pixels", name, 1))
            for pixels in encoder.inputs
        ]
        for name in _INPUT_NAMES
    ]
    embeddings = keras.layers.Concatenate(name="embeddings")(
        [encoder(forms if len(forms) > 1 else forms[0]) for forms in images]
    )
    inputs = [pixels for forms in images for pixels in forms]
    return keras.Model(inputs, embeddings, name="triplet_network")
