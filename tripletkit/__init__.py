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
    from tripletkit import losses
    from tripletkit.api.answer_scores import check_answers, compare, controls, score
    from tripletkit.api.class_labels import classify, draw_triplets, mine
    from tripletkit.api.embeddings import Embeddings
    from tripletkit.api.estimator import TripletEmbedding
    from tripletkit.api.image_split import ImageSplit, triplets_by_image
    from tripletkit.api.judging import export_judgements, judges, suggest
    from tripletkit.api.large_collections import extract
    from tripletkit.api.learning import finetune, sweep, train
    from tripletkit.api.listings import (
        cache_info,
        clear_cache,
        list_backbones,
        list_losses,
        list_settings,
        prune_cache,
    )
    from tripletkit.api.models import Model, load, pretrained
    from tripletkit.api.pictures import collage, plot, report, serve_report
    from tripletkit.api.triplet_sets import (
        SplitTriplets,
        audit,
        read_answers,
        read_judgements,
        read_triplets,
        read_truth,
        split,
    )
    from tripletkit.data.images import Images, open_images
    from tripletkit.data.triplets import Triplets, Truth
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


# Module below `tripletkit` -> the public names that are from it.
_NAMES = {
    "api.answer_scores": "check_answers compare controls score",
    "api.class_labels": "classify draw_triplets mine",
    "api.embeddings": "Embeddings",
    "api.estimator": "TripletEmbedding",
    "api.image_split": "ImageSplit triplets_by_image",
    "api.judging": "export_judgements judges suggest",
    "api.large_collections": "extract",
    "api.learning": "finetune sweep train",
    "api.listings": "cache_info clear_cache list_backbones list_losses list_settings prune_cache",
    "api.models": "Model load pretrained",
    "api.pictures": "collage plot report serve_report",
    "api.triplet_sets": "SplitTriplets audit read_answers read_judgements read_triplets read_truth "
    "split",
    "data.images": "Images open_images",
    "data.judgements": "Judgements",
    "data.triplets": "Triplets Truth",
    "errors": "DataWarning DistributionShiftWarning FewTripletsWarning LeakageWarning "
    "SettingsError TripletkitError TripletkitWarning WeakScoreWarning",
    "evaluation.answers": "Answers",
    "features.function_encoder": "FunctionEncoder",
}
_HOMES = {name: (module, name) for module, names in _NAMES.items() for name in names.split()}
_HOMES["Encoder"] = _HOMES.pop("FunctionEncoder")

__all__ = [
    "Answers",
    "DataWarning",
    "DistributionShiftWarning",
    "Embeddings",
    "Encoder",
    "FewTripletsWarning",
    "ImageSplit",
    "Images",
    "Judgements",
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
    "cache_info",
    "check_answers",
    "classify",
    "clear_cache",
    "collage",
    "compare",
    "controls",
    "draw_triplets",
    "export_judgements",
    "extract",
    "finetune",
    "judges",
    "list_backbones",
    "list_losses",
    "list_settings",
    "load",
    "losses",
    "mine",
    "open_images",
    "plot",
    "pretrained",
    "prune_cache",
    "read_answers",
    "read_judgements",
    "read_triplets",
    "read_truth",
    "report",
    "score",
    "serve_report",
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
        elif name == "losses":
            value = import_module("tripletkit.losses")
        elif name in _HOMES:
            module, own_name = _HOMES[name]
            value = getattr(import_module(f"tripletkit.{module}"), own_name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Found without this function from now on.
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
