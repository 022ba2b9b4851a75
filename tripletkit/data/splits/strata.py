"""Classes of images, or what comes nearest to them, so that no side of a split lacks one."""

from __future__ import annotations

import numpy as np

from tripletkit import defaults
from tripletkit.data.labels import NO_LABEL


def find_strata(
    rows: np.ndarray,
    n_images: int,
    labels: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Return `(n_images,)` integers: the class of each image, or what comes nearest to it.

    Args:
        rows: `(n_triplets, 3)` indices of images: anchor, positive, negative.
        n_images: how many images there are.
        labels: `(n_images,)` integers; `NO_LABEL` where an image has none.
        features: `(n_images, n_features)` float32, rows of length 1; finite where a triplet
            has the image.
    """
    images = np.unique(rows)
    if labels is not None and np.any(labels[images] != NO_LABEL):
        return np.where(labels == NO_LABEL, labels.max() + 1, labels)
    strata = np.zeros(n_images, dtype=np.int64)
    n_clusters = min(defaults.N_CLUSTERS, len(images) // defaults.MIN_GROUP_IMAGES)
    if features is not None and n_clusters >= 2:
        from sklearn.cluster import KMeans

        strata[images] = KMeans(n_clusters, n_init=3, random_state=0).fit_predict(features[images])
        return strata
    # Classes never mix among positives, so there each of them is a component.
    return join_images(rows[:, [0]], rows[:, [1]], n_images)


def join_images(ones: np.ndarray, others: np.ndarray, n_images: int) -> np.ndarray:
    """Return `(n_images,)` integers: the connected component of each image.

    Args:
        ones, others: indices of images, of any shape, that are joined one by one.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = ones.ravel(), others.ravel()
    graph = coo_array((np.ones(ones.size, dtype=bool), edges), shape=(n_images, n_images))
    return connected_components(graph, directed=False)[1]
