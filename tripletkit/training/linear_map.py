"""A linear map of features, learned from triplets in a second, in NumPy.

An embedding is the features x at length 1 and a step along their leading principal directions V:
y = x + V (W - I) V'x, at length 1 again. W is a square matrix that starts as the identity and is
held near it, so that few triplets leave the features' own order as it is. What lies outside V is
kept. The inner products of the embeddings need V'x and W alone, since those of the rest never
change, so that a step costs the same however wide the features are.

The features are not standardised, and how far their distances differ depends on the network and
the depth: by a tenth or by a hundredth. So the margin of the loss is that of the set: some times
the root mean square of the frozen features' own margins on its triplets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import coo_array

from tripletkit.errors import CollapseError
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.training.part_training import PartFeatures

# Loss of margins in units of the set's own, and its slope.
_Loss = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# All products of some images cost less than this many that are gathered pair by pair.
_GATHERED_PAIRS = 20
# Numbers that are gathered at a time.
_BLOCK_NUMBERS = 1 << 22
_SMALL = 1e-12


@dataclass(frozen=True)
class MapSettings:
    """What decides the training of a map.

    Attributes:
        losses: `"hinge"` and `"logistic"`, each to be tried; held-out answers say which is best.
        margin: of the hinge, times the root mean square of the frozen margins.
        temperature: of the logistic loss, times the same.
        hold: of the squared distance from W to the identity, beside the mean loss in units of the
            margin.
        n_iterations: of L-BFGS at most.
        most_triplets: a sample of so many is learned from where there are more; a map has few
            numbers, and each iteration passes all of them.
    """

    losses: tuple[str, ...] = ("hinge", "logistic")
    margin: float = 3.0
    temperature: float = 0.5
    hold: float = 0.01
    n_iterations: int = 50
    most_triplets: int = 20_000
    # There is one map of a block of features, as nothing in its training is left to chance.
    n_heads: ClassVar[int] = 1

    @property
    def n_variants(self) -> int:
        """How many losses there are to choose from."""
        return len(self.losses)

    def variant(self, place: int | None = None) -> MapSettings:
        """Return the settings with one loss: that at a place, or the usual, last one."""
        return replace(self, losses=(self.losses[-1 if place is None else place],))


def train_map(
    features: PartFeatures,
    rows: np.ndarray,
    settings: MapSettings,
    loss_weights: np.ndarray | None = None,
) -> list[list[np.ndarray]]:
    """Learn maps from triplets; the same triplets give the same maps.

    Args:
        features: of all images, not standardised.
        rows: `(n_triplets, 3)` indices into `features`: anchor, positive, negative; at least one.
        settings: see `MapSettings`.
        loss_weights: `(n_triplets, 2)` of each triplet's loss as it stands and with positive and
            negative exchanged, where people disagree.
    Returns:
        For each loss `(n_features, n_directions)` float32 directions, and
        `(n_directions, n_features)` of the step along them.
    Raises:
        CollapseError: if the features are not finite.
    References:
        Weinberger, Saul. Distance Metric Learning for Large Margin Nearest Neighbor
        Classification. JMLR 10, 2009 (a linear map for triplets); Liu, Nocedal. On the limited
        memory BFGS method. Mathematical Programming 45, 1989. doi:10.1007/BF01589116.
    """
    if len(rows) > settings.most_triplets:
        kept = np.random.default_rng(0).choice(len(rows), settings.most_triplets, replace=False)
        rows, loss_weights = rows[kept], None if loss_weights is None else loss_weights[kept]
    problem = MapProblem(features, rows, loss_weights)
    identity = np.eye(problem.n_directions)
    maps = []
    for loss in settings.losses:
        found = minimize(
            problem.loss,
            identity.ravel(),
            args=(loss, settings),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": settings.n_iterations},
        )
        step = found.x.reshape(identity.shape) - identity
        maps.append([features.directions, (step @ features.directions.T).astype(np.float32)])
    return maps


def embed_map(features: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return the embeddings of images: `(n_images, n_features)` float32 of length 1.

    Args:
        features: `(n_images, n_features)` float32 of length 1.
        weights: one of those from `train_map`.
    """
    directions, step = weights
    return scale_to_unit_length(features + features @ directions @ step)


class MapProblem:
    """What a map is to do for its triplets.

    Args:
        features, rows, loss_weights: see `train_map`.
    Attributes:
        n_directions: the map is a square matrix of so many.
        unit: root mean square of the frozen margins, as differences of cosines.
    """

    def __init__(
        self, features: PartFeatures, rows: np.ndarray, loss_weights: np.ndarray | None = None
    ) -> None:
        images, places = np.unique(rows, return_inverse=True)
        places = places.reshape(-1, 3)
        self._components = features.reduced[images].astype(np.float64)
        self.n_directions = self._components.shape[1]
        pairs = np.sort(np.concatenate([places[:, [0, 1]], places[:, [0, 2]]]), axis=1)
        pairs, numbers = np.unique(pairs, axis=0, return_inverse=True)
        self._left, self._right = pairs.T
        self._near, self._far = numbers[: len(rows)], numbers[len(rows) :]
        self._takes_all_pairs = len(images) ** 2 <= _GATHERED_PAIRS * len(pairs)
        self._loss_weights = loss_weights
        whole = features.scaled[images]
        squares = np.einsum("ij,ij->i", whole, whole, dtype=np.float64)
        if not np.isfinite(squares).all():
            raise CollapseError("a map cannot be learned: expected finite features, got others.")
        own = np.einsum("ij,ij->i", self._components, self._components)
        # What the map leaves as it is: of lengths, and of the products of pairs.
        self._rest_squares = np.maximum(squares - own, 0)
        products = _pair_products(whole, self._left, self._right)
        self._rest = products - _pair_products(self._components, self._left, self._right)
        lengths = np.sqrt(squares + _SMALL)
        cosines = products / (lengths[self._left] * lengths[self._right])
        margins = cosines[self._near] - cosines[self._far]
        # Images that are all alike have no margins to compare with.
        self.unit = float(np.sqrt(np.mean(margins**2))) or 1.0

    def loss(self, flat: np.ndarray, loss: str, settings: MapSettings) -> tuple[float, np.ndarray]:
        """Return what is minimised, and its gradient.

        Args:
            flat: the map, `(n_directions ** 2,)`; embeddings are components times it.
            loss: one of `settings.losses`.
        """
        square = flat.reshape(self.n_directions, self.n_directions)
        moved = self._components @ square
        lengths = np.sqrt(np.einsum("ij,ij->i", moved, moved) + self._rest_squares + _SMALL)
        if self._takes_all_pairs:
            products = (moved @ moved.T)[self._left, self._right]
        else:
            products = _pair_products(moved, self._left, self._right)
        scale = 1 / (lengths[self._left] * lengths[self._right])
        cosines = (products + self._rest) * scale
        value, slopes = self._margin_loss(cosines[self._near] - cosines[self._far], loss, settings)
        n_pairs = len(cosines)
        of_pairs = np.bincount(self._near, slopes, n_pairs)
        of_pairs -= np.bincount(self._far, slopes, n_pairs)
        gradient = self._components.T @ self._spread(of_pairs, cosines, scale, lengths, moved)
        away = square - np.eye(self.n_directions)
        held = settings.hold * np.vdot(away, away)
        return float(value + held), (gradient + 2 * settings.hold * away).ravel()

    def _margin_loss(
        self, margins: np.ndarray, loss: str, settings: MapSettings
    ) -> tuple[float, np.ndarray]:
        """Return the mean loss of margins of cosines, and its slope by each."""
        size = self.unit * (settings.margin if loss == "hinge" else settings.temperature)
        of = _hinge if loss == "hinge" else _logistic
        values, slopes = of(margins / size)
        if self._loss_weights is not None:
            as_given, exchanged = self._loss_weights.T
            others, other_slopes = of(-margins / size)
            values = as_given * values + exchanged * others
            slopes = as_given * slopes - exchanged * other_slopes
        return float(values.mean()), slopes / (size * len(margins))

    def _spread(
        self,
        of_pairs: np.ndarray,
        cosines: np.ndarray,
        scale: np.ndarray,
        lengths: np.ndarray,
        moved: np.ndarray,
    ) -> np.ndarray:
        """Return the gradient by each image's moved components from that by each pair's cosine."""
        n_images = len(moved)
        pulls = of_pairs * cosines
        own = np.bincount(self._left, pulls, n_images) + np.bincount(self._right, pulls, n_images)
        entries = of_pairs * scale
        every = np.arange(n_images)
        values = np.concatenate([entries, entries, -own / lengths**2])
        ones = np.concatenate([self._left, self._right, every])
        others = np.concatenate([self._right, self._left, every])
        matrix = coo_array((values, (ones, others)), shape=(n_images, n_images))
        return (matrix.toarray() if self._takes_all_pairs else matrix.tocsr()) @ moved


def _pair_products(vectors: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return float64 inner products of pairs of rows, gathered a block at a time."""
    products = np.empty(len(left))
    n_block = max(1, _BLOCK_NUMBERS // vectors.shape[1])
    for start in range(0, len(left), n_block):
        block = slice(start, start + n_block)
        products[block] = np.einsum(
            "ij,ij->i", vectors[left[block]], vectors[right[block]], dtype=np.float64
        )
    return products


def _hinge(margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(1 - margins, 0), -(margins < 1).astype(np.float64)


def _logistic(margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    misses = np.logaddexp(0, -margins)
    # 1 / (1 + exp(margin)), without overflow.
    return misses, -np.exp(-np.logaddexp(0, margins))
