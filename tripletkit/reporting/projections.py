"""Embeddings of many dimensions on a plane."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from tripletkit import defaults
from tripletkit.errors import MissingExtraError

PROJECTIONS = {"pca": "PCA", "umap": "UMAP"}


def check_projection(name: str) -> None:
    """Refuse early what `project_embeddings` would refuse."""
    # Found, not imported: umap takes seconds to load, and loads TensorFlow with all its talk.
    if name == "umap" and find_spec("umap") is None:
        raise MissingExtraError(
            "the projection umap needs the package umap-learn, which is not installed. Install "
            "it with `pip install 'tripletkit[map]'`, or take `projection=pca`."
        )


def project_embeddings(embeddings: np.ndarray, name: str) -> np.ndarray:
    """Return `(n_images, 2)` places, 0 to 1: PCA keeps large distances, UMAP neighbourhoods.

    Reference:
        McInnes, Healy, Melville. UMAP. 2018. arXiv:1802.03426.
    """
    places = _umap(embeddings) if name == "umap" else _pca(embeddings)
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.where(high > low, high - low, 1.0)


def choose_apart(places: np.ndarray, step: float, n_most: int) -> np.ndarray:
    """Return the indices of places of which no two are nearer than a step, the first ones first."""
    kept: list[int] = []
    for index, place in enumerate(places):
        if len(kept) == n_most:
            break
        if not kept or np.abs(places[kept] - place).max(axis=1).min() >= step:
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def _pca(embeddings: np.ndarray) -> np.ndarray:
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    # The sign of a direction is chance; fix it, so that a map does not flip from run to run.
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    places = centred @ directions.T
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))


def _umap(embeddings: np.ndarray) -> np.ndarray:
    import umap

    n_neighbors = min(15, len(embeddings) - 1)
    return umap.UMAP(
        n_neighbors=max(n_neighbors, 2),
        random_state=defaults.SEED,
        n_jobs=1,
        init="random" if len(embeddings) < 10 else "spectral",
    ).fit_transform(embeddings)
