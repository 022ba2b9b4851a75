"""For scikit-learn: an estimator that learns from triplets, and splits that share no image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from tripletkit import defaults
from tripletkit.data.splits.held_out_draws import draw_splits
from tripletkit.data.triplets import Triplets, check_rows
from tripletkit.errors import SettingsError, TripletFileError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import SETTINGS, Settings, check_settings, check_values

# Parameters that have no `None`: with these values nobody need have chosen them.
_USUAL = {name: SETTINGS[name].default for name in ("distance", "batch_size", "loss", "reduction")}


# scikit-learn has no types, so that its classes are Any.
class TripletEmbedding(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Embed feature vectors so that distances agree with triplets of them.

    It is fitted as `fit(features, triplets)`, in a `Pipeline`, too. Tools that divide what they are
    given, as `GridSearchCV` and `cross_val_score` do, need an entry of `y` for each row of `X`:
    `triplets_by_image` makes that of triplets,
    `search.fit(features, tk.triplets_by_image(triplets, len(features)))`.

    Args:
        recipe, members, hidden, dim, dropout, distance, margin, strength, frozen_share: see
            `tripletkit.list_settings`; `None` is the recipe's own default.
        epochs, batch_size, learning_rate, loss, reduction: likewise; a loss of triplets alone.
        random_state: seed of weights, dropout and order. Defaults to `0`, which gives the same
            embeddings each time; `None` or a `numpy.random.RandomState` gives others.
    Attributes:
        embeddings_: `(n_images, dim)` float32 of the features that it was fitted on.
        head_: the Keras model, `(batch, n_features)` -> `(batch, dim)`.
        history_: table of the epochs.
        n_features_in_: width of the features.
        settings_: what it was trained with, the recipe's defaults filled in.
    Reference:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832.
    """

    def __init__(
        self,
        *,
        recipe: str = "mlp",
        members: int | None = None,
        hidden: int | None = None,
        dim: int | None = None,
        dropout: float | None = None,
        distance: str = defaults.DISTANCE,
        margin: float | None = None,
        strength: float | None = None,
        frozen_share: float | None = None,
        epochs: int | None = None,
        batch_size: int = defaults.BATCH_SIZE,
        learning_rate: float | None = None,
        loss: str = defaults.LOSS,
        reduction: str = defaults.REDUCTION,
        random_state: int | np.random.RandomState | None = defaults.SEED,
    ) -> None:
        self.recipe = recipe
        self.members = members
        self.hidden = hidden
        self.dim = dim
        self.dropout = dropout
        self.distance = distance
        self.margin = margin
        self.strength = strength
        self.frozen_share = frozen_share
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.loss = loss
        self.reduction = reduction
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> TripletEmbedding:
        """Learn the embedding; takes seconds for thousands of triplets.

        Args:
            X: `(n_images, n_features)` floats.
            y: `(n_triplets, 3)` integers, indices of rows of `X`: anchor, positive, negative; or
                what `triplets_by_image` returns.
        Returns:
            Itself.
        Raises:
            TripletFileError: if the triplets are no such array, or name rows that are not there.
            SettingsError: if parameters do not go together.
            CollapseError: if all embeddings become alike.
        """
        features, rows = self._take(X, y, reset=True)
        if not len(rows):
            raise TripletFileError("expected triplets to learn from, got none")
        degenerate = Triplets([], rows, np.arange(len(rows)), "triplets").is_degenerate()
        if degenerate.any():
            raise TripletFileError(
                f"expected triplets of three images, got {degenerate.sum():,} that name one twice "
                f"(row {np.flatnonzero(degenerate)[0]} first)"
            )
        settings = self._make_settings(rows)
        from tripletkit.model.head_layers import embed
        from tripletkit.training.held_out import answer_held_out
        from tripletkit.training.trainer import Examples, make_trainer

        trainer = make_trainer(Examples(features, rows), settings)
        # What an ensemble is made of is chosen by held-out draws.
        has_parts = get_recipe(self.recipe).is_chosen
        held_out = answer_held_out(trainer) if has_parts else None
        trained = trainer.choose(held_out).trainer.fit()
        self.settings_ = settings
        self.head_ = trained.head
        self.history_ = pd.DataFrame(trained.history)
        self.embeddings_ = embed(trained.head, features)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the embeddings of feature vectors.

        Args:
            X: `(n_images, n_features)` floats, of any images.
        Returns:
            `(n_images, dim)` float32.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=np.float32, reset=False)
        from tripletkit.model.head_layers import embed

        return embed(self.head_, features)

    def decision_function(self, X: Any, triplets: Any = None) -> np.ndarray:
        """Return how much nearer the second image of each triplet is than the third.

        Args:
            X: `(n_images, n_features)` floats, of any images; or triplets alone, of the images
                that it was fitted on.
            triplets: `(n_triplets, 3)` integers, indices of rows of `X`.
        Returns:
            `(n_triplets,)` float32, d(first, third) - d(first, second).
        """
        check_is_fitted(self)
        # After `set_output` it is a table.
        embeddings = self.embeddings_ if triplets is None else np.asarray(self.transform(X))
        rows = _check_rows(X if triplets is None else triplets, len(embeddings))
        return triplet_margins(embeddings, rows, self.settings_.distance)

    def predict(self, X: Any, triplets: Any = None) -> np.ndarray:
        """Answer triplets: 1 where the second image is the nearer one, else 0.

        Args:
            X, triplets: see `decision_function`.
        Returns:
            `(n_triplets,)` int8; a tie is 0.
        """
        return (self.decision_function(X, triplets) > 0).astype(np.int8)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the share of triplets that are answered as they stand; a tie is wrong.

        `tripletkit.score` gives intervals, too.

        Args:
            X, y: see `fit`; triplets alone are of the images that it was fitted on.
        Returns:
            0 to 1.
        Raises:
            TripletFileError: if there is no triplet.
        """
        check_is_fitted(self)
        given = (X,) if y is None else self._take(X, y, reset=False)
        if not len(right := self.predict(*given)):
            raise TripletFileError("expected triplets to score, got none")
        return float(right.mean())

    def _take(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return features and `(n_triplets, 3)` rows of them: anchor, positive, negative."""
        if y is None:
            raise TripletFileError(
                "TripletEmbedding requires y to be passed, but the target y is None: expected "
                "fit(features, triplets)."
            )
        features = validate_data(self, X, dtype=np.float32, reset=reset, ensure_min_samples=3)
        return features, _check_rows(_rows_among(y) if _is_by_image(y) else y, len(features))

    def _make_settings(self, rows: np.ndarray) -> Settings:
        # All parameters but `random_state` are settings of the same name.
        given = {name: value for name, value in self.get_params().items() if value is not None}
        seed = given.pop("random_state", None)
        given = check_values(given)
        chosen = {name: value for name, value in given.items() if _USUAL.get(name) != value}
        if get_loss(given["loss"]).needs_labels:
            raise SettingsError(
                "loss",
                f'expected a loss of triplets alone, got `loss="{self.loss}"`, which needs the '
                "classes of images. `tripletkit.train` takes labels.",
            )
        check_settings(chosen, has_labels=False, has_votes=False)
        # Not the state itself: weights and order must not depend on who draws from it first.
        if not isinstance(seed, Integral) or seed < 0:
            seed = _draw_seed(seed)
        settings = Settings.of_recipe(given.pop("recipe"), seed=int(seed), **given)
        return settings if self.epochs is not None else settings.with_usual_epochs(rows)

    @property
    def _n_features_out(self) -> int:
        """How many columns `transform` gives, for scikit-learn's names of them."""
        return int(self.embeddings_.shape[1])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.two_d_labels = True
        # Embeddings are float32, whatever the features are.
        tags.transformer_tags.preserves_dtype = []
        return tags


def _draw_seed(random_state: Any) -> int:
    try:
        return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    except ValueError as error:
        said = "`random_state`: expected 0 to 4,294,967,295, a `RandomState` or None"
        raise SettingsError("random_state", f"{said}, got {random_state!r}") from error


def _check_rows(triplets: Any, n_images: int | None = None) -> np.ndarray:
    """Return `(n_triplets, 3)` int32, indices of so many images."""
    if isinstance(triplets, Triplets):
        raise TripletFileError(
            "expected integers, the places of images, got Triplets, which number their names as "
            "these first appear. Give `triplets.over(names).rows`, with the names in your order."
        )
    return check_rows(np.asarray(triplets), n_images).astype(np.int32)


# Share of the images that each of many draws holds out: a third leaves about 30% of triplets for
# training and 4% for the test, a half 12% for each.
_TEST_IMAGES = 1 / 3


class _OfImage(NamedTuple):
    """The triplets of which an image is the anchor, knowing its own number when it is divided."""

    image: int
    others: np.ndarray


def triplets_by_image(triplets: np.ndarray | Sequence[Sequence[int]], n_images: int) -> np.ndarray:
    """Return triplets as a `y` with one entry for each image, which scikit-learn can divide.

    `GridSearchCV` and `cross_val_score` divide the rows of `X` and the entries of `y` alike. Where
    the rows of `X` are features of images, triplets have no such entries by themselves. The part
    of a division that has some images has the triplets that are of these images alone, so any
    splitter holds out whole images.

    Args:
        triplets: `(n_triplets, 3)` integers, indices of images: anchor, positive, negative.
        n_images: how many images there are, as many as rows of `X`.
    Returns:
        `(n_images,)` objects, the triplets of each anchor.
    Raises:
        TripletFileError: if they are no such array, or an index is beyond the images.
    Example:
        >>> len(triplets_by_image([[0, 1, 2], [2, 1, 0]], n_images=4))
        4
    """
    rows = _check_rows(triplets, n_images)
    order = np.argsort(rows[:, 0], kind="stable")
    starts = np.searchsorted(rows[order, 0], np.arange(n_images + 1))
    entries = np.empty(n_images, dtype=object)
    for image in range(n_images):
        of_anchor = order[starts[image] : starts[image + 1]]
        entries[image] = _OfImage(image, rows[of_anchor, 1:])
    return entries


def _is_by_image(y: Any) -> bool:
    """Return whether this is what `triplets_by_image` returned, or a part of it."""
    return isinstance(y, np.ndarray) and y.dtype == object and isinstance(y.flat[0], _OfImage)


def _rows_among(entries: np.ndarray) -> np.ndarray:
    """Return the `(n, 3)` int64 triplets among the images of entries, by their places here."""
    place_of = {entry.image: place for place, entry in enumerate(entries)}
    rows = [
        (place_of[entry.image], place_of[first], place_of[second])
        for entry in entries
        for first, second in entry.others.tolist()
        if first in place_of and second in place_of
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


@dataclass
class ImageSplit:
    """Cross-validation splitter over index triplets whose training and test share no image.

    scikit-learn's `KFold` and `ShuffleSplit` divide rows. A row held out then asks about images,
    and often about the very pair, that training rows ask about too, so remembering is enough to
    score well (`tripletkit.controls` shows how well). Here a share of the images is held out in
    each split: triplets of these images alone are the test, triplets without any of them are for
    training, and triplets that mix both are in neither. Every image is held out equally often, up
    to once more or less.

    Args:
        n_splits: how many splits. Defaults to `5`.
        test_size: share of the images that is held out, between 0 and 1. Defaults to a third. Of
            triplets over images drawn by chance about its third power is left for the test.
        random_state: seed of the draws. Defaults to `0`; a `numpy.random.RandomState` or `None`
            draws anew each time.
    Example:
        >>> triplets = [[a, b, c] for a in range(9) for b in range(9) for c in range(9)
        ...             if len({a, b, c}) == 3]
        >>> train, test = next(ImageSplit().split(triplets))
        >>> len(triplets), len(train), len(test)  # 6 * 5 * 4 and 3 * 2 * 1
        (504, 120, 6)
    """

    n_splits: int = 5
    test_size: float = _TEST_IMAGES
    random_state: int | np.random.RandomState | None = defaults.SEED

    def __post_init__(self) -> None:
        for name, kind, high, expected in (
            ("n_splits", Integral, np.inf, "a whole number from 1 on"),
            ("test_size", Real, 1, "a share between 0 and 1"),
        ):
            got = getattr(self, name)
            if not isinstance(got, kind) or not 0 < float(got) < high:
                raise SettingsError(name, f"expected {expected} for `{name}`, got {got!r}")

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of each split.

        Args:
            X: `(n_triplets, 3)` integers, indices of images; or, without groups, `Triplets`. With
                a `y` of `triplets_by_image`, whatever has a row for each image.
            y: passed over, unless it is of `triplets_by_image`: then images are divided.
            groups: `(n_images,)` the group of each image, such as a photographer or a patient;
                a group is held out as a whole; None and NaN stand for an image by itself.
                Defaults to `None`, every image by itself.
        Returns:
            Pairs of int64 arrays, rows of `X` for training and for the test.
        Raises:
            SplitError: if a draw leaves no triplet on one of the sides.
            SettingsError: if there is not a group for each image.
        """
        # A RandomState gives other draws each time, an integer the same, as in scikit-learn.
        rng = np.random.default_rng(_draw_seed(self.random_state))
        by_image = _is_by_image(y)
        given = X.rows if isinstance(X, Triplets) and groups is None else X
        rows = _rows_among(y) if by_image else _check_rows(given)
        n_images = len(y) if by_image else int(rows.max(initial=-1)) + 1
        units = np.arange(n_images)
        if groups is not None:
            values = np.asarray(groups, dtype=object).ravel()
            # More may be of images without a triplet; as many as triplets are rather theirs.
            may_be_more = not by_image and n_images < len(values) != len(rows)
            if len(values) != n_images and not may_be_more:
                raise SettingsError(
                    "groups",
                    f"expected a group for each of {n_images:,} images, got {len(values):,}",
                )
            codes = pd.factorize(values, sort=True)[0]
            units = np.where(codes < 0, len(codes) + np.arange(len(codes)), codes)
        for split in draw_splits(units[rows], self.n_splits, self.test_size, rng):
            if not by_image:
                yield split.train_rows, split.val_rows
                continue
            # An image that no triplet of a side has is of no use there.
            yield np.unique(rows[split.train_rows]), np.unique(rows[split.val_rows])

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return `n_splits`; `X`, `y` and `groups` are there because scikit-learn gives them.

        Args:
            X, y, groups: passed over.
        Returns:
            How many splits there are.
        """
        return self.n_splits
