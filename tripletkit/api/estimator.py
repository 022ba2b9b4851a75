"""A scikit-learn estimator that learns an embedding of feature vectors from triplets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from tripletkit import defaults
from tripletkit.api.given import take_rows
from tripletkit.api.image_split import is_by_image, rows_among
from tripletkit.data.triplets import Triplets
from tripletkit.errors import SettingsError, TripletFileError
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import Settings, check_settings, check_values

# Parameters that are settings of the same name; `random_state` is the seed.
_SETTINGS = (
    "members",
    "hidden",
    "dim",
    "dropout",
    "distance",
    "margin",
    "strength",
    "frozen_share",
    "epochs",
    "batch_size",
    "learning_rate",
    "loss",
    "reduction",
)


# scikit-learn has no types, so that its classes are Any.
class TripletEmbedding(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Embed feature vectors so that distances agree with triplets of them.

    There are two ways to fit. With the features at hand, `fit(features, triplets)`; this is how a
    `Pipeline` fits, too. Tools that divide what they are given, as `GridSearchCV` and
    `cross_val_score` do, need an entry of `y` for each row of `X`: `triplets_by_image` makes that
    of triplets, `search.fit(features, tk.triplets_by_image(triplets, len(features)))`. The other
    way, triplets are `X` and the features the parameter `preprocessor`:
    `TripletEmbedding(preprocessor=features).fit(triplets)`. Divide with `ImageSplit` then, since
    other splitters leave the same images on both sides.

    Args:
        preprocessor: `(n_images, n_features)` that index triplets are looked up in, for the second
            way. Defaults to `None`, the first way.
        recipe: how the head is built and trained; a name of `tripletkit losses` and of
            `tripletkit train --recipe`. Defaults to `"mlp"`.
        members: heads in the ensemble. `None` here and below is the recipe's own default.
        hidden: width of the hidden layer.
        dim: numbers in an embedding.
        dropout: share of hidden values dropped in training.
        distance: `"l2"`, `"l1"`, `"squared-l2"` or `"cosine"`. Defaults to `"l2"`.
        margin: in units of the distance, or of its square as the recipe has it.
        strength: how much of its step a head that starts as the identity keeps, 0 to 1.
        frozen_share: of the features in the distance, beside the head, 0 to below 1.
        epochs: passes over the triplets. `None` gives small sets more.
        batch_size: triplets in a step. Defaults to `256`.
        learning_rate: of Adam.
        loss: of triplets alone; a name that `tripletkit losses` lists. Defaults to `"triplet"`.
        reduction: `"all"`, or `"active"` to average over triplets that break the margin. Defaults
            to `"all"`.
        random_state: seed of weights, dropout and order. Defaults to `0`, which gives the same
            embeddings each time; `None` or a `numpy.random.RandomState` gives others.
    Attributes:
        embeddings_: `(n_images, dim)` float32 of the features that it was fitted on.
        head_: the Keras model, `(batch, n_features)` -> `(batch, dim)`.
        history_: table of the epochs.
        n_features_in_: width of the features.
        settings_: what it was trained with, the recipe's defaults filled in.
    Reference:
        Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832. The names
        `preprocessor` and `decision_function` are those of metric-learn: de Vazelhes, Carey, Tang,
        Vauquier, Bellet. JMLR 21, 2020.
    """

    def __init__(
        self,
        preprocessor: np.ndarray | None = None,
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
        self.preprocessor = preprocessor
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
            X: `(n_images, n_features)` floats; with a `preprocessor` `(n_triplets, 3)` integers,
                indices of its rows: anchor, positive, negative.
            y: `(n_triplets, 3)` integers, indices of rows of `X`, or what `triplets_by_image`
                returns; with a `preprocessor` nothing, or for each triplet 1 where its second
                image is the nearer one, 0 or -1 where the third is.
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
        from tripletkit.training.held_out import answer_held_out, choose
        from tripletkit.training.trainer import Examples, make_trainer

        trainer = make_trainer(Examples(features, rows), settings)
        # What an ensemble is made of is chosen by held-out draws.
        has_parts = get_recipe(self.recipe).is_chosen
        held_out = answer_held_out(trainer) if has_parts else None
        trained = choose(trainer, held_out).trainer.fit()
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
        embeddings = self.embeddings_ if triplets is None else self.transform(X)
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
        """
        check_is_fitted(self)
        if y is None and self.preprocessor is None:
            return float(self.predict(X).mean())
        features, rows = self._take(X, y, reset=False)
        return float(self.predict(features, rows).mean())

    def _take(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return features and `(n_triplets, 3)` rows of them: anchor, positive, negative."""
        if self.preprocessor is None:
            if y is None:
                raise TripletFileError(
                    "TripletEmbedding requires y to be passed, but the target y is None: expected "
                    "fit(features, triplets). Give the features as `preprocessor` for "
                    "fit(triplets)."
                )
            features = validate_data(self, X, dtype=np.float32, reset=reset, ensure_min_samples=3)
            rows = rows_among(y) if is_by_image(y) else y
            return features, _check_rows(rows, len(features))
        features = validate_data(
            self, self.preprocessor, dtype=np.float32, reset=reset, ensure_min_samples=3
        )
        rows = _check_rows(X, len(features))
        if y is None:
            return features, rows
        answers = np.asarray(y)
        if answers.shape != (len(rows),) or not np.isin(answers, (-1, 0, 1)).all():
            raise TripletFileError(
                f"expected 1 for each of {len(rows):,} triplets whose second image is the nearer "
                f"one, else 0 or -1, got {answers.dtype} of the shape {answers.shape}"
            )
        return features, np.where(answers[:, None] == 1, rows, rows[:, [0, 2, 1]])

    def _make_settings(self, rows: np.ndarray) -> Settings:
        given = {name: getattr(self, name) for name in _SETTINGS if getattr(self, name) is not None}
        given = check_values({"recipe": self.recipe, **given})
        usual = {"loss": defaults.LOSS, "reduction": defaults.REDUCTION}
        chosen = {name: value for name, value in given.items() if usual.get(name) != value}
        if get_loss(given["loss"]).needs_labels:
            raise SettingsError(
                "loss",
                f'expected a loss of triplets alone, got `loss="{self.loss}"`, which needs the '
                "classes of images. `tripletkit.train` takes labels.",
            )
        del given["recipe"]
        check_settings(chosen, has_labels=False, has_votes=False)
        # Not the state itself: weights and order must not depend on who draws from it first.
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        settings = Settings.of_recipe(self.recipe, seed=int(seed), **given)
        return settings if self.epochs is not None else settings.with_usual_epochs(rows)

    @property
    def _n_features_out(self) -> int:
        """How many columns `transform` gives, for scikit-learn's names of them."""
        return int(self.embeddings_.shape[1])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.preprocessor is None
        tags.target_tags.two_d_labels = True
        # Embeddings are float32, whatever the features are.
        tags.transformer_tags.preserves_dtype = []
        return tags


def _check_rows(
    triplets: Triplets | np.ndarray | Sequence[Sequence[int]], n_images: int
) -> np.ndarray:
    rows = take_rows(triplets)
    if rows.size and not (rows.min() >= 0 and rows.max() < n_images):
        raise TripletFileError(
            f"expected indices of {n_images:,} rows of features, got {rows.min()} to {rows.max()}"
        )
    return rows.astype(np.int32)
