"""What is known of a backbone: a record of facts, and of what is done to images before it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tripletkit.data.images import PIXELS_VERSION


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
