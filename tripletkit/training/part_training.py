"""Training of the parts of an ensemble: small heads by steps of Adam, in NumPy.

Many such heads are trained to choose between, on a third of the triplets each, so that a step has
to be short. Four things make it so. What is learned sees the leading principal components of the
features. A batch is large against the number of images, each of which is encoded once a step.
Distances of a residual head come from inner products, which need its step in the hidden width
only: nothing as wide as the features is gathered for a triplet. And the gradient reaches the
embeddings through a sparse matrix with an entry for each pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.sparse import coo_array, csr_array

from tripletkit.errors import CollapseError
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.head_layers import Scaling

# Principal components of a part's features that its step is learned from. See `docs/benchmarks.md`:
# held-out accuracy on two sets is that of all features within chance, in less than half the time.
N_DIRECTIONS = 128
# Directions whose deviation is below this share of the largest one's are noise of rounding.
_SMALLEST = 1e-3
_SMALL = np.float32(1e-12)
# Dropout masks are drawn as bytes.
_BYTE = 256
# Triplets at a time when inner products of their features are taken.
_BLOCK_ROWS = 2048


@dataclass(frozen=True)
class PartFeatures:
    """Features of one network and depth, and the directions in which training sees them.

    A step is learned from the leading principal components: there are fewer of them than
    features, which makes training several times faster at the same accuracy. What is learned is
    then written for all features, so that a model knows nothing of it.

    Attributes:
        scaling: of features of length 1 over the training images; None where they stay so.
        scaled: `(n_images, n_features)` float32, standardised by it.
        directions: `(n_features, n_directions)` float32, orthonormal columns.
    """

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
        """Scale features, and find their directions, over the training images alone.

        Args:
            features: `(n_images, n_features)` float32.
            trained: indices of the training images.
            n_directions: at most so many.
            is_standardised: beside length 1, they get mean 0 and deviation 1.
        """
        unit = scale_to_unit_length(features)
        if not is_standardised:
            return cls(None, unit, _find_directions(unit[trained], n_directions))
        scaling = Scaling.of(unit[trained])
        scaled = scaling.apply(unit)
        return cls(scaling, scaled, _find_directions(scaled[trained], n_directions))

    @property
    def n_features(self) -> int:
        return self.scaled.shape[1]

    @cached_property
    def reduced(self) -> np.ndarray:
        """Return `(n_images, n_directions)` float32: the components of each image."""
        return self.scaled @ self.directions

    def lift(self, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return weights of a residual head over components as weights over all features."""
        kernel, bias, last, _ = weights
        nothing = np.zeros(self.n_features, np.float32)
        return [self.directions @ kernel, bias, last @ self.directions.T, nothing]


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
    """What decides the training of one part.

    Attributes:
        head: `"residual"` (the features and a learned step away from them) or `"mlp"` (short
            embeddings of their own).
        hidden: width of the hidden layer.
        n_dims: numbers in an embedding; None for as many as there are features.
        dropout: share of the hidden values that is dropped in training.
        input_dropout: share of the components on their way into the hidden layer.
        margin: of the hinge; on squared distances where `is_squared`.
        is_squared: the loss takes squared distances.
        n_heads: heads from different starts whose distances are averaged. Short embeddings of
            their own differ from start to start: three together answered 2.1 points more of the
            held-out triplets of the stamps than one. Steps away from the features do not (-0.2).
        n_steps: after how many steps the weights are taken, ascending; held-out answers say which
            are best. Short embeddings of their own need more steps on many images and fewer on
            few: 240 instead of 120 answered 1.6 points more on CIFAR-10 and 3.5 less on many
            classes.
        batch_size: triplets in a step.
        learning_rate: of Adam.
    """

    head: str
    hidden: int
    n_dims: int | None
    dropout: float
    input_dropout: float
    margin: float
    is_squared: bool
    n_heads: int
    n_steps: tuple[int, ...]
    batch_size: int
    learning_rate: float

    @property
    def n_variants(self) -> int:
        """How many numbers of steps there are to choose from."""
        return len(self.n_steps)

    @property
    def usual_steps(self) -> int:
        """Steps where no held-out answers say how many are best."""
        return self.n_steps[len(self.n_steps) // 2]

    def variant(self, place: int | None = None) -> PartSettings:
        """Return the settings with one number of steps: that at a place, or the usual one."""
        return replace(self, n_steps=(self.usual_steps if place is None else self.n_steps[place],))


RESIDUAL_PART = PartSettings("residual", 128, None, 0.4, 0.0, 0.3, True, 1, (150,), 1024, 1e-3)
MLP_PART = PartSettings("mlp", 256, 32, 0.5, 0.2, 0.2, False, 3, (60, 120, 240), 1024, 2e-3)


def train_part(
    features: PartFeatures,
    rows: np.ndarray,
    settings: PartSettings,
    seed: int,
    loss_weights: np.ndarray | None = None,
) -> list[list[np.ndarray]]:
    """Train one head on triplets.

    Args:
        features: of all images.
        rows: `(n_triplets, 3)` indices into `features`: anchor, positive, negative; at least one.
        settings: see `PartSettings`.
        seed: of weights, dropout and order.
        loss_weights: `(n_triplets, 2)` of each triplet's loss as it stands and with positive and
            negative exchanged, where people disagree.
    Returns:
        Kernel and bias of the hidden layer, and of the layer behind it, for standardised
        features, after each number of steps in `settings`.
    Raises:
        CollapseError: if the weights are no longer numbers.
    References:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832 (the loss); Kingma,
        Ba. Adam. ICLR 2015. arXiv:1412.6980.
    """
    rng = np.random.default_rng(seed)
    head: _Head = (_Residual if settings.head == "residual" else _Mlp)(features, settings, rng)
    optimizer = _Adam(head.weights, settings.learning_rate)
    known = head.inner_products(rows)
    taken = []
    for n_done, chosen in enumerate(_batches(len(rows), settings, rng)):
        if n_done in settings.n_steps:
            taken.append([values.copy() for values in head.weights_for_features()])
        if n_done == settings.n_steps[-1]:
            break
        images, places = np.unique(rows[chosen], return_inverse=True)
        places = places.reshape(-1, 3)
        weights = None if loss_weights is None else loss_weights[chosen].astype(np.float32)
        head.encode(images)
        gradient = _pair_gradients(head, places, known[chosen], settings, weights)
        optimizer.step(head.gradients(gradient))
    if not all(np.isfinite(values).all() for values in head.weights):
        raise CollapseError(
            "the weights of a part are no longer finite: expected features of usual size. "
            "Try `recipe=mlp` with a smaller `learning_rate`."
        )
    return taken


def embed_part(
    features: np.ndarray, weights: Sequence[np.ndarray], settings: PartSettings
) -> np.ndarray:
    """Return the embeddings of images: `(n_images, n_dims)` float32 of length 1.

    Args:
        features: `(n_images, n_features)` float32, standardised as in training.
        weights: one of those from `train_part`.
        settings: the same as there.
    """
    kernel, bias, last_kernel, last_bias = weights
    step = np.maximum(features @ kernel + bias, 0) @ last_kernel + last_bias
    return scale_to_unit_length(features + step if settings.head == "residual" else step)


class _Head(Protocol):
    """A head that is trained; `encode` comes before the others of a step."""

    weights: list[np.ndarray]

    def weights_for_features(self) -> list[np.ndarray]:
        """Return the weights as standardised features need them, not their components."""

    def inner_products(self, rows: np.ndarray) -> np.ndarray:
        """Return `(n_triplets, 2)`: what is known beforehand of anchor and positive, negative."""

    def encode(self, images: np.ndarray) -> None:
        """Take the images of a batch, each once."""

    def squares(self) -> np.ndarray:
        """Return the squared lengths of the embeddings before they are scaled to length 1."""

    def products(self, one: np.ndarray, other: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return inner products of embeddings at places of the batch."""

    def gradients(self, of_embeddings: csr_array) -> list[np.ndarray]:
        """Return those of the weights; the matrix times the embeddings is that of these."""


class _Hidden:
    """The hidden layer, which both heads have."""

    def __init__(
        self, components: np.ndarray, settings: PartSettings, rng: np.random.Generator
    ) -> None:
        self._components, self._rng = components, rng
        self._dropout, self._input_dropout = settings.dropout, settings.input_dropout
        self._kept = np.float32(1 / (1 - settings.dropout))
        self.weights = [
            _he_normal(rng, components.shape[1], settings.hidden),
            np.zeros(settings.hidden, np.float32),
        ]

    def _enter(self, taken: np.ndarray) -> None:
        """Compute the hidden values of components."""
        if self._input_dropout:
            taken = taken * self._draw_mask(taken.shape, self._input_dropout)
            taken *= np.float32(1 / (1 - self._input_dropout))
        hidden = taken @ self.weights[0]
        hidden += self.weights[1]
        self._is_on = hidden > 0
        if self._dropout:
            self._is_on &= self._draw_mask(hidden.shape, self._dropout)
            hidden *= self._kept
        hidden *= self._is_on
        self._taken, self._hidden = taken, hidden

    def _leave(self, of_hidden: np.ndarray) -> list[np.ndarray]:
        """Return the gradients of the layer; `of_hidden` is that of the values, and changed."""
        of_hidden *= self._is_on
        if self._dropout:
            of_hidden *= self._kept
        return [self._taken.T @ of_hidden, of_hidden.sum(axis=0)]

    def _draw_mask(self, shape: tuple[int, ...], dropout: float) -> np.ndarray:
        drawn = np.frombuffer(self._rng.bytes(int(np.prod(shape))), np.uint8)
        return drawn.reshape(shape) >= round(dropout * _BYTE)


class _Mlp(_Hidden):
    def __init__(
        self, features: PartFeatures, settings: PartSettings, rng: np.random.Generator
    ) -> None:
        # Components of mean square 1, as many features would have it.
        mean_square = np.mean(np.square(features.reduced))
        self._directions = features.directions
        if mean_square > 0:
            self._directions = features.directions / np.sqrt(mean_square)
        super().__init__(features.scaled @ self._directions, settings, rng)
        n_dims = settings.n_dims or features.n_features
        self.weights += [_he_normal(rng, settings.hidden, n_dims), np.zeros(n_dims, np.float32)]

    def weights_for_features(self) -> list[np.ndarray]:
        return [self._directions @ self.weights[0], *self.weights[1:]]

    def inner_products(self, rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 2), np.float32)

    def encode(self, images: np.ndarray) -> None:
        self._enter(self._components[images])
        self._embeddings = self._hidden @ self.weights[2] + self.weights[3]

    def squares(self) -> np.ndarray:
        return _row_products(self._embeddings, self._embeddings)

    def products(self, one: np.ndarray, other: np.ndarray, known: np.ndarray) -> np.ndarray:
        return known + _row_products(self._embeddings[one], self._embeddings[other])

    def gradients(self, of_embeddings: csr_array) -> list[np.ndarray]:
        gradient = of_embeddings @ self._embeddings
        last = [self._hidden.T @ gradient, gradient.sum(axis=0)]
        return [*self._leave(gradient @ self.weights[2].T), *last]


class _Residual(_Hidden):
    """An embedding is x + W h. Its inner products are x x' + h W'x' + (W'x + W'W h) h'.

    Those between features are of all of them; W reaches the components alone, which is enough
    for W'x.
    """

    def __init__(
        self, features: PartFeatures, settings: PartSettings, rng: np.random.Generator
    ) -> None:
        super().__init__(features.reduced, settings, rng)
        self._whole = features
        # Without a bias: the same shift of all images, which differences do not see. It is there
        # so that both heads have the same layers.
        self.weights += [
            np.zeros((settings.hidden, features.reduced.shape[1]), np.float32),
            np.zeros(features.reduced.shape[1], np.float32),
        ]
        self._squares = _row_products(features.scaled, features.scaled)

    def weights_for_features(self) -> list[np.ndarray]:
        return self._whole.lift(self.weights)

    def inner_products(self, rows: np.ndarray) -> np.ndarray:
        known = np.empty((len(rows), 2), np.float32)
        for start in range(0, len(rows), _BLOCK_ROWS):
            anchor, *others = (
                self._whole.scaled[part] for part in rows[start : start + _BLOCK_ROWS].T
            )
            for column, other in enumerate(others):
                known[start : start + len(anchor), column] = _row_products(anchor, other)
        return known

    def encode(self, images: np.ndarray) -> None:
        self._images = self._components[images]
        self._of_images = self._squares[images]
        self._enter(self._images)
        last = self.weights[2]
        self._projected = self._images @ last.T
        # W' times the embedding.
        self._seen = self._projected + self._hidden @ (last @ last.T)

    def squares(self) -> np.ndarray:
        own = _row_products(self._hidden, self._projected)
        return self._of_images + own + _row_products(self._seen, self._hidden)

    def products(self, one: np.ndarray, other: np.ndarray, known: np.ndarray) -> np.ndarray:
        return (
            known
            + _row_products(self._hidden[one], self._projected[other])
            + _row_products(self._seen[one], self._hidden[other])
        )

    def gradients(self, of_embeddings: csr_array) -> list[np.ndarray]:
        weighed = of_embeddings @ self._hidden
        last = weighed.T @ self._images
        last += (weighed.T @ self._hidden) @ self.weights[2]
        of_bias = np.zeros_like(self.weights[3])
        return [*self._leave(of_embeddings @ self._seen), last, of_bias]


def _pair_gradients(
    head: _Head,
    places: np.ndarray,
    known: np.ndarray,
    settings: PartSettings,
    loss_weights: np.ndarray | None,
) -> csr_array:
    """Return the matrix that gives the gradient of the mean loss when it meets the embeddings.

    Args:
        places: `(n_triplets, 3)` in the batch.
        known: `(n_triplets, 2)` from `inner_products`.
    """
    anchor, positive, negative = places.T
    scale = 1 / np.sqrt(head.squares() + _SMALL)
    cosines = [
        head.products(anchor, other, of_pair) * scale[anchor] * scale[other]
        for other, of_pair in ((positive, known[:, 0]), (negative, known[:, 1]))
    ]
    # Of embeddings of length 1, and how a distance changes with its cosine.
    distances = [np.maximum(2 - 2 * cosine, _SMALL) for cosine in cosines]
    slopes = [np.full_like(squared, -2) for squared in distances]
    if not settings.is_squared:
        distances = [np.sqrt(squared) for squared in distances]
        slopes = [-1 / distance for distance in distances]
    difference = distances[0] - distances[1]
    pull = (difference + settings.margin > 0).astype(np.float32)
    if loss_weights is not None:
        exchanged = (settings.margin - difference > 0).astype(np.float32)
        pull = loss_weights[:, 0] * pull - loss_weights[:, 1] * exchanged
    pull /= len(places)
    entries, ones, others = [], [], []
    diagonal = np.zeros(len(scale), np.float32)
    pairs = ((positive, cosines[0], pull * slopes[0]), (negative, cosines[1], -pull * slopes[1]))
    for other, cosine, gradient in pairs:
        entries += [gradient * scale[anchor] * scale[other]] * 2
        ones += [anchor, other]
        others += [other, anchor]
        for end in (anchor, other):
            diagonal -= np.bincount(end, gradient * cosine, len(scale)).astype(np.float32)
    every = np.arange(len(scale))
    entries.append(diagonal * scale**2)
    coordinates = np.concatenate([*ones, every]), np.concatenate([*others, every])
    return coo_array((np.concatenate(entries), coordinates), shape=(len(scale),) * 2).tocsr()


def _batches(n_triplets: int, settings: PartSettings, rng: np.random.Generator):
    """Yield triplets, step by step, for ever: every one once a pass, in an order of chance."""
    size = min(settings.batch_size, n_triplets)
    waiting = np.empty(0, np.int64)
    while True:
        if len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(n_triplets)])
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
