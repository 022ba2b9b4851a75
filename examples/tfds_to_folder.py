"""Write an image classification set of TensorFlow Datasets as a folder of images per class.

    pip install 'tripletkit[tfds]'
    python examples/tfds_to_folder.py oxford_flowers102 flowers/

downloads the set where it is not yet, and makes a folder for each official split:
flowers/train/rose/00012.jpg and so on, the number being the image's place in its split.
Images are written as the set holds them, byte for byte, not compressed once more. FOLDER must
not exist, and appears whole or not at all.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from PIL import Image
from tqdm import tqdm

from tripletkit.data.outputs import check_parent, open_folder
from tripletkit.errors import MissingExtraError, OutputError, TripletkitError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

# What Pillow calls a format that can be kept as it is -> the suffix of its files.
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp"}
# File systems and command lines take these for something else in a name.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


class DatasetError(TripletkitError, ValueError):
    """A data set does not hold one image with one class each."""


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="as TFDS calls it; tensorflow.org/datasets/catalog has them")
    parser.add_argument("folder", type=Path, help="to make")
    parser.add_argument("--data-dir", type=Path, help="where TFDS keeps what it has downloaded")
    arguments = parser.parse_args()
    try:
        check_folder(arguments.folder)
        builder = open_builder(arguments.name, arguments.data_dir)
        builder.download_and_prepare()
        written = write_folder(builder, arguments.folder)
    except TripletkitError as error:
        sys.exit(f"Error: {error}")
    for split, counts in written.items():
        n_left_out = counts.pop(None, 0)
        left_out = f", {n_left_out:,} without a label left out" if n_left_out else ""
        print(f"{arguments.folder / split}: {counts.total():,} images of {len(counts):,} classes"
              f"{left_out}")  # fmt: skip


def open_builder(name: str, data_dir: Path | None) -> DatasetBuilder:
    """Return the builder of a set.

    Raises:
        MissingExtraError: if TensorFlow Datasets is not installed.
        DatasetError: if it does not know the set.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingExtraError(
            "TensorFlow Datasets is not installed; pip install 'tripletkit[tfds]'"
        ) from error
    try:
        return tfds.builder(name, data_dir=data_dir and str(data_dir))
    except tfds.core.DatasetNotFoundError as error:
        raise DatasetError(str(error)) from error


def check_folder(folder: Path) -> None:
    """Refuse a folder that exists or cannot be made.

    Raises:
        OutputError: if so.
    """
    if folder.exists() or folder.is_symlink():
        raise OutputError(f"{folder}: is there already; give the name of a new folder")
    check_parent(folder)


def write_folder(builder: DatasetBuilder, folder: Path) -> dict[str, Counter]:
    """Write all splits of a set that is downloaded.

    Args:
        builder: of the set.
        folder: to make; it gets a folder for each split with one for each class.
    Returns:
        Split -> how many images each class has; None counts those without a label, which are
        not written.
    Raises:
        OutputError: if the folder exists or cannot be written.
        DatasetError: if the set is not of images with a class each.
    """
    check_folder(folder)
    image, label = find_features(builder)
    class_names = safe_names(builder.info.features[label].names)
    with open_folder(folder) as temporary:
        return {
            split: write_split(builder, split, temporary / split, image, label, class_names)
            for split in builder.info.splits
        }


def find_features(builder: DatasetBuilder) -> tuple[str, str]:
    """Return what the set calls its image and its class.

    Raises:
        DatasetError: if it has not one of each, or its images are no 8-bit ones.
    """
    import numpy as np
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    found = []
    for kind in (tfds.features.Image, tfds.features.ClassLabel):
        names = [name for name, feature in features.items() if isinstance(feature, kind)]
        # Where there are several, the set itself says which of them belong together.
        keys = [key for key in builder.info.supervised_keys or () if key in names]
        names = keys or names
        if len(names) != 1:
            raise DatasetError(
                f"{builder.name}: expected one {kind.__name__} in each example, got {len(names)} "
                f"(features: {', '.join(features)})"
            )
        found += names
    dtype = features[found[0]].np_dtype
    if dtype != np.uint8:
        raise DatasetError(f"{builder.name}: expected images of 8 bits, got {np.dtype(dtype)}")
    return found[0], found[1]


def write_split(
    builder: DatasetBuilder,
    split: str,
    folder: Path,
    image: str,
    label: str,
    class_names: list[str],
) -> Counter:
    """Write one split, and return how many images each class has."""
    counts: Counter = Counter()
    for class_name in class_names:
        (folder / class_name).mkdir(parents=True)
    n_examples = builder.info.splits[split].num_examples
    width = max(5, len(str(n_examples)))
    examples = tqdm(read_encoded(builder, split, image, label), split, n_examples, disable=None)
    for number, (data, index) in enumerate(examples):
        if index < 0:
            counts[None] += 1
            continue
        class_name = class_names[index]
        data, suffix = as_file(data)
        (folder / class_name / f"{number:0{width}}{suffix}").write_bytes(data)
        counts[class_name] += 1
    for class_name in class_names:
        if not counts[class_name]:
            (folder / class_name).rmdir()
    return +counts


def read_encoded(
    builder: DatasetBuilder, split: str, image: str, label: str
) -> Iterator[tuple[bytes, int]]:
    """Yield the file of each image as the set holds it, and its class, always in one order."""
    import tensorflow_datasets as tfds

    examples = builder.as_dataset(
        split=split,
        decoders={image: tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
        shuffle_files=False,
    )
    for example in tfds.as_numpy(examples):
        yield example[image], int(example[label])


def as_file(data: bytes) -> tuple[bytes, str]:
    """Return an image's bytes and suffix; one in a format that few programs read becomes PNG."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format in SUFFIXES:
            return data, SUFFIXES[image.format]
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue(), ".png"


def safe_names(names: list[str]) -> list[str]:
    """Return names that any file system takes, no two alike but for upper and lower case.

    Example:
        >>> safe_names(["rose", "AC/DC", "Rose", "..", "aux"])
        ['rose', 'AC_DC', 'Rose_2', '_', 'aux_']
    """
    safe: list[str] = []
    taken: set[str] = set()
    for index, name in enumerate(names):
        cleaned = _UNSAFE.sub("_", name).strip(" .")[:100] or "_"
        if _RESERVED.match(cleaned):
            cleaned = f"{cleaned}_"
        if cleaned.casefold() in taken:
            cleaned = f"{cleaned}_{index}"
        while cleaned.casefold() in taken:
            cleaned += "_"
        taken.add(cleaned.casefold())
        safe.append(cleaned)
    return safe


if __name__ == "__main__":
    main()
