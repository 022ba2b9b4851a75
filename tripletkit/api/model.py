"""A model, or a backbone alone, that answers triplets, embeds images and finds neighbours."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from tripletkit import defaults
from tripletkit.api.embeddings import Embeddings
from tripletkit.api.inputs import PathLike, TripletsLike
from tripletkit.api.model_card import describe_model, draw_card
from tripletkit.data.images import Images, ImagesLike, open_images
from tripletkit.data.judgements import open_judgements
from tripletkit.data.outputs import Outputs
from tripletkit.errors import (
    DataWarning,
    DistributionShiftWarning,
    ImageNameError,
    ModelFolderError,
    SettingsError,
)
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import PooledValidation
from tripletkit.evaluation.validation import Validation
from tripletkit.features.encoder import Encoder, open_collection
from tripletkit.features.store import open_store
from tripletkit.model.model_folder import ModelFolder, copy_model
from tripletkit.model.record import ModelRecord
from tripletkit.progress import Progress
from tripletkit.search.exact import find_neighbors


class Model:
    """What turns images into embeddings, and answers triplets by them.

    `tripletkit.train`, `tripletkit.load` and `tripletkit.pretrained` return one; it is not made in
    another way. Features are kept on disk, so that an image goes through the backbone once.

    Attributes:
        distance: by which embeddings are compared.
        images: folder of the images that it was trained with; `None` without a training.
        path: its folder; `None` without a training, or before `save`.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        folder: ModelFolder | None = None,
        images: Path | None = None,
        cache: Path | None = None,
        scratch: TemporaryDirectory[str] | None = None,
    ) -> None:
        self._encoder = encoder
        self._folder = folder
        self._images = images
        self._cache = cache
        # A model that was not saved lives as long as this does.
        self._scratch = scratch

    @property
    def distance(self) -> str:
        """The distance by which embeddings are compared."""
        return self._encoder.distance

    @property
    def images(self) -> Path | None:
        """Folder of the images that it was trained with; None without a training."""
        return self._images

    @property
    def path(self) -> Path | None:
        """Its folder; None without a training, or before `save`."""
        if self._folder is None or self._scratch is not None:
            return None
        return self._folder.path

    @property
    def folder(self) -> ModelFolder | None:
        """Its files; None without a training."""
        return self._folder

    @property
    def record(self) -> ModelRecord | None:
        """All that is known of how it came to be, as in `model.json`; None without a training."""
        return None if self._folder is None else self._folder.record

    @property
    def validation(self) -> Validation | PooledValidation | None:
        """Scores on held-out triplets, `trained` beside the `frozen` features' own.

        Of the validation triplets, or pooled over held-out draws where the model was trained on
        all triplets. None without a training, or where nothing was held out.
        """
        return None if self.record is None else self.record.validation or self.record.pooled

    @property
    def history(self) -> pd.DataFrame | None:
        """Table of the epochs; None without a training."""
        return None if self._folder is None else self._folder.read_history()

    @property
    def frozen(self) -> Model:
        """The same without the trained head: the features of its backbone, compared by cosine."""
        return Model(
            self._encoder.frozen,
            images=self._images,
            cache=self._cache,
            scratch=self._scratch,
        )

    def answer(
        self,
        queries: TripletsLike,
        images: PathLike | None = None,
        *,
        names: Sequence[str] | None = None,
        skip_bad: bool = False,
        follow_outside: bool = False,
        progress: Progress | None = None,
    ) -> Answers:
        """Answer queries `A B C`: 1 if A is closer to B than to C, else 0.

        Args:
            queries: a triplet file, a table (`Triplets.from_frame`), `Triplets`, or integer rows of
                `names`.
            images: folder of the images. Defaults to the one of the training.
            names: of the images that integer rows are indices of.
            skip_bad: answer 0 without a margin where an image cannot be used, instead of raising.
                Defaults to `False`.
            follow_outside: allow names and links that lead out of the folder.
            progress: told (done, total) images whose features have to be computed.
        Returns:
            `Answers`: `predictions`, `margins` (d(A,C) - d(A,B)), `write(...)`, `to_frame()`.
        Raises:
            TripletFileError: if the queries cannot be read.
            ImageNameError, ImageReadError: if an image is not there or cannot be read.
        """
        triplets = open_judgements(queries, names=names).triplets
        files = open_images(
            self._image_folder(images),
            triplets.names,
            triplets.first_places(),
            skip_bad=skip_bad,
            follow_outside=follow_outside,
        )
        features = self._read_features(files, progress)
        self._warn_of_shift(features)
        vectors = self._encoder.embed(features)
        margins = triplet_margins(vectors, triplets.rows, self.distance)
        answers = Answers.from_margins(margins, triplets, triplets.source)
        _warn_of_undecided(answers)
        return answers

    def embed(
        self,
        images: ImagesLike | None = None,
        *,
        names: Sequence[str] | None = None,
        skip_bad: bool = False,
        follow_outside: bool = False,
        progress: Progress | None = None,
    ) -> Embeddings:
        """Return the embeddings of images.

        Args:
            images: a folder, or one or several of: path of a file, `(height, width)` or
                `(height, width, 3)` array of uint8 (RGB), PIL image. Defaults to the folder of the
                training, or to all given features.
            names: of several images, distinct. Defaults to the paths as they were given, and to
                the places in the list of what has none.
            skip_bad: leave images out that cannot be used, instead of raising. Defaults to `False`.
            follow_outside: allow links that lead out of a folder.
            progress: told (done, total) images whose features have to be computed.
        Returns:
            `Embeddings`: `names`, and `vectors` of the shape `(n_images, n_dims)`.
        Raises:
            ImageNameError, ImageReadError: if an image is not there or cannot be read.
        """
        if images is None:
            images = self._image_folder(None)
        if images is None:
            files = self._given_files()
        else:
            files = open_images(images, names, skip_bad=skip_bad, follow_outside=follow_outside)
        features = self._read_features(files, progress)
        vectors = self._encoder.embed(features)
        with open_store(self._cache) as store:
            contents = files.contents(store).hashes
        kept = np.flatnonzero(np.isfinite(vectors).all(axis=1)).tolist()
        return Embeddings(
            [files.names[row] for row in kept],
            vectors[kept],
            self.distance,
            [contents[row] for row in kept],
        )

    def neighbors(
        self,
        queries: ImagesLike | Embeddings,
        images: PathLike | Embeddings | None = None,
        k: int = defaults.NEIGHBORS,
    ) -> pd.DataFrame:
        """Return the images of a collection that are nearest to queries.

        An image is never its own neighbour, nor is a copy of it under another name.

        Args:
            queries: see `embed`; or embeddings.
            images: the collection: a folder, or embeddings by this model. Defaults to the folder
                of the training.
            k: how many neighbours of each query. Defaults to `10`.
        Returns:
            A table with the columns query, rank (from 1), name and distance, nearest first.
        Raises:
            SettingsError: if `k` is below 1.
            ImageNameError, ImageReadError: if an image is not there or cannot be read.
        """
        if k < 1:
            raise SettingsError("k", f"expected at least 1 for `k`, got {k}")
        asked = queries if isinstance(queries, Embeddings) else self.embed(queries)
        known = images if isinstance(images, Embeddings) else self.embed(images)
        rows_of: dict[bytes | str, list[int]] = {}
        for row, image in enumerate(known.identities()):
            rows_of.setdefault(image, []).append(row)
        same = [np.array(rows_of.get(image, []), dtype=np.int64) for image in asked.identities()]
        found = find_neighbors(known.vectors, asked.vectors, k, self.distance, same)
        return pd.DataFrame(
            [
                (name, rank, known.names[row], distance)
                for query, name in enumerate(asked.names)
                for rank, (row, distance) in enumerate(found.of(query), 1)
            ],
            columns=["query", "rank", "name", "distance"],
        )

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the model folder, whole or not at all.

        Args:
            path: the folder to make; `tripletkit.load` and the command line take it.
            overwrite: replace a model that is there. Defaults to `False`.
        Raises:
            ModelFolderError: if nothing was trained.
            OutputError: if it cannot be written, or would replace something it may not.
        """
        if self._folder is None:
            raise ModelFolderError("expected a trained model, a backbone alone is not saved")
        Outputs(image_folders=[self.images], overwrite=overwrite).folder(Path(path))
        saved = copy_model(self._folder, Path(path), overwrite=overwrite)
        self._encoder = (
            saved.open_encoder()
            if saved.has_own_backbone
            else replace(self._encoder, head=saved.head)
        )
        self._folder = saved
        self._scratch = None

    def __repr__(self) -> str:
        return f"<{describe_model(self._encoder, self._folder, self.path)}>"

    def _repr_html_(self) -> str:
        """Return what it is with a few of its images, for notebooks."""
        return draw_card(self._encoder, self._folder, self.path)

    def _image_folder(self, images: PathLike | None) -> Path | None:
        """Return where images are; None where given features take their place."""
        if images is not None:
            return Path(images)
        if self._encoder.is_given:
            return None
        if self.images is None:
            raise SettingsError(
                "images", "a backbone alone knows no images: say where they are with `images`"
            )
        if not self.images.is_dir():
            raise ImageNameError(
                f"{self.images}: the folder of images that the model was trained with is gone. "
                "Say where the images are with `images=DIR`."
            )
        return self.images

    def _given_files(self) -> Images:
        """Return the names of all given features.

        Raises:
            SettingsError: if there are none at hand.
        """
        given = self._encoder.given
        if given is None:
            raise SettingsError(
                "features", "the model is of given features: say where they are with `features`"
            )
        return given.images

    def _read_features(self, files: Images, progress: Progress | None) -> np.ndarray:
        with open_store(self._cache) as store:
            collection = open_collection(files, self._encoder, store, progress=progress)
        return collection.features

    def _warn_of_shift(self, features: np.ndarray) -> None:
        if self._folder is None or (detector := self._folder.read_shift_detector()) is None:
            return
        if (shift := detector.describe(features)) is not None:
            warnings.warn(
                f"{shift} Judge triplets of such images, score these answers by them, and add "
                "them to the training.",
                DistributionShiftWarning,
                stacklevel=3,
            )


def _warn_of_undecided(answers: Answers) -> None:
    for is_so, what in (
        (answers.is_tie, "are ties (both images equally near), answered 0"),
        (answers.is_undecidable, "have an image that cannot be used, answered 0 without a margin"),
    ):
        if n := int(is_so.sum()):
            warnings.warn(f"{n:,} of {len(answers):,} rows {what}", DataWarning, stacklevel=3)
