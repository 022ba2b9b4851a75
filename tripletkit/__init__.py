"""Learn from judgements "A looks more like B than like C" over a private image collection.

    import tripletkit as tk

    model = tk.train("train.txt", "images/")
    model.answer("test.txt").write("preds.csv")

What `__all__` names is public. Each name is imported when it is first used, so that
`import tripletkit` loads neither NumPy nor TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tripletkit.api.estimator import TripletEmbedding
    from tripletkit.api.image_split import ImageSplit

# Public name -> the module that it is from.
_HOMES = {
    "ImageSplit": "tripletkit.api.image_split",
    "TripletEmbedding": "tripletkit.api.estimator",
}

__all__ = ["ImageSplit", "TripletEmbedding"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value = version("tripletkit")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Found without this function from now on.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
