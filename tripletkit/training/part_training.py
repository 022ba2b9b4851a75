"""Training of the parts of an ensemble in NumPy: heads by Adam, linear maps by L-BFGS.

Many parts are trained to choose between, so that a step has to be short. What is learned sees the
leading principal components of the features alone. A head or map that begins as the features
x = V z + rest moves z, its components along V, and leaves the rest: inner products of embeddings
are those of moved components, which are few, and those of the rests, which never change. And the
gradient by the embeddings is a sparse matrix, with an entry for each pair, times these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import coo_array

from tripletkit.errors import CollapseError
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.head_layers import Scaling
from tripletkit.model.recipes import MAP, MLP, RESIDUAL

# Principal components of a part's features that its step is learned from. See `docs/benchmarks.md`:
# held-out accuracy on two sets is that of all features within chance, in less than half the time.
N_DIRECTIONS = 128
# Images that components are found by: more do not change the leading ones.
_MOST_FOR_DIRECTIONS = 4096
# Directions whose deviation is below this share of the largest one's are noise of rounding.
_SMALLEST = 1e-3
_SMALL = 1e-12
# Dropout masks are drawn as bytes.
_BYTE = 256
# Numbers of feature vectors that are gathered at a time to be multiplied pair by pair.
_BLOCK_NUMBERS = 1 << 22
# All products of some images cost less than this many that are gathered pair by pair.
_GATHERED_PAIRS = 20


@dataclass(frozen=True)
class PartFeatures:
    """Features of one network and depth, scaled, and the orthonormal directions that training sees.
    Their scaling is None where features of length 1 are not standardised."""

    scaling: Scaling | None
    scaled: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(
        cls,
        features: np.ndarray,
        trained: np.ndarray,
        n_directions: int = N_DIRECTIONS,
        *,
        is_standardised: bool = True,
    ) -> PartFeatures:
        """Scale features, and find their directions, over the training images alone."""
        scaling, scaled = None, scale_to_unit_length(features)
        if is_standardised:
            scaling = Scaling.of(scaled[trained])
            scaled = scaling.apply(scaled)
        if len(trained) > _MOST_FOR_DIRECTIONS:
            trained = np.random.default_rng(0).choice(trained, _MOST_FOR_DIRECTIONS, replace=False)
        return cls(scaling, scaled, _find_directions(scaled[trained], n_directions))

    @cached_property
    def reduced(self) -> np.ndarray:
        """Return the components of each image."""
        return self.scaled @ self.directions

    def rest_products(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the inner products of pairs, of what lies outside the directions."""
        products = np.empty(len(left))
        n_block = max(1, _BLOCK_NUMBERS // self.scaled.shape[1])
        for start in range(0, len(left), n_block):
            ends = [side[start : start + n_block] for side in (left, right)]
            whole, inside = (
                _row_products(*(vectors[end] for end in ends))
                for vectors in (self.scaled, self.reduced)
            )
            products[start : start + n_block] = whole - inside
        return products


def _find_directions(scaled: np.ndarray, n_directions: int) -> np.ndarray:
    """Return the leading principal directions of rows, around 0."""
    n_directions = min(n_directions, max(1, len(scaled) - 1), scaled.shape[1])
    if len(scaled) <= scaled.shape[1]:
        # From the smaller matrix of products between images.
        squares, of_images = np.linalg.eigh(scaled @ scaled.T)
        order = np.argsort(-squares)[:n_directions]
        deviations = np.sqrt(np.maximum(squares[order], 0))
        kept = deviations > _SMALLEST * max(deviations[0], np.finfo(np.float32).tiny)
        if not kept.any():
            # Images that are all the same have no directions; any will do.
            return np.eye(scaled.shape[1], n_directions, dtype=np.float32)
        return (scaled.T @ of_images[:, order[kept]] / deviations[kept]).astype(np.float32)
    from sklearn.utils.extmath import randomized_svd

    _, _, rows = randomized_svd(scaled, n_directions, n_iter=2, random_state=0)
    return np.ascontiguousarray(rows.T, dtype=np.float32)


@dataclass(frozen=True)
class PartSettings:
    """What decides the training of a head.

    Attributes:
        n_dims: numbers in an embedding; None for as many as there are features.
        n_heads: heads from different starts whose distances are averaged: three short embeddings
            answered 2.1 points more of the held-out stamps than one, residual heads 0.2 less.
        variants: after how many steps the weights are taken, ascending. Short embeddings need more
            on many images: 240 for 120 gained 1.6 points on CIFAR-10, lost 3.5 on many classes.
        batch_size: triplets in a step; half as many where there are more images than this.
    """

    head: str
    hidden: int
    n_dims: int | None
    dropout: float
    input_dropout: float
    margin: float
    is_squared: bool
    n_heads: int
    variants: tuple[int, ...]
    batch_size: int
    learning_rate: float


RESIDUAL_PART = PartSettings(RESIDUAL, 128, None, 0.4, 0.0, 0.3, True, 1, (150,), 1024, 1e-3)
MLP_PART = PartSettings(MLP, 256, 32, 0.5, 0.2, 0.2, False, 3, (60, 120, 240), 1024, 2e-3)


def train_part(
    features: PartFeatures,
    rows: np.ndarray,
    settings: PartSettings,
    seed: int,
    loss_weights: np.ndarray | None = None,
) -> list[list[np.ndarray]]:
    """Return the weights of one head after each number of steps: two kernels, each with its bias.

    References:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832 (the loss); Kingma,
        Ba. Adam. ICLR 2015. arXiv:1412.6980.
    """
    rng = np.random.default_rng(seed)
    head = _HeadProblem(features, rows, settings, rng, loss_weights)
    optimizer = _Adam(head.learned, settings.learning_rate)
    taken = []
    for n_done, chosen in enumerate(_batches(rows, settings, rng)):
        if n_done in settings.variants:
            taken.append(head.weights_for_features())
        if n_done == settings.variants[-1]:
            break
        optimizer.step(head.gradients(chosen))
    if not all(np.isfinite(values).all() for values in head.learned):
        raise CollapseError(
            "the weights of a part are no longer finite: expected features of usual size. "
            "Try `recipe=mlp` with a smaller `learning_rate`."
        )
    return taken


class _HeadProblem:
    """What a head is to do for its triplets, and its weights, for components of features."""

    def __init__(
        self,
        features: PartFeatures,
        rows: np.ndarray,
        settings: PartSettings,
        rng: np.random.Generator,
        loss_weights: np.ndarray | None = None,
    ) -> None:
        self._rows, self._loss_weights = rows, loss_weights
        self._settings, self._rng = settings, rng
        self._is_residual = settings.head == RESIDUAL
        self._directions, self.components = features.directions, features.reduced
        # Of products and squared lengths of embeddings, what is not learned.
        self._rest = np.zeros((2, len(rows)), np.float32)
        self._rest_squares = np.zeros(len(features.scaled), np.float32)
        n_hidden = settings.hidden
        if self._is_residual:
            anchor, *others = rows.T
            self._rest[:] = [features.rest_products(anchor, other) for other in others]
            own = np.unique(rows)
            self._rest_squares[own] = np.maximum(features.rest_products(own, own), 0)
        elif (mean_square := np.mean(np.square(self.components))) > 0:
            # Components of mean square 1, as many features would have it.
            self._directions = features.directions / np.sqrt(mean_square)
            self.components = features.scaled @ self._directions
        n_seen = self.components.shape[1]
        first = [_he_normal(rng, n_seen, n_hidden), np.zeros(n_hidden, np.float32)]
        if self._is_residual:
            last = np.zeros((n_hidden, n_seen), np.float32)
        else:
            last = _he_normal(rng, n_hidden, settings.n_dims or len(self._directions))
        self.weights = [*first, last, np.zeros(last.shape[1], np.float32)]

    @property
    def learned(self) -> list[np.ndarray]:
        """Those of the weights that are learned: a shift of all images alike is not."""
        return self.weights[:3] if self._is_residual else self.weights

    def weights_for_features(self) -> list[np.ndarray]:
        """Return copies of the weights as standardised features need them."""
        kernel, bias, last, last_bias = self.weights
        if self._is_residual:
            last, last_bias = last @ self._directions.T, np.zeros(len(self._directions), np.float32)
        return [self._directions @ kernel, bias.copy(), last.copy(), last_bias.copy()]

    def gradients(self, chosen: np.ndarray) -> list[np.ndarray]:
        """Return those of the mean loss of some triplets by the weights that are learned."""
        images, places = np.unique(self._rows[chosen], return_inverse=True)
        embeddings = self._encode(images)
        squares = _row_products(embeddings, embeddings) + self._rest_squares[images]
        lengths = np.sqrt(squares + np.float32(_SMALL))
        anchor, *others = places.reshape(-1, 3).T
        left, right = np.tile(anchor, 2), np.concatenate(others)
        products = _row_products(embeddings[left], embeddings[right])
        cosines = (products + self._rest[:, chosen].ravel()) / (lengths[left] * lengths[right])
        votes = None if self._loss_weights is None else self._loss_weights[chosen]
        slopes = self._slopes(cosines.reshape(2, -1), votes).ravel()
        pull = _gradient_matrix(slopes, cosines, left, right, lengths).tocsr()
        return self._gradients_by(pull @ embeddings)

    def _encode(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings of images, before they are scaled to length 1."""
        kernel, bias, last, last_bias = self.weights
        components = taken = self.components[images]
        dropout, input_dropout = self._settings.dropout, self._settings.input_dropout
        if input_dropout:
            taken = taken * self._draw_mask(taken.shape, input_dropout)
            taken *= np.float32(1 / (1 - input_dropout))
        hidden = taken @ kernel
        hidden += bias
        self._is_on = hidden > 0
        if dropout:
            self._is_on &= self._draw_mask(hidden.shape, dropout)
            hidden *= np.float32(1 / (1 - dropout))
        hidden *= self._is_on
        self._taken, self._hidden = taken, hidden
        embeddings = hidden @ last
        embeddings += components if self._is_residual else last_bias
        return embeddings

    def _gradients_by(self, of_embeddings: np.ndarray) -> list[np.ndarray]:
        of_hidden = of_embeddings @ self.weights[2].T
        of_hidden *= self._is_on
        if self._settings.dropout:
            of_hidden *= np.float32(1 / (1 - self._settings.dropout))
        found = [self._taken.T @ of_hidden, of_hidden.sum(axis=0), self._hidden.T @ of_embeddings]
        return found if self._is_residual else [*found, of_embeddings.sum(axis=0)]

    def _draw_mask(self, shape: tuple[int, ...], dropout: float) -> np.ndarray:
        drawn = np.frombuffer(self._rng.bytes(int(np.prod(shape))), np.uint8)
        return drawn.reshape(shape) >= round(dropout * _BYTE)

    def _slopes(self, cosines: np.ndarray, votes: np.ndarray | None) -> np.ndarray:
        """Return `(2, n)`: how the mean loss changes with the cosine of each pair."""
        # Of embeddings of length 1, and how a distance changes with its cosine.
        distances = np.maximum(2 - 2 * cosines, np.float32(_SMALL))
        slopes = np.full_like(distances, -2)
        if not self._settings.is_squared:
            distances = np.sqrt(distances)
            slopes = -1 / distances
        difference, margin = distances[0] - distances[1], self._settings.margin
        pull = (difference + margin > 0).astype(np.float32)
        if votes is not None:
            pull = votes[:, 0] * pull - votes[:, 1] * (margin - difference > 0)
        pull /= len(pull)
        return np.stack([pull * slopes[0], -pull * slopes[1]])


def _gradient_matrix(
    of_pairs: np.ndarray,
    cosines: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    lengths: np.ndarray,
) -> coo_array:
    """Return the matrix whose product with the embeddings is the gradient by them, given that by
    the cosine of each pair."""
    n_images = len(lengths)
    pulls = of_pairs * cosines
    own = np.bincount(left, pulls, n_images) + np.bincount(right, pulls, n_images)
    entries, every = of_pairs / (lengths[left] * lengths[right]), np.arange(n_images)
    values = np.concatenate([entries, entries, -own / lengths**2]).astype(lengths.dtype)
    places = np.concatenate([left, right, every]), np.concatenate([right, left, every])
    return coo_array((values, places), shape=(n_images, n_images))


def _batches(
    rows: np.ndarray, settings: PartSettings, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield triplets, step by step, for ever: every one once a pass, in an order of chance."""
    size = settings.batch_size
    if len(np.unique(rows)) > size:
        size //= 2
    size = min(size, len(rows))
    waiting = np.empty(0, np.int64)
    while True:
        if len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(len(rows))])
        yield waiting[:size]
        waiting = waiting[size:]


def _he_normal(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
    return rng.standard_normal((n_in, n_out), np.float32) * np.float32(np.sqrt(2 / n_in))


def _row_products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", left, right)


class _Adam:
    """Adam on a list of arrays, which are changed in place."""

    def __init__(self, weights: list[np.ndarray], learning_rate: float) -> None:
        self._weights, self._rate, self._n_steps = weights, learning_rate, 0
        self._means, self._squares, self._spare = (
            [np.zeros_like(values) for values in weights] for _ in range(3)
        )

    def step(self, gradients: list[np.ndarray]) -> None:
        self._n_steps += 1
        rate = self._rate * np.sqrt(1 - 0.999**self._n_steps) / (1 - 0.9**self._n_steps)
        for values, gradient, mean, square, spare in zip(
            self._weights, gradients, self._means, self._squares, self._spare, strict=True
        ):
            mean *= np.float32(0.9)
            mean += np.multiply(gradient, np.float32(0.1), out=spare)
            square *= np.float32(0.999)
            np.multiply(gradient, gradient, out=spare)
            spare *= np.float32(0.001)
            square += spare
            np.sqrt(square, out=spare)
            spare += np.float32(1e-7)
            np.divide(mean, spare, out=spare)
            spare *= np.float32(rate)
            values -= spare


@dataclass(frozen=True)
class MapSettings:
    """What decides the training of a map.

    Attributes:
        variants: losses.
        margin, temperature: of the hinge and of the logistic loss, times the root mean square of
            the frozen margins.
        hold: of the squared distance from W to the identity, beside the mean loss.
        most_triplets: a sample of so many is learned from: each iteration passes all of them.
    """

    variants: tuple[str, ...] = ("hinge", "logistic")
    margin: float = 3.0
    temperature: float = 0.5
    hold: float = 0.01
    n_iterations: int = 50
    most_triplets: int = 20_000


def train_map(
    features: PartFeatures,
    rows: np.ndarray,
    settings: MapSettings,
    loss_weights: np.ndarray | None = None,
) -> list[list[np.ndarray]]:
    """Return for each loss a map: the directions V and the step along them, (W - I) V'.

    An embedding is the features x at length 1 and a step along their directions V,
    y = x + V (W - I) V'x, at length 1 again. W is a square matrix that starts as the identity and
    is held near it, so that few triplets leave the features' own order as it is. Distances differ
    by a tenth or by a hundredth, so the loss is of margins in units of the set's own.

    References:
        Weinberger, Saul. Distance Metric Learning for Large Margin Nearest Neighbor
        Classification. JMLR 10, 2009 (a linear map for triplets); Liu, Nocedal. On the limited
        memory BFGS method. Mathematical Programming 45, 1989. doi:10.1007/BF01589116.
    """
    if len(rows) > settings.most_triplets:
        kept = np.random.default_rng(0).choice(len(rows), settings.most_triplets, replace=False)
        rows, loss_weights = rows[kept], None if loss_weights is None else loss_weights[kept]
    problem = _MapProblem(features, rows, loss_weights)
    identity = np.eye(problem.n_directions)
    maps = []
    for loss in settings.variants:
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


class _MapProblem:
    """What a map is to do for its triplets, in units of their root mean square frozen margin."""

    def __init__(
        self, features: PartFeatures, rows: np.ndarray, loss_weights: np.ndarray | None = None
    ) -> None:
        if not np.isfinite(features.reduced).all():
            raise CollapseError("a map cannot be learned: expected finite features, got others.")
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
        # What the map leaves as it is.
        self._rest_squares = np.maximum(features.rest_products(images, images), 0)
        self._rest = features.rest_products(images[self._left], images[self._right])
        cosines, _ = self._measure(self._components)
        margins = cosines[self._near] - cosines[self._far]
        # Images that are all alike have no margins to compare with.
        self.unit = float(np.sqrt(np.mean(margins**2))) or 1.0

    def loss(self, flat: np.ndarray, loss: str, settings: MapSettings) -> tuple[float, np.ndarray]:
        """Return what is minimised, and its gradient, at a square map that is given flat."""
        square = flat.reshape(self.n_directions, self.n_directions)
        moved = self._components @ square
        cosines, lengths = self._measure(moved)
        value, slopes = self._margin_loss(cosines[self._near] - cosines[self._far], loss, settings)
        of_pairs = np.bincount(self._near, slopes, len(cosines))
        of_pairs -= np.bincount(self._far, slopes, len(cosines))
        pull = _gradient_matrix(of_pairs, cosines, self._left, self._right, lengths)
        by_moved = (pull.toarray() if self._takes_all_pairs else pull.tocsr()) @ moved
        away = square - np.eye(self.n_directions)
        held = settings.hold * np.vdot(away, away)
        gradient = self._components.T @ by_moved + 2 * settings.hold * away
        return float(value + held), gradient.ravel()

    def _measure(self, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosine of each pair, and the length of each embedding."""
        lengths = np.sqrt(_row_products(moved, moved) + self._rest_squares + _SMALL)
        if self._takes_all_pairs:
            products = (moved @ moved.T)[self._left, self._right]
        else:
            products = _row_products(moved[self._left], moved[self._right])
        return (products + self._rest) / (lengths[self._left] * lengths[self._right]), lengths

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


def _hinge(margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return losses of margins in units of the set's own, and their slopes."""
    return np.maximum(1 - margins, 0), -(margins < 1).astype(np.float64)


def _logistic(margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return losses of margins in units of the set's own, and their slopes."""
    # The slope is 1 / (1 + exp(margin)), without overflow.
    return np.logaddexp(0, -margins), -np.exp(-np.logaddexp(0, margins))


def embed_part(features: np.ndarray, weights: Sequence[np.ndarray], head: str) -> np.ndarray:
    """Return embeddings of length 1 from features scaled as in training, without weights if the
    part is not trained."""
    if not weights:
        return scale_to_unit_length(features)
    if head == MAP:
        directions, along = weights
        return scale_to_unit_length(features + features @ directions @ along)
    kernel, bias, last, last_bias = weights
    step = np.maximum(features @ kernel + bias, 0) @ last + last_bias
    return scale_to_unit_length(features + step if head == RESIDUAL else step)
