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
    from tripletkit.api.checking import (
        SplitTriplets,
        audit,
        read_answers,
        read_triplets,
        read_truth,
        split,
    )
    from tripletkit.api.embeddings import Embeddings
    from tripletkit.api.estimator import TripletEmbedding
    from tripletkit.api.extraction import extract
    from tripletkit.api.image_split import ImageSplit, triplets_by_image
    from tripletkit.api.model import Model
    from tripletkit.api.opening import load, pretrained
    from tripletkit.api.reporting import report
    from tripletkit.api.scoring import compare, controls, score
    from tripletkit.api.suggestion import suggest
    from tripletkit.api.sweeping import sweep
    from tripletkit.api.training import finetune, train
    from tripletkit.data.triplets import Triplets
    from tripletkit.data.truth import Truth
    from tripletkit.errors import (
        DataWarning,
        DistributionShiftWarning,
        FewTripletsWarning,
        LeakageWarning,
        SettingsError,
        TripletkitError,
        TripletkitWarning,
        WeakScoreWarning,
    )
    from tripletkit.evaluation.answers import Answers
    from tripletkit.features.function_encoder import FunctionEncoder as Encoder

# Public name -> the module below `tripletkit` that it is from.
_HOMES = {
    "Answers": "evaluation.answers",
    "DataWarning": "errors",
    "DistributionShiftWarning": "errors",
    "Embeddings": "api.embeddings",
    "Encoder": "features.function_encoder:FunctionEncoder",
    "FewTripletsWarning": "errors",
    "ImageSplit": "api.image_split",
    "LeakageWarning": "errors",
    "Model": "api.model",
    "SettingsError": "errors",
    "SplitTriplets": "api.checking",
    "TripletEmbedding": "api.estimator",
    "TripletkitError": "errors",
    "TripletkitWarning": "errors",
    "Triplets": "data.triplets",
    "Truth": "data.truth",
    "WeakScoreWarning": "errors",
    "audit": "api.checking",
    "compare": "api.scoring",
    "controls": "api.scoring",
    "extract": "api.extraction",
    "finetune": "api.training",
    "load": "api.opening",
    "pretrained": "api.opening",
    "read_answers": "api.checking",
    "read_triplets": "api.checking",
    "read_truth": "api.checking",
    "report": "api.reporting",
    "score": "api.scoring",
    "split": "api.checking",
    "suggest": "api.suggestion",
    "sweep": "api.sweeping",
    "train": "api.training",
    "triplets_by_image": "api.image_split",
}

__all__ = [
    "Answers",
    "DataWarning",
    "DistributionShiftWarning",
    "Embeddings",
    "Encoder",
    "FewTripletsWarning",
    "ImageSplit",
    "LeakageWarning",
    "Model",
    "SettingsError",
    "SplitTriplets",
    "TripletEmbedding",
    "TripletkitError",
    "TripletkitWarning",
    "Triplets",
    "Truth",
    "WeakScoreWarning",
    "audit",
    "compare",
    "controls",
    "extract",
    "finetune",
    "load",
    "pretrained",
    "read_answers",
    "read_triplets",
    "read_truth",
    "report",
    "score",
    "split",
    "suggest",
    "sweep",
    "train",
    "triplets_by_image",
]


if TYPE_CHECKING:
    __version__: str
else:
    # Not for type checkers, which would take it that every name is there.
    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value = version("tripletkit")
        elif name in _HOMES:
            module, _, own_name = _HOMES[name].partition(":")
            value = getattr(import_module(f"tripletkit.{module}"), own_name or name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Found without this function from now on.
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
