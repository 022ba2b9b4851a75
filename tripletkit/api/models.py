"""A model, or a backbone alone, that answers triplets, embeds images and finds neighbours."""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.api.embeddings import Embeddings, open_vector_file
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
from tripletkit.data.images import Images, ImagesLike, is_one_image, open_images
from tripletkit.data.judgements import Judgements, read_judgements
from tripletkit.data.labels import read_labels
from tripletkit.data.outputs import COLLAGE_FORM, OutputFile, Outputs, Scratch, as_one_run
from tripletkit.data.text_files import check_encodable
from tripletkit.data.triplets import Triplets
from tripletkit.errors import (
    DataWarning,
    DistributionShiftWarning,
    ImageNameError,
    ImageReadError,
    LeakageWarning,
    ModelFolderError,
    SettingsError,
    caution,
)
from tripletkit.evaluation.answers import ANSWERS_FORM, AnswerFormat, Answers
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import PooledValidation
from tripletkit.evaluation.validation import Validation
from tripletkit.features.backbones import AUTO
from tripletkit.features.encoder import BackboneLike, Encoder, list_backbones
from tripletkit.features.function_encoder import FunctionEncoder
from tripletkit.features.given_features import FeaturesLike
from tripletkit.features.store import FeatureStore
from tripletkit.model.model_folder import ModelFolder, load_model
from tripletkit.model.record import ModelRecord
from tripletkit.progress import Progress, Stages, open_stages
from tripletkit.registry import check_numbers, describe_unknown
from tripletkit.results import Table
from tripletkit.search.image_search import (
    INDEX_FORM,
    CollectionSearch,
    NearestImages,
    find_neighbors,
    find_same,
    import_faiss,
    list_answers,
)

if TYPE_CHECKING:
    from tripletkit.training.inputs import TrainingSources

logger = logging.getLogger("tripletkit")


# How many images a model's card shows.
_CARD_IMAGES = 6

# Of a model, what is made anew from its files in another process.
_REMADE = ("encoder", "folder", "_scratch")


class Model:
    """What turns images into embeddings, and answers triplets by them.

    `tripletkit.train`, `tripletkit.load` and `tripletkit.pretrained` return one; it is not made in
    another way. Features are kept on disk, so that an image goes through the backbone once. A
    model can be pickled, with all that its training came to.

    Attributes:
        images: folder of the images that it was trained with; `None` without a training.
        folder: its files; `None` without a training.
        cache: folder of the feature store; `None` for the user's.
        encoder: what turns images into its embeddings.
        sources: what it was trained on and validated on, where that is in memory alone.
        functions: that its features are of, where these are a user's own.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: ModelFolder | None = None,
        *,
        images: Path | None = None,
        cache: Path | None = None,
        scratch: Scratch | None = None,
        sources: TrainingSources | None = None,
        functions: Sequence[FunctionEncoder] = (),
    ) -> None:
        self.encoder = encoder
        self.folder = folder
        self.images = images if folder is None else folder.image_folder
        self.cache = cache
        # A model that was not saved lives as long as this does.
        self._scratch = scratch
        self.sources = sources
        self.functions = functions

    @property
    def distance(self) -> str:
        """The distance by which embeddings are compared."""
        return self.encoder.distance

    @property
    def path(self) -> Path | None:
        """Its folder; None without a training, or before `save`."""
        return None if self.folder is None or self._scratch is not None else self.folder.path

    @property
    def is_trained(self) -> bool:
        """Whether it has a trained head; a backbone alone has none."""
        return self.folder is not None

    @property
    def record(self) -> ModelRecord:
        """All that is known of how it came to be, as in `model.json`.

        Raises:
            ModelFolderError: if nothing was trained.
        """
        return self._need_folder("a backbone alone has no record").record

    @property
    def validation(self) -> Validation | PooledValidation:
        """Scores on validation triplets or held-out draws, `trained` beside the `frozen` features.

        Raises:
            ModelFolderError: if nothing was trained, or nothing was held out.
        """
        found = self.record.validation or self.record.pooled
        if found is None:
            raise ModelFolderError(
                "expected scores on held-out triplets, nothing was held out in this training: give "
                "`val`, or more triplets"
            )
        return found

    @property
    def history(self) -> pd.DataFrame:
        """Table of the epochs.

        Raises:
            ModelFolderError: if nothing was trained.
        """
        return self._need_folder("a backbone alone has no epochs").read_history()

    @property
    def frozen(self) -> Model:
        """The same without the trained head: the features of its backbone, compared by cosine."""
        return Model(
            self.encoder.frozen, images=self.images, cache=self.cache, scratch=self._scratch
        )

    @property
    def judgements(self) -> Judgements | None:
        """What it was trained on, where that is in memory alone; None where files can be read."""
        return None if self.sources is None else self.sources.judgements

    @as_one_run
    def answer(
        self,
        queries: TripletsLike,
        images: ImagesLike | None = None,
        *,
        names: Sequence[str] | None = None,
        output: PathLike | None = None,
        form: AnswerFormat = "csv",
        overwrite: bool = False,
        progress: bool | Stages | None = None,
    ) -> Answers:
        """Answer queries `A B C`: 1 if A is closer to B than to C, else 0.

        Args:
            queries: a triplet file, a table, `Triplets`, what `read_judgements` returns, or integer
                rows of `names`.
            images: folder of the images, or `Images`: with `open_images("photos", skip_bad=True)`
                rows with an image that cannot be used answer 0 without a margin, instead of
                raising. Defaults to the folder of the training.
            names: of the images that integer rows are indices of.
            output, form, overwrite: a file to write, as `Answers.write` does.
            progress: see `train`.
        Returns:
            `Answers`: `predictions`, `margins` (d(A,C) - d(A,B)), `write(...)`, `to_frame()`.
        Raises:
            TripletFileError: if the queries cannot be read.
            ImageNameError, ImageReadError: if an image is not there or cannot be read.
        """
        file = Outputs(overwrite=overwrite).optional_file(as_path(output), ANSWERS_FORM)
        triplets = read_judgements(queries, names=names).triplets
        files = self._find_images(images).find(triplets.names, triplets.first_places())
        with open_stages(progress) as stages:
            features = self._read_features(files, stages("features"))
        self._warn_of_shift(features)
        self._warn_of_learned(triplets, files)
        vectors = self.encoder.embed(features)
        margins = triplet_margins(vectors, triplets.rows, self.distance)
        answers = Answers.from_margins(margins, triplets, triplets.source)
        _warn_of_undecided(answers)
        where = ""
        if file is not None:
            answers._write(file, form)
            where = f" to {file}"
        logger.info(
            f"Answered {len(triplets):,} questions over {len(triplets.names):,} images{where}."
        )
        return answers

    @as_one_run
    def embed(
        self,
        images: ImagesLike | None = None,
        *,
        names: Sequence[str] | None = None,
        output: PathLike | None = None,
        overwrite: bool = False,
        progress: bool | Stages | None = None,
    ) -> Embeddings:
        """Return the embeddings of images.

        Args:
            images: a folder, `Images`, or one or several of: path of a file, `(height, width)` or
                `(height, width, 3)` array of uint8 (RGB), PIL image. Defaults to the folder of the
                training, or to all given features.
            names: of several images, distinct. Defaults to the paths as they were given, and to
                the places in the list of what has none.
            output, overwrite, progress: a file to write, as `Embeddings.write` does; see `train`.
        Returns:
            `Embeddings`: `names`, and `vectors` of the shape `(n_images, n_dims)`.
        Raises:
            ImageNameError, ImageReadError: if an image is not there or cannot be read.
        """
        file = None if output is None else open_vector_file(output, overwrite=overwrite)
        files = self._list_images(images, names)
        if file is not None and file.path.suffix.lower() != ".npz":
            check_encodable(files.names, str(output))
        with FeatureStore(self.cache) as store, open_stages(progress) as stages:
            vectors = self.encoder.encode(files, store, progress=stages("features"))
            contents = files.contents(store).hashes
        kept = np.flatnonzero(np.isfinite(vectors).all(axis=1)).tolist()
        found = Embeddings(
            [files.names[row] for row in kept],
            vectors[kept],
            self.distance,
            [contents[row] for row in kept],
        )
        if file is not None:
            found._write(file)
            what, n_dims = "embeddings" if self.is_trained else "features", found.vectors.shape[1]
            logger.info(f"Wrote {what} of {len(found):,} images, {n_dims:,} numbers each: {file}.")
        return found

    @as_one_run
    def neighbors(
        self,
        queries: ImagesLike | Embeddings,
        images: ImagesLike | Embeddings | None = None,
        k: int = defaults.NEIGHBORS,
        *,
        index: PathLike | None = None,
        check_recall: bool = False,
        collage: PathLike | None = None,
        labels: LabelsLike | None = None,
        overwrite: bool = False,
        progress: bool | Stages | None = None,
    ) -> NearestImages:
        """Return the images of a collection that are nearest to queries.

        An image is never its own neighbour, nor is a copy of it under another name. Of equally
        near images the first by name comes first.

        Args:
            queries: see `embed`; or embeddings, or names that the collection has.
            images: the collection: a folder, or embeddings by this model. Defaults to the folder
                of the training.
            k: how many neighbours of each query.
            index: file of an approximate index, for large collections: made if it is not there.
            check_recall: also say which share of the true neighbours the `index` finds.
            collage: image to draw, a row for each query.
            labels: of the images; neighbours of the query's label are marked. See `train`.
            overwrite, progress: replace a collage, and make the index anew; see `train`.
        Returns:
            `NearestImages`; its `to_frame()` has the columns query, rank (from 1), name and
            distance, nearest first.
        Raises:
            SettingsError: if `k` is below 1, or `check_recall` comes without an `index`.
            ImageNameError, ImageReadError: if an image is not there or cannot be read.
        """
        check_numbers(1, k=k)
        if isinstance(queries, Embeddings) or isinstance(images, Embeddings):
            of_files = {"index": index, "check_recall": check_recall, "collage": collage}
            for name, value in (of_files | {"labels": labels}).items():
                if value is not None and value is not False:
                    raise SettingsError(name, f"`{name}` is for images, not for embeddings.")
            return self._compare_embeddings(queries, images, k)
        outputs = Outputs(overwrite=overwrite)
        collage_file = outputs.optional_file(as_path(collage), COLLAGE_FORM)
        # An index that is there is read, unless it is to be made anew.
        index_place: OutputFile | Path | None = as_path(index)
        if isinstance(index_place, Path):
            if overwrite or not index_place.exists():
                index_place = outputs.file(index_place, INDEX_FORM)
            import_faiss()
        elif check_recall:
            raise SettingsError("check_recall", "`check_recall` needs `index`.")
        files = self._list_images(images)
        label_of = {} if labels is None else read_labels(labels, files.folder)
        query_files = _open_queries(_list_queries(queries), files)
        with FeatureStore(self.cache) as store:
            own, contents = query_files.contents(store).hashes, files.contents(store).hashes
        same = find_same(own, contents)
        with open_stages(progress) as stages:
            search = CollectionSearch(
                self.encoder, files, query_files, self.cache, stages("features")
            )
            if index_place is None:
                found = search.exactly(k, same)
            else:
                found = search.by_index(k, same, index_place, contents)
            recall = search.measure_recall(k) if check_recall else None
        if recall is not None:
            logger.info("Recall at %s: %.3f of the neighbours that exact search finds.", k, recall)
        names_of = [
            [*(files.names[row] for row in rows), *([] if path is None else [path.name])]
            for rows, path in zip(same, query_files.paths, strict=True)
        ]
        answers = list_answers(found, query_files.names, files.names, label_of, names_of)
        if collage_file is not None:
            from tripletkit.reporting.collages import draw_neighbors

            draw_neighbors(collage_file, answers, query_files, files)
            logger.info("Drew %s.", collage_file)
        return NearestImages(self.distance, answers, recall)

    @as_one_run
    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the model folder, whole or not at all.

        Args:
            path: the folder to make; `tripletkit.load` and the command line take it.
            overwrite: replace a model that is there.
        Raises:
            ModelFolderError: if nothing was trained.
            OutputError: if it cannot be written, or would replace something it may not.
        """
        folder = self._need_folder("a backbone alone is not saved")
        Outputs(overwrite=overwrite).folder(Path(path))
        saved = folder.copy(Path(path), overwrite=overwrite)
        self.encoder = (
            saved.open_encoder()
            if saved.has_own_backbone
            else replace(self.encoder, head=saved.head)
        )
        self.folder, self._scratch = saved, None

    @as_one_run
    def export(
        self, output: PathLike, *, onnx: bool = False, overwrite: bool = False
    ) -> list[Path]:
        """Write the whole network, backbone and head, as files that need no tripletkit.

        Args:
            output: folder for triplet_network.keras and encoder.keras, or encoder.onnx and
                head.onnx.
            onnx: write ONNX files, instead of Keras's.
            overwrite: replace such files that are there.
        Returns:
            The files that were written.
        Raises:
            ModelFolderError: if nothing was trained.
            OutputError: if something cannot be written, or would replace something it may not.
        """
        from tripletkit.model.export import export_model

        folder = self._need_folder("a backbone alone is not exported")
        outputs = Outputs(overwrite=overwrite)
        paths = export_model(folder, Path(output), self.encoder, outputs, as_onnx=onnx)
        for path in paths:
            logger.info("Wrote %s.", path)
        inputs = list(self.encoder.pixel_inputs.values())
        if len(inputs) > 1:
            logger.info(
                f"The encoder takes {len(inputs)} inputs: {', '.join(inputs)}. Each is the same "
                "image, resized to a square of so many pixels with that filter of Pillow."
            )
        return paths

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of it as JSON takes it."""
        if self.folder is None:
            return {"distance": self.distance, "features": self.encoder.facts}
        path = {} if self.path is None else {"model": str(self.path)}
        return path | self.record.to_dict()

    def __str__(self) -> str:
        if self.folder is None:
            return self._describe()
        return self.record.describe(len(self.history))

    def __repr__(self) -> str:
        return f"<{self._describe()}>"

    def _repr_html_(self) -> str:
        """Return what it is with a few of its images, for notebooks."""
        (_, title), *facts = self._facts()
        table = Table(facts, has_heading=False, title=title)
        return f"<div>{table.to_html()}{_draw_images(self.folder)}</div>"

    def _describe(self) -> str:
        return ", ".join(f"{name} {value}".strip() for name, value in self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        backbones = " + ".join(part.backbone.name for part in self.encoder.parts)
        if self.folder is None:
            return [
                ("", f"tripletkit backbone {backbones}"),
                ("features", f"{self.encoder.n_features:,} numbers"),
                ("distance", self.distance),
            ]
        record = self.record
        facts = [
            ("", f"tripletkit model {self.path or '(not saved)'}"),
            ("recipe", record.settings.recipe),
            ("backbone", backbones or "none, features were given"),
            ("distance", record.settings.distance),
            ("trained on", f"{record.split.n_train:,} triplets, {record.n_images:,} images"),
        ]
        if validation := record.validation or record.pooled:
            facts += [
                ("validation", validation.trained._summary()),
                ("frozen features", validation.frozen._summary()),
            ]
        return facts

    def __getstate__(self) -> dict[str, Any]:
        """Return all that it takes to answer in another process: the files themselves."""
        kept = {name: value for name, value in vars(self).items() if name not in _REMADE}
        if self.folder is None:
            return kept | {"encoder": self.encoder}
        is_saved, given = self._scratch is None, self.encoder.given
        return kept | {"folder": self.folder, "is_saved": is_saved, "given": given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if (folder := state.pop("folder", None)) is None:
            vars(self).update(state, folder=None, _scratch=None)
            return
        is_saved, given = state.pop("is_saved"), state.pop("given")
        scratch = None
        if not (is_saved and folder.is_there()):
            scratch = Scratch()
            folder = folder.copy(scratch.folder / "model")
        encoder = folder.open_encoder(None, None, state["functions"])
        if given is not None:
            encoder = replace(encoder, given=given)
        vars(self).update(state, folder=folder, encoder=encoder, _scratch=scratch)

    def _need_folder(self, why: str) -> ModelFolder:
        if self.folder is None:
            raise ModelFolderError(f"expected a trained model, {why}")
        return self.folder

    def _compare_embeddings(
        self, queries: ImagesLike | Embeddings, images: ImagesLike | Embeddings | None, k: int
    ) -> NearestImages:
        known = images if isinstance(images, Embeddings) else self.embed(images)
        if isinstance(queries, Embeddings):
            asked = queries
        elif all(isinstance(each, str) and each in known for each in _list_queries(queries)):
            asked = known.take(_list_queries(queries))
        else:
            asked = self.embed(queries)
        n_dims = known.vectors.shape[1]
        for name, each in (("images", known), ("queries", asked)):
            if (each.vectors.shape[1], each.distance) != (n_dims, self.distance):
                expected = f"{n_dims:,} numbers each, {self.distance} distance"
                got = each._summary()
                raise SettingsError(name, f"`{name}`: expected vectors of {expected}, got {got}.")
        same = find_same(asked.identities(), known.identities())
        found = find_neighbors(known.vectors, asked.vectors, k, self.distance, same)
        return NearestImages(self.distance, list_answers(found, asked.names, known.names))

    def _find_images(self, images: ImagesLike | None) -> Images:
        """Return where images are: what was given, with its policy, else those of the training."""
        found = open_images(images)
        if found.has_files or self.encoder.is_given:
            return found
        if self.images is None:
            raise SettingsError(
                "images", "a backbone alone knows no images: say where they are with `images`"
            )
        if not self.images.is_dir():
            raise ImageNameError(
                f"{self.images}: the folder of images that the model was trained with is gone. "
                "Say where the images are with `images=DIR`."
            )
        return found.or_folder(self.images)

    def _list_images(self, images: ImagesLike | None, names: Sequence[str] | None = None) -> Images:
        """Return all images that are given, else all of the training, or all given features."""
        found = self._find_images(images)
        if not found.has_files:
            if self.encoder.given is None:
                raise SettingsError(
                    "features", "the model is of given features: say where they are with `features`"
                )
            return self.encoder.given.images
        return found if names is None else open_images(images, names)

    def _read_features(self, files: Images, progress: Progress | None) -> np.ndarray:
        with FeatureStore(self.cache) as store:
            return self.encoder.load(files, store, progress=progress).features

    def _warn_of_learned(self, triplets: Triplets, files: Images) -> None:
        if self.folder is None or self.encoder.head is None:
            return
        with FeatureStore(self.cache) as store:
            share = self.folder.share_learned(triplets, files.contents(store).hashes)
        if share:
            caution(
                f"{triplets.source}: the model learned from {share:.1%} of these questions and "
                "their answers; how it does on them says nothing of new ones.",
                LeakageWarning,
            )

    def _warn_of_shift(self, features: np.ndarray) -> None:
        if self.folder is None or self.encoder.head is None:
            return
        if (detector := self.folder.read_shift_detector()) is None:
            return
        if (shift := detector.describe(features)) is not None:
            caution(
                f"{shift} Judge triplets of such images, score these answers by them, and add "
                "them to the training.",
                DistributionShiftWarning,
            )


@as_one_run
def load(
    path: PathLike = defaults.MODEL_FOLDER,
    *,
    weights: WeightsLike | None = None,
    features: FeaturesLike | None = None,
    backbone: FunctionEncoder | Sequence[FunctionEncoder] = (),
    cache: PathLike | None = None,
) -> Model:
    """Read a model folder that `train` or `Model.save` wrote.

    Args:
        path: the folder. Defaults to `"tripletkit-model"`.
        weights: weights file of the backbone, or one for each name, where they are not where they
            were at training.
        features, cache: see `train`; other features for a model that was trained on such.
        backbone: the function that it was trained on, or several; see `tripletkit.Encoder`.
    Returns:
        The `Model`.
    Raises:
        ModelFolderError: if it is missing, incomplete, edited or of another format.
    """
    folder = load_model(Path(path))
    functions = [backbone] if isinstance(backbone, FunctionEncoder) else list(backbone)
    encoder = folder.open_encoder(given_weights(weights), features, functions)
    return Model(encoder, folder, cache=as_path(cache), functions=functions)


@as_one_run
def pretrained(
    backbone: BackboneLike | Sequence[BackboneLike] = AUTO,
    *,
    features: FeaturesLike | None = None,
    cache: PathLike | None = None,
    **how: Unpack[EncoderOptions],
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
        features, cache: see `train`.
    Returns:
        A `Model`.
    Raises:
        BackboneError: if a name is not known, or its weights can neither be found nor downloaded.
        NetworkFileError: if an ONNX file cannot be run, or it is not clear how.
    Example:
        `tk.pretrained("resnet50").embed("images/")`
    """
    encoder = open_backbones(backbone, features, how)
    for part in encoder.parts:
        if part.reason:
            logger.info("Backbone %s.", part.reason)
    return Model(encoder, cache=as_path(cache))


def open_backbones(
    backbone: BackboneLike | Sequence[BackboneLike],
    features: FeaturesLike | None,
    how: EncoderOptions,
) -> Encoder:
    """Return the encoder that is named, or that of given features."""
    options, unknown = take_encoder_options(how)
    if unknown:
        name = next(iter(unknown))
        raise SettingsError(name, describe_unknown(name, list(EncoderOptions.__annotations__)))
    # Answers need nothing of training, whose import would take a fortieth of their time.
    from tripletkit.training.job import EncoderChoice

    chosen = EncoderChoice(tuple(list_backbones(backbone)), features=features, **options)
    chosen.check()
    return chosen.open()


def _list_queries(queries: ImagesLike) -> list[Any]:
    return [queries] if isinstance(queries, Images) or is_one_image(queries) else list(queries)


def _open_queries(queries: Sequence[Any], collection: Images) -> Images:
    """Take image files as they are named, all images of folders, and names of the collection."""
    if not all(map(is_path, queries)):
        (only, *more) = queries
        return open_images(only if not more and isinstance(only, Images) else list(queries))
    path_of = dict(zip(collection.names, collection.paths, strict=True))
    paths: dict[Path, str] = {}
    for query in queries:
        path = Path(query)
        known = path_of.get(os.fspath(query))
        if path.is_dir():
            inside = list(open_images(path).paths)
            paths |= {each: str(each) for each in inside if each is not None}
        elif not path.exists() and known is not None:
            paths[known] = os.fspath(query)
        else:
            paths[path] = str(path)
    places = ["`queries`"] * len(paths)
    return open_images(list(paths), list(paths.values()), places, skip_bad=True)


def _warn_of_undecided(answers: Answers) -> None:
    for is_so, what in (
        (answers.is_tie, "are ties (both images equally near), answered 0"),
        (answers.is_undecidable, "have an image that cannot be used, answered 0 without a margin"),
    ):
        if n := int(is_so.sum()):
            caution(f"{n:,} of {len(answers):,} rows {what}", DataWarning)


def _draw_images(model: ModelFolder | None) -> str:
    """Return a few images of the image folder; none where it is gone, or there was none."""
    if model is None or (folder := model.image_folder) is None:
        return ""
    from tripletkit.reporting.collages import thumbnail_uri

    drawn = ""
    with suppress(ImageNameError):
        names = open_images(folder).names
        # Evenly over the names, since neighbours in that order are often alike.
        for name in names[:: max(1, len(names) // _CARD_IMAGES)][:_CARD_IMAGES]:
            with suppress(ImageReadError):
                title, source = html.escape(name, quote=True), thumbnail_uri(folder / name)
                style = "display:inline-block;margin:2px;max-height:72px"
                drawn += f"<img src='{source}' title='{title}' alt='{title}' style='{style}'>"
    return drawn
