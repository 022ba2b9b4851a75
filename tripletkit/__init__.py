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
    from tripletkit.api.answer_scores import (
        check_answers,
        compare,
        controls,
        score,
    )
    from tripletkit.api.class_labels import (
        classify,
        draw_triplets,
        mine,
    )
    from tripletkit.api.embeddings import (
        Embeddings,
    )
    from tripletkit.api.estimator import (
        TripletEmbedding,
    )
    from tripletkit.api.image_split import (
        ImageSplit,
        triplets_by_image,
    )
    from tripletkit.api.judging import (
        export_judgements,
        judges,
        suggest,
    )
    from tripletkit.api.large_collections import extract
    from tripletkit.api.learning import (
        finetune,
        sweep,
        train,
    )
    from tripletkit.api.listings import (
        cache_info,
        clear_cache,
        list_backbones,
        list_losses,
        list_settings,
        prune_cache,
    )
    from tripletkit.api.models import (
        Model,
        load,
        pretrained,
    )
    from tripletkit.api.pictures import (
        collage,
        plot,
        report,
        serve_report,
    )
    from tripletkit.api.triplet_sets import (
        SplitTriplets,
        audit,
        read_answers,
        read_judgements,
        read_triplets,
        read_truth,
        split,
    )
    from tripletkit.data.images import (
        Images,
        open_images,
    )
    from tripletkit.data.triplets import (
        Triplets,
    )
    from tripletkit.data.truth import (
        Truth,
    )
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
    from tripletkit.evaluation.answers import (
        Answers,
    )
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
    "Images": "data.images",
    "LeakageWarning": "errors",
    "Model": "api.models",
    "SettingsError": "errors",
    "SplitTriplets": "api.triplet_sets",
    "TripletEmbedding": "api.estimator",
    "TripletkitError": "errors",
    "TripletkitWarning": "errors",
    "Judgements": "data.judgements",
    "Triplets": "data.triplets",
    "Truth": "data.truth",
    "WeakScoreWarning": "errors",
    "audit": "api.triplet_sets",
    "cache_info": "api.listings",
    "check_answers": "api.answer_scores",
    "classify": "api.class_labels",
    "clear_cache": "api.listings",
    "collage": "api.pictures",
    "compare": "api.answer_scores",
    "controls": "api.answer_scores",
    "draw_triplets": "api.class_labels",
    "export_judgements": "api.judging",
    "extract": "api.large_collections",
    "finetune": "api.learning",
    "judges": "api.judging",
    "list_backbones": "api.listings",
    "list_losses": "api.listings",
    "list_settings": "api.listings",
    "load": "api.models",
    "mine": "api.class_labels",
    "open_images": "data.images",
    "plot": "api.pictures",
    "pretrained": "api.models",
    "prune_cache": "api.listings",
    "read_answers": "api.triplet_sets",
    "read_judgements": "api.triplet_sets",
    "read_triplets": "api.triplet_sets",
    "read_truth": "api.triplet_sets",
    "report": "api.pictures",
    "score": "api.answer_scores",
    "serve_report": "api.pictures",
    "split": "api.triplet_sets",
    "suggest": "api.judging",
    "sweep": "api.learning",
    "train": "api.learning",
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
