"""Learning from Python: what is given becomes a job, and its result a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

import numpy as np
import pandas as pd

from tripletkit.api.given import (
    EncoderOptions,
    LabelsLike,
    PathLike,
    TripletsLike,
    WeightsLike,
    as_path,
    given_weights,
    is_path,
    take_encoder_options,
)
from tripletkit.api.models import Model
from tripletkit.data.images import ImagesLike, open_images
from tripletkit.data.judgements import TruthLike, read_judgements
from tripletkit.data.outputs import Outputs, Scratch, as_one_run, check_written_folder
from tripletkit.data.triplets import VotesAs, VotesLike
from tripletkit.errors import ModelFolderError, SettingsError
from tripletkit.features.backbones import AUTO
from tripletkit.features.encoder import BackboneLike, list_backbones
from tripletkit.features.function_encoder import FunctionEncoder
from tripletkit.features.given_features import FeaturesLike, open_features
from tripletkit.model.model_folder import ModelFolder, load_model
from tripletkit.progress import Stages, open_stages
from tripletkit.registry import check_choice
from tripletkit.training.inputs import find_sources, open_sources
from tripletkit.training.job import EncoderChoice, FineTuning, Job, TrainingJob
from tripletkit.training.trainer import OnEpoch, ignore_epoch


class _FineTuneSettings(TypedDict, total=False):
    """The settings of a fine-tuning; `tripletkit settings` says what each is."""

    epochs: int
    learning_rate: float
    batch_size: int
    patience: int
    flip: bool
    shift: float
    seed: int


class _TrainSettings(_FineTuneSettings, EncoderOptions, total=False):
    """Settings of a training (`tripletkit settings`) and of its features (`pretrained`)."""

    recipe: Literal["mlp", "linear", "residual", "best"] | str
    members: int
    hidden: int
    dim: int | None
    dropout: float
    distance: Literal["l2", "l1", "squared-l2", "cosine"]
    margin: float
    strength: float
    frozen_share: float
    loss: str
    reduction: Literal["all", "active"]
    mining: Literal["none", "batch-all", "batch-hard", "semi-hard"]
    classes_per_batch: int
    images_per_class: int
    inject_positives: bool
    refresh: int
    cross_entropy_weight: float
    center_weight: float
    center_decay: float


@as_one_run
def train(
    triplets: TripletsLike | None = None,
    images: ImagesLike | None = None,
    *,
    names: Sequence[str] | None = None,
    labels: LabelsLike | None = None,
    votes: VotesLike | None = None,
    votes_as: VotesAs | None = None,
    val: TripletsLike | None = None,
    val_truth: TruthLike | None = None,
    val_votes: VotesLike | None = None,
    val_labels: LabelsLike | None = None,
    val_fraction: float | None = None,
    split: str | None = None,
    groups: LabelsLike | None = None,
    refit: bool = True,
    budget_s: float | None = None,
    learning_curve: bool = False,
    backbone: BackboneLike | Sequence[BackboneLike] = AUTO,
    features: FeaturesLike | np.ndarray | None = None,
    unseen_classes: float | None = None,
    test: TripletsLike | None = None,
    cache: PathLike | None = None,
    output: PathLike | None = None,
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: PathLike | None = None,
    command: str = "",
    on_epoch: OnEpoch | None = None,
    progress: bool | Stages | None = None,
    **settings: Unpack[_TrainSettings],
) -> Model:
    """Train a model from judgements `anchor positive negative` over a folder of images.

    Every image goes through the frozen backbone once; its features are kept on disk, so that the
    next training starts at once. Nothing is printed: remarks go to
    `logging.getLogger("tripletkit")`, and cautions are `TripletkitWarning`s.

    Args:
        triplets: a triplet file, a table, `Triplets`, what `read_judgements` returns, or integer
            rows of `names`. `None` draws them from `labels`.
        images: folder of the images, or `Images`: `open_images("photos", skip_bad=True)` leaves out
            those that are missing or cannot be read.
        names: of the images that integer rows of `triplets`, `val` and `test` are indices of.
        labels: a CSV with the columns name and label, a folder with a subfolder for each class, a
            table, a Series by name, or a mapping; for losses and mining that need classes.
        votes: how many people said what of each triplet: a votes file, a table with the columns
            votes_b and votes_c, or an array of the shape (n_triplets, 2).
        votes_as: what training makes of votes: `"weight"`, `"soft"` or `"majority"`.
        val: validation triplets of their own, as `triplets`. Defaults to some of `triplets`.
        val_truth, val_votes, val_labels: truth of `val`, where its second and third images stand in
            chance order, and `votes` and `labels` for validation.
        val_fraction: share of the images, or of the triplets, to set apart. Defaults to `0.1`.
        split: what training and validation must not share: `"image"` (the default),
            `"component"` or `"random"`.
        groups: of images, such as the photographer or the patient of each, in the forms of
            `labels`; a group is held out as a whole. Defaults to every image by itself.
        refit: validate on held-out draws, pooled, and train on all triplets, where neither `val`
            nor `val_fraction` nor `split` says otherwise.
        budget_s: seconds that held-out draws may take. Defaults to as many draws as are usual.
        learning_curve: say, too, what more judgements would bring, in `record.learning_curve`.
        backbone: a name that `tripletkit backbones` lists, or several. Defaults to `"auto"`:
            resnet50 where its weights can be had, else efficientnet-lite0.
        features: features made elsewhere, instead of a backbone: a file, a mapping, a table,
            `Embeddings`, an array `(n_images, n_features)` whose rows are of `names`, or a pair of
            names and such an array; `images` can then be left out.
        unseen_classes: share of the images to hold out as whole classes, to see how a model does
            on classes that training has not seen. Defaults to the recipe's own.
        test: questions to be answered later, to tell how new their images are.
        cache: folder of the feature store. Defaults to the user's.
        output: model folder to write; without, the model is in memory until `Model.save`.
        overwrite: replace what is there, if it is what the function writes.
        resume: go on with an interrupted training from pixels.
        tensorboard: folder for each epoch's numbers as TensorBoard logs.
        command: how to describe the call in the record. Defaults to the call itself.
        on_epoch: called after each epoch, those of held-out draws left out, with its record and
            with how many there are at most. The record has `epoch` (from 1), `loss`, `active`,
            `val_accuracy` (NaN without validation triplets), `spread` and `rank`. `map` and `best`
            have no epochs to tell; what it raises ends the training.
        progress: `True` for bars, `False` for none; or a callable that is told the name of each
            stage when it begins, such as "features", and returns what is told (done, total) of
            it. Defaults to `None`, bars in a notebook alone.
        settings: what `tripletkit settings` lists, such as `recipe`, `dim`, `distance`, `loss`,
            `epochs`, `margin`, `seed`; and of the backbone, as `pretrained` takes them, `weights`,
            `views`, `image_size`, `depth`, `preprocess` and `backbone_output`.
    Returns:
        The `Model`; its `validation` says how well it does.
    Raises:
        SettingsError: if settings do not go together, naming the field.
        TripletkitError: if something is wrong with data, images or weights, or training collapses.
    Example:
        `tk.train("train.txt", "images/", recipe="residual").answer("test.txt").write("preds.csv")`
    """
    _check_output(output, tensorboard, overwrite=overwrite)
    job = _make_job(
        images,
        features,
        backbone,
        settings,
        cache,
        sources={
            "triplets": triplets,
            "names": names,
            "labels": labels,
            "val": val,
            "val_truth": val_truth,
            "val_labels": val_labels,
            "votes": votes,
            "val_votes": val_votes,
            "votes_as": votes_as,
            "split": split,
            "groups": groups,
            "val_fraction": val_fraction,
            "refit": refit,
        },
        unseen_classes=unseen_classes,
        test=None if test is None else read_judgements(test, names=names),
        budget_s=budget_s,
        learning_curve=learning_curve,
        output=as_path(output),
        overwrite=overwrite,
        resume=resume,
        tensorboard=as_path(tensorboard),
        command=command
        or _describe_call("train", triplets=triplets, images=images, backbone=backbone, **settings),
    )
    folder, scratch = _run(job, on_epoch, progress)
    functions = [each for each in job.encoder.backbones if isinstance(each, FunctionEncoder)]
    encoder = folder.open_encoder(None, job.encoder.features, functions)
    return Model(
        encoder, folder, cache=job.cache, scratch=scratch, sources=job.sources, functions=functions
    )


@as_one_run
def finetune(
    model: Model | PathLike,
    *,
    blocks: int = 1,
    triplets: TripletsLike | None = None,
    names: Sequence[str] | None = None,
    images: ImagesLike | None = None,
    weights: WeightsLike | None = None,
    cache: PathLike | None = None,
    output: PathLike | None = None,
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: PathLike | None = None,
    command: str = "",
    on_epoch: OnEpoch | None = None,
    progress: bool | Stages | None = None,
    **settings: Unpack[_FineTuneSettings],
) -> Model:
    """Train the last blocks of a model's backbone further, together with its head.

    It learns from the triplets and images that the model was trained on, from the pixels. A model
    in memory, pickled or not, has its triplets with it; one that was loaded reads them again.

    Args:
        model: a `Model`, or its folder; it stays as it is.
        blocks: how many of the backbone's last blocks learn. Defaults to `1`.
        triplets, names: see `train`; to learn from these. Of triplets other than those of the
            training none are set apart. Defaults to those of the training.
        images: where the images are now. Defaults to where they were in training.
        weights: weights file of the backbone. Defaults to the one of the training.
        cache, output, overwrite, resume, tensorboard, command, on_epoch, progress: see `train`.
        settings: `epochs`, `learning_rate`, `batch_size`, `patience`, `flip`, `shift`, `seed`.
    Returns:
        The fine-tuned `Model`.
    Raises:
        ModelFolderError: if nothing was trained.
        SettingsError: if the model cannot be fine-tuned, or not so.
        TripletkitError: if something is wrong with data, images or weights.
    Reference:
        Yosinski et al. How transferable are features in deep neural networks? NeurIPS 2014.
        arXiv:1411.1792.
    """
    folder = model.folder if isinstance(model, Model) else load_model(Path(model))
    if folder is None:
        raise ModelFolderError("expected a trained model, a backbone alone is not fine-tuned")
    _check_output(output, tensorboard, overwrite=overwrite)
    learned_from = model.sources if isinstance(model, Model) else None
    job = FineTuning(
        find_sources(
            folder.record,
            folder.path,
            None if images is None else open_images(images).folder,
            learned_from,
            None if triplets is None else read_judgements(triplets, names=names),
        ),
        settings=dict(settings),
        model=folder,
        blocks=blocks,
        weights=given_weights(weights),
        cache=as_path(cache),
        output=as_path(output),
        overwrite=overwrite,
        resume=resume,
        tensorboard=as_path(tensorboard),
        command=command
        or _describe_call("finetune", model=str(folder.path), blocks=blocks, **settings),
    )
    tuned, scratch = _run(job, on_epoch, progress)
    sources = job.sources if learned_from or triplets is not None else None
    return Model(tuned.open_encoder(), tuned, cache=job.cache, scratch=scratch, sources=sources)


@as_one_run
def sweep(
    triplets: TripletsLike | None = None,
    images: ImagesLike | None = None,
    *,
    grid: Mapping[str, Sequence[Any]],
    names: Sequence[str] | None = None,
    labels: LabelsLike | None = None,
    votes: VotesLike | None = None,
    votes_as: VotesAs | None = None,
    backbone: BackboneLike | Sequence[BackboneLike] = AUTO,
    features: FeaturesLike | np.ndarray | None = None,
    cache: PathLike | None = None,
    progress: bool | Stages | None = None,
    **settings: Unpack[_TrainSettings],
) -> pd.DataFrame:
    """Score every combination of settings by the same held-out draws.

    A third of the images is held out, again and again, as `train` does; every combination answers
    the same triplets about images that it has not seen. Nothing is kept but the table. The best
    of many looks better than it is, because it was chosen: train with it, and believe what `train`
    says of it no more than its interval allows.

    Args:
        triplets, images, names, labels, votes, votes_as, backbone, features, cache, progress: see
            `train`.
        grid: setting -> the values to try, such as `{"dim": [10, 32], "margin": [0.1, 0.2]}`;
            also `backbone` and `depth`. With `recipe` in it, recipes are compared; `best` is none
            of them, as it chooses by such draws by itself.
        settings: those that all combinations have, such as `seed`.
    Returns:
        A table with a row a combination, the most accurate first: the settings of the grid;
        `accuracy`, `low` and `high`, its 95% interval; `epochs` that a training on all triplets
        would have; `behind` the best, and `behind_low` and `behind_high`, its 95% interval, paired
        by triplet: above 0 throughout means worse for certain.
    Raises:
        SettingsError: if the grid is empty, or a combination does not go together.
        TripletkitError: as in `train`, or if no triplets can be held out.
    Example:
        `tk.sweep("train.txt", "images/", grid={"margin": [0.1, 0.2, 0.4]})`
    """
    from tripletkit.training import run

    job = _make_job(
        images,
        features,
        backbone,
        settings,
        cache,
        sources={
            "triplets": triplets,
            "names": names,
            "labels": labels,
            "votes": votes,
            "votes_as": votes_as,
        },
    )
    with open_stages(progress) as stages:
        return pd.DataFrame(run.sweep(job, grid, stages))


def _make_job(
    images: ImagesLike | None,
    features: FeaturesLike | np.ndarray | None,
    backbone: BackboneLike | Sequence[BackboneLike],
    options: Mapping[str, Any],
    cache: PathLike | None,
    *,
    sources: Mapping[str, Any],
    **more: Any,
) -> TrainingJob:
    if images is None and features is None:
        raise SettingsError("images", "expected the folder of the images as `images`")
    if isinstance(features, np.ndarray):
        if (names := sources.get("names")) is None:
            raise SettingsError("names", "an array of `features` needs `names`, one for each row")
        features = (names, features)
    if sources["votes_as"] is not None:
        check_choice("votes_as", sources["votes_as"], get_args(VotesAs))
    encoder, settings = take_encoder_options(options)
    return TrainingJob(
        open_sources(images=open_images(images), **sources),
        settings=settings,
        encoder=EncoderChoice(
            tuple(list_backbones(backbone)),
            features=None if features is None else open_features(features),
            **encoder,
        ),
        cache=as_path(cache),
        **more,
    )


def _check_output(
    output: PathLike | None, tensorboard: PathLike | None, *, overwrite: bool
) -> None:
    """Refuse places where a training would do harm, before any work."""
    if output is not None:
        Outputs(overwrite=overwrite).folder(Path(output))
    if tensorboard is not None:
        check_written_folder(Path(tensorboard))


def _run(
    job: Job, on_epoch: OnEpoch | None, progress: bool | Stages | None
) -> tuple[ModelFolder, Scratch | None]:
    """Train, and return the folder of the model, and what it is in until it is saved."""
    # Loads TensorFlow, which may wait until something is trained.
    from tripletkit.training import run

    with open_stages(progress) as stages:
        return run.train(job, on_epoch or ignore_epoch, stages)


def _describe_call(function: str, **arguments: Any) -> str:
    """Return the call as the record of the model has it."""
    shown = ", ".join(
        f"{name}={str(value) if is_path(value) else value!r}"
        if isinstance(value, str | int | float | Path | list | tuple)
        else f"{name}=<{type(value).__name__}>"
        for name, value in arguments.items()
        if value is not None
    )
    return f"tripletkit.{function}({shown})"
