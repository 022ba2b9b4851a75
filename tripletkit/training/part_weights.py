"""What an ensemble is made of, chosen by held-out margins.

Every candidate part gives a margin for every held-out triplet, from heads that never saw its
images. Margins of different parts have different scales, so each is divided by its spread. Then
the weights are learned that answer the held-out triplets best: none below 0, and held near
each other as strongly as one image's triplets would, so that few triplets leave them alike and
many decide. Measured against adding parts greedily from an equal start, in 20 resamples of the
images: test accuracy +1.1 points on letters, +0.2 on stamps, -0.1 on clothing, -0.5 on
many_classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tripletkit.evaluation.pooled import weigh_images_alike
from tripletkit.training.held_out import credit


@dataclass(frozen=True)
class PartWeights:
    """How parts are weighed.

    Attributes:
        weights: `(n_parts,)` float64, of margins divided by their spread; their sum is 1.
        spreads: `(n_parts,)` float64, the root mean square of each part's margins.
    """

    weights: np.ndarray
    spreads: np.ndarray

    @property
    def distance_weights(self) -> np.ndarray:
        """Return `(n_parts,)` float64: of squared distances; their sum is 1."""
        of_distances = self.weights / self.spreads
        return of_distances / of_distances.sum()

    def margins(self, of_parts: np.ndarray) -> np.ndarray:
        """Return `(n_triplets,)` margins of the ensemble from `(n_parts, n_triplets)`."""
        return self.distance_weights @ of_parts


def choose_steps(margins: np.ndarray, owners: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Choose of each part the variant of its training that answers the most triplets.

    Args:
        margins: `(n_tried, n_triplets)` of held-out triplets, above 0 where right.
        owners: `(n_tried,)` the part of each row, ascending from 0.
        images: `(n_triplets, 3)` indices of each triplet's, which count alike.
    Returns:
        `(n_parts,)` rows of `margins`.
    """
    right = credit(margins) @ weigh_images_alike(images)
    # The first of those that are as good is the simplest: it has the fewest steps.
    return np.array(
        [max(np.flatnonzero(owners == part), key=right.item) for part in np.unique(owners)]
    )


def measure_spreads(margins: np.ndarray) -> np.ndarray:
    """Return the root mean square of each row of margins; 1 for one that says nothing."""
    spreads = np.sqrt(np.mean(np.square(margins, dtype=np.float64), axis=-1))
    return np.where(spreads > 0, spreads, 1.0)


def choose_parts(margins: np.ndarray, images: np.ndarray) -> PartWeights:
    """Weigh parts by their held-out margins.

    Args:
        margins: `(n_parts, n_triplets)` of held-out triplets, above 0 where right.
        images: `(n_triplets, 3)` indices of each triplet's; how many there are says how much is
            known.
    References:
        Breiman. Stacked regressions. Machine Learning 24, 1996. doi:10.1007/BF00117832 (weights
        from held-out predictions, none below 0); Caruana, Niculescu-Mizil, Crew, Ksikes.
        Ensemble selection from libraries of models. ICML 2004. doi:10.1145/1015330.1015432.
    Example:
        >>> right, wrong = np.ones((1, 90)), np.tile([[1.0, -3.0, 1.0]], 30)
        >>> choice = choose_parts(np.vstack([right, wrong]), np.arange(270).reshape(90, 3))
        >>> bool(choice.weights[0] > choice.weights[1])
        True
    """
    from scipy.optimize import minimize

    spreads = measure_spreads(margins)
    scaled = margins / spreads[:, None]
    hold = 1 / len(np.unique(images))
    # As large together as one part that is trusted.
    alike = np.full(len(margins), 1 / len(margins))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = weights @ scaled
        misses = np.logaddexp(0, -total).mean()
        slopes = -np.exp(-np.logaddexp(0, total)) / len(total)
        away = weights - alike
        return misses + hold * away @ away, scaled @ slopes + 2 * hold * away

    found = minimize(loss, alike, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(margins))
    weights = found.x if found.x.sum() > 0 else alike
    return PartWeights(weights / weights.sum(), spreads)
