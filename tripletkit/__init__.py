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

# Module below `tripletkit` -> the public names that are from it.
_NAMES = {
    "api.answer_scores": "check_answers compare controls score",
    "api.class_labels": "classify draw_triplets mine",
    "api.embeddings": "Embeddings",
    "api.estimator": "ImageSplit TripletEmbedding triplets_by_image",
    "api.judging": "collect export_judgements import_judgements judges suggest",
    "api.large_collections": "extract",
    "api.learning": "finetune sweep train",
    "api.listings": "cache_info clear_cache list_backbones list_losses list_settings prune_cache",
    "api.models": "Model load pretrained",
    "api.pictures": "collage plot report serve_report",
    "api.triplet_sets": "SplitTriplets audit split",
    "data.images": "Images open_images",
    "data.judgements": "Judgements read_judgements",
    "data.labels": "read_labels",
    "data.triplets": "Triplets Truth",
    "errors": "DataWarning DistributionShiftWarning FewTripletsWarning LeakageWarning "
    "SettingsError TripletkitError TripletkitWarning WeakScoreWarning",
    "evaluation.answers": "Answers read_answers",
    "features.backbones": "register_backbone",
    "features.function_encoder": "Encoder",
    "losses.loss_registry": "register_loss",
    "model.recipes": "register_recipe",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
# What a name is called in its module, where that is something else.
_OWN_NAMES = {"Encoder": "FunctionEncoder"}

if TYPE_CHECKING:
    from tripletkit import losses as losses
    from tripletkit.api.answer_scores import check_answers as check_answers
    from tripletkit.api.answer_scores import compare as compare
    from tripletkit.api.answer_scores import controls as controls
    from tripletkit.api.answer_scores import score as score
    from tripletkit.api.class_labels import classify as classify
    from tripletkit.api.class_labels import draw_triplets as draw_triplets
    from tripletkit.api.class_labels import mine as mine
    from tripletkit.api.embeddings import Embeddings as Embeddings
    from tripletkit.api.estimator import ImageSplit as ImageSplit
    from tripletkit.api.estimator import TripletEmbedding as TripletEmbedding
    from tripletkit.api.estimator import triplets_by_image as triplets_by_image
    from tripletkit.api.judging import collect as collect
    from tripletkit.api.judging import export_judgements as export_judgements
    from tripletkit.api.judging import import_judgements as import_judgements
    from tripletkit.api.judging import judges as judges
    from tripletkit.api.judging import suggest as suggest
    from tripletkit.api.large_collections import extract as extract
    from tripletkit.api.learning import finetune as finetune
    from tripletkit.api.learning import sweep as sweep
    from tripletkit.api.learning import train as train
    from tripletkit.api.listings import cache_info as cache_info
    from tripletkit.api.listings import clear_cache as clear_cache
    from tripletkit.api.listings import list_backbones as list_backbones
    from tripletkit.api.listings import list_losses as list_losses
    from tripletkit.api.listings import list_settings as list_settings
    from tripletkit.api.listings import prune_cache as prune_cache
    from tripletkit.api.models import Model as Model
    from tripletkit.api.models import load as load
    from tripletkit.api.models import pretrained as pretrained
    from tripletkit.api.pictures import collage as collage
    from tripletkit.api.pictures import plot as plot
    from tripletkit.api.pictures import report as report
    from tripletkit.api.pictures import serve_report as serve_report
    from tripletkit.api.triplet_sets import SplitTriplets as SplitTriplets
    from tripletkit.api.triplet_sets import audit as audit
    from tripletkit.api.triplet_sets import split as split
    from tripletkit.data.images import Images as Images
    from tripletkit.data.images import open_images as open_images
    from tripletkit.data.judgements import Judgements as Judgements
    from tripletkit.data.judgements import read_judgements as read_judgements
    from tripletkit.data.labels import read_labels as read_labels
    from tripletkit.data.triplets import Triplets as Triplets
    from tripletkit.data.triplets import Truth as Truth
    from tripletkit.errors import DataWarning as DataWarning
    from tripletkit.errors import DistributionShiftWarning as DistributionShiftWarning
    from tripletkit.errors import FewTripletsWarning as FewTripletsWarning
    from tripletkit.errors import LeakageWarning as LeakageWarning
    from tripletkit.errors import SettingsError as SettingsError
    from tripletkit.errors import TripletkitError as TripletkitError
    from tripletkit.errors import TripletkitWarning as TripletkitWarning
    from tripletkit.errors import WeakScoreWarning as WeakScoreWarning
    from tripletkit.evaluation.answers import Answers as Answers
    from tripletkit.evaluation.answers import read_answers as read_answers
    from tripletkit.features.backbones import register_backbone as register_backbone
    from tripletkit.features.function_encoder import FunctionEncoder
    from tripletkit.losses.loss_registry import register_loss as register_loss
    from tripletkit.model.recipes import register_recipe as register_recipe

    Encoder = FunctionEncoder

    __version__: str
else:
    __all__ = sorted([*_HOMES, "losses"])

    # Not for type checkers, which would take it that every name is there.
    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value = version("tripletkit")
        elif name == "losses":
            value = import_module("tripletkit.losses")
        elif name in _HOMES:
            module = import_module(f"tripletkit.{_HOMES[name]}")
            value = getattr(module, _OWN_NAMES.get(name, name))
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Found without this function from now on.
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "losses", "__version__"})
