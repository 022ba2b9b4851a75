"""An image of one's own, answered with the images of a report that are nearest to it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.errors import ImageReadError, SettingsError
from tripletkit.features.given_features import GivenSource
from tripletkit.features.image_features import NamedFiles, load_collection
from tripletkit.features.stores import open_store
from tripletkit.reporting.collages import thumbnail_uri
from tripletkit.reporting.reported import Reported
from tripletkit.search.exact import find_neighbors
from tripletkit.search.image_search import find_same

_NAME = "the image"


class QuerySearch:
    """A search among the images of a report, by each of its models.

    Args:
        models: of the report.
        cache: folder of the feature store; None for the user's.
    Raises:
        SettingsError: if a model takes features that were given, which a new image has none of.
    """

    def __init__(self, models: Sequence[Reported], cache: Path | None = None) -> None:
        for model in models:
            if isinstance(model.view.encoder.source, GivenSource):
                raise SettingsError(
                    "serve",
                    f"{model.name} takes features that were given, and a new image has none. "
                    "Write the report without `serve`.",
                )
        self._models, self._cache = models, cache
        # One image after the other: a backbone takes all processors as it is.
        self._lock = threading.Lock()
        with open_store(cache) as store:
            self._contents = [
                NamedFiles([], [], list(model.view.paths), {}).contents(store).hashes
                for model in models
            ]

    def find(self, image: bytes, k: int = defaults.NEIGHBORS) -> list[dict[str, Any]]:
        """Return the images nearest to one, by each model.

        Args:
            image: the content of an image file.
            k: how many.
        Returns:
            For each model its name and `neighbors`: name, label, distance, and the image as a
            data URI; nearest first. A copy of the image is not among them.
        Raises:
            ImageReadError: if it cannot be read as an image.
        """
        with self._lock, TemporaryDirectory(prefix="tripletkit-") as folder:
            path = Path(folder) / "image"
            path.write_bytes(image)
            try:
                return [self._find(number, path, k) for number in range(len(self._models))]
            except ImageReadError as error:
                # Where the copy lies is of no use to who dropped the image, and nor is the advice
                # that the second line has for a folder of images.
                problem, *_ = str(error).replace(str(path), _NAME).splitlines()
                raise ImageReadError(problem.removeprefix(f"{_NAME}: ")) from error

    def _find(self, number: int, path: Path, k: int) -> dict[str, Any]:
        model = self._models[number]
        view = model.view
        file = NamedFiles([_NAME], [_NAME], [path], {})
        with open_store(self._cache) as store:
            own = file.contents(store).hashes
            collection = load_collection(file, view.encoder.source, store)
        images = view.shown
        contents = [self._contents[number][image] for image in images]
        found = find_neighbors(
            view.embeddings[images],
            view.encoder.encode(collection.features),
            min(k, len(images)),
            view.model.distance,
            find_same(own, contents),
        )
        near = []
        for row, distance in found.of(0):
            image = int(np.asarray(images)[row])
            shown = view.paths[image]
            assert shown is not None, "an image that has an embedding has a file"
            near.append(
                {
                    "name": view.triplets.names[image],
                    "label": view.label_of(image),
                    "distance": float(distance),
                    "image": thumbnail_uri(shown),
                }
            )
        return {"name": model.name, "neighbors": near}
