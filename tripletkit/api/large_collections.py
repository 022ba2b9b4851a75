"""Features of very many images into a folder, for `tripletkit extract`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from tripletkit.api.given import EncoderOptions, PathLike
from tripletkit.api.models import open_backbones
from tripletkit.data.images import ImagesLike, open_usable_images
from tripletkit.data.outputs import Outputs, as_one_run
from tripletkit.data.tables import read_text
from tripletkit.errors import SettingsError
from tripletkit.features.backbones import AUTO
from tripletkit.features.encoder import BackboneLike
from tripletkit.features.extraction import ExtractionResult, choose_share, extract_dataset
from tripletkit.features.given_features import DTYPES
from tripletkit.progress import Stages, open_stages


@as_one_run
def extract(
    images: ImagesLike,
    output: PathLike,
    *,
    backbone: BackboneLike | Sequence[BackboneLike] = AUTO,
    dtype: str | None = None,
    shard: str | None = None,
    ray: bool | str = False,
    workers: int | None = None,
    follow_outside: bool = False,
    progress: bool | Stages | None = None,
    **how: Unpack[EncoderOptions],
) -> ExtractionResult:
    """Write the features of very many images as a folder of Parquet files.

    Images that are in the folder are left alone, so that the same call goes on after anything that
    stopped it; those that changed since are encoded again. An image that cannot be read becomes a
    row with the reason. `features=output` takes them in every other function.

    Args:
        images: a folder, a text file of paths (one a line, absolute or from its folder), or what
            `Model.embed` takes.
        output: the folder to write, new or of the same encoder.
        backbone, how, progress: see `pretrained` and `train`.
        dtype: how numbers are kept, `"float32"` or `"float16"`, which takes half the space.
            Defaults to what is there, then to float32.
        shard: only one of several equal shares of the images, such as `"3/16"`.
        ray: work on the Ray cluster at this address; True starts one for this run. Defaults to
            this process. Needs `tripletkit[ray]`.
        workers: encoders at a time, with `ray`.
        follow_outside: allow links that lead out of a folder.
    Returns:
        `ExtractionResult`: `output`, `n_images`, `n_stored`, `n_computed`, `problems`.
    Raises:
        SettingsError: if choices do not go together.
        FeatureFileError: if the folder holds something else, or `dtype` cannot hold a number.
        TripletkitError: if images or the encoder cannot be used.
    """
    if workers is not None and not ray:
        raise SettingsError("workers", "`workers` needs `ray`.")
    if dtype not in (None, *DTYPES):
        raise SettingsError("dtype", f"`dtype`: expected {' or '.join(DTYPES)}, got {dtype!r}.")
    opened = open_usable_images(_read_list(images), follow_outside=follow_outside)
    folder = Path(output)
    Outputs().folder(folder)
    if shard is not None:
        opened = choose_share(opened, shard)
    encoder = open_backbones(backbone, None, how)
    with open_stages(progress) as stages:
        told = stages("features")
        return extract_dataset(opened, encoder, folder, dtype, ray, workers, told)


def _read_list(images: ImagesLike) -> ImagesLike:
    """Return the paths that a text file lists; anything else as it is."""
    if not isinstance(images, (str, Path)) or Path(images).suffix.lower() not in (".txt", ".lst"):
        return images
    if not Path(images).is_file():
        return images
    lines = [line.strip(" \t") for line in read_text(Path(images)).split("\n")]
    folder = Path(images).parent
    names = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    return open_usable_images([folder / name for name in names], names)
