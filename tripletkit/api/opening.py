"""Models from a folder, and backbones without a trained head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tripletkit import defaults
from tripletkit.api.inputs import PathLike, given_weights
from tripletkit.api.model import Model
from tripletkit.features.backbones import AUTO
from tripletkit.features.encoder import Encoder, open_encoder
from tripletkit.features.feature_parts import BackboneLike, list_backbones
from tripletkit.features.function_encoder import FunctionEncoder
from tripletkit.features.given_features import FeaturesLike
from tripletkit.model.model_folder import ModelFolder, load_model


def load(
    path: PathLike = defaults.MODEL_FOLDER,
    *,
    weights: PathLike | Mapping[str, PathLike] | None = None,
    features: FeaturesLike | None = None,
    backbone: FunctionEncoder | Sequence[FunctionEncoder] = (),
    cache: PathLike | None = None,
) -> Model:
    """Read a model folder that `train` or `Model.save` wrote.

    Args:
        path: the folder. Defaults to `"tripletkit-model"`.
        weights: weights file of the backbone, or one for each name, where they are not where they
            were at training.
        features: features made elsewhere, where a model that was trained on such is to take
            them from others.
        backbone: the function that it was trained on, or several; see `tripletkit.Encoder`.
        cache: folder of the feature store. Defaults to the user's.
    Returns:
        The `Model`.
    Raises:
        ModelFolderError: if it is missing, incomplete, edited or of another format.
    """
    folder = load_model(Path(path))
    functions = [backbone] if isinstance(backbone, FunctionEncoder) else list(backbone)
    encoder = folder.open_encoder(given_weights(weights), features, functions)
    return make_model(folder, encoder, cache)


def pretrained(
    backbone: BackboneLike | Sequence[BackboneLike] = AUTO,
    *,
    weights: PathLike | Mapping[str, PathLike] | None = None,
    views: Sequence[str] = (defaults.VIEWS,),
    image_size: int | None = None,
    depth: str = defaults.DEPTH,
    preprocess: str | None = None,
    backbone_output: str | None = None,
    cache: PathLike | None = None,
) -> Model:
    """Return a backbone as it is, without a trained head; embeddings are compared by cosine.

    Args:
        backbone: a name that `tripletkit backbones` lists, the path of an encoder's ONNX file, a
            function (`tripletkit.Encoder`), or several. Defaults to `"auto"`: resnet50 where its
            weights can be had, else efficientnet-lite0.
        weights: weights file of the backbone, or one for each name. Defaults to its own ImageNet
            weights.
        views: of each image to average over: `"original"`, `"flip"`, `"five-crop"`, `"ten-crop"`.
        image_size: side of the images that it takes, pixels. Defaults to its usual.
        depth: where in it features are taken: `"last"`, `"early"` or `"all"`.
        preprocess, backbone_output: what images go through before an encoder's ONNX file, and
            which of its outputs is taken, such as `"size=224,resample=bicubic,mean=0.5,std=0.5"`
            and `"last_hidden_state:cls"`; needed where the files do not say.
        cache: folder of the feature store. Defaults to the user's.
    Returns:
        A `Model`.
    Raises:
        BackboneError: if a name is not known, or its weights can neither be found nor downloaded.
        NetworkFileError, PreprocessingError: if an ONNX file cannot be run, or it is not clear how.
    Example:
        `tk.pretrained("resnet50").embed("images/")`
    """
    encoder = open_encoder(
        list_backbones(backbone),
        weights=given_weights(weights),
        views=views,
        size_px=image_size,
        depth=depth,
        preprocess=preprocess,
        backbone_output=backbone_output,
    )
    return Model(encoder, cache=None if cache is None else Path(cache))


def make_model(
    folder: ModelFolder,
    encoder: Encoder,
    cache: PathLike | None = None,
    scratch: TemporaryDirectory[str] | None = None,
) -> Model:
    """Return a trained model.

    Args:
        folder: that it is in.
        encoder: the model's.
        cache: folder of the feature store; None for the user's.
        scratch: the folder that holds it as long as it is not saved.
    """
    where = None if cache is None else Path(cache)
    return Model(encoder, folder=folder, images=folder.image_folder, cache=where, scratch=scratch)
