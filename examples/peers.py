"""Other libraries' ways to learn from triplets, for `accuracy_benchmark.py`."""

from __future__ import annotations

import csv
import os
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
from named_images import vectors_of

import tripletkit as tk
from tripletkit import defaults
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.features.unit_length import scale_to_unit_length

# Components that the methods which learn a whole matrix start from, as they do not scale to more.
N_COMPONENTS = 100

# Directions that SCML weighs. Its default of 80 for each component takes gigabytes for 20,000
# triplets.
N_SCML_BASES = 1000

# Of sentence-transformers' TripletLoss, whose embeddings have any length.
SENTENCE_MARGIN = 5.0

PACKAGES = {
    "pytorch-metric-learning": ("torch", "pytorch_metric_learning"),
    "metric-learn SCML": ("metric_learn",),
}

# Another seed gives the same again.
WITHOUT_CHANCE = {"frozen features, cosine", "scikit-learn NCA (labels)"}


class Peers:
    """Other libraries on the features that the recipe mlp takes by default.

    Attributes:
        train: `(n, 3)` training triplets, indices into the features.
        standardised: `(n_images, n_features)` float32 features, by the training images' own mean
            and deviation.
    """

    def __init__(
        self, train_file: Path, questions: tk.Triplets, images: Path, labels: Path | None
    ) -> None:
        frozen = tk.pretrained("auto")
        train, self._questions = tk.read_judgements(train_file).triplets, questions
        self.train = train.rows
        of_train = vectors_of(frozen, images, train.names)
        self._n_train = len(of_train)
        features = np.concatenate([of_train, vectors_of(frozen, images, questions.names)])
        self._images = np.unique(self.train)
        mean, deviation = (values(features[self._images], axis=0) for values in (np.mean, np.std))
        self.standardised = ((features - mean) / np.maximum(deviation, 1e-6)).astype(np.float32)
        self._features, self._labels = features, None
        if labels is not None:
            with labels.open(newline="") as file:
                label_of = {row["name"]: row["label"] for row in csv.DictReader(file)}
            stems = {Path(name).stem: label for name, label in label_of.items()}
            self._labels = np.array(
                [label_of.get(name) or stems[Path(name).stem] for name in train.names]
            )

    def margins(self, vectors: np.ndarray, distance: str = "l2") -> np.ndarray:
        return triplet_margins(vectors[self._n_train :], self._questions.rows, distance)

    def components(self) -> np.ndarray:
        from sklearn.decomposition import PCA

        unit = scale_to_unit_length(self._features)
        n_components = min(N_COMPONENTS, *unit[self._images].shape)
        components = PCA(n_components, random_state=0).fit(unit[self._images]).transform(unit)
        return components / components[self._images].std()

    def frozen(self, seed: int) -> np.ndarray:
        return self.margins(self._features, "cosine")

    def nca(self, seed: int) -> np.ndarray:
        from sklearn.neighbors import NeighborhoodComponentsAnalysis

        components, labels = self.components(), self._labels[self._images]
        # Its usual start, discriminant analysis, needs more images than classes.
        start = "auto" if len(np.unique(labels)) < len(labels) else "pca"
        nca = NeighborhoodComponentsAnalysis(
            defaults.DIM, init=start, max_iter=50, random_state=seed
        )
        nca.fit(components[self._images], labels)
        return self.margins(nca.transform(components))

    def scml(self, seed: int) -> np.ndarray:
        import metric_learn._util as checks
        import sklearn.utils
        from metric_learn import SCML

        # metric-learn 0.7 calls scikit-learn's checks with `force_all_finite`, which 1.6 renamed
        # to `ensure_all_finite` and 1.8 took away. It is renamed back here.
        for name in ("check_array", "check_X_y"):
            setattr(checks, name, take_old_name(getattr(sklearn.utils, name)))
        components = self.components()
        scml = SCML(preprocessor=components, n_basis=N_SCML_BASES, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of bases with nonzero weight")
            scml.fit(self.train)
        return self.margins(scml.transform(components))

    def sentence_transformers(self, seed: int) -> np.ndarray:
        """Its TripletLoss on the head of the recipe mlp: Euclidean, margin 5, any length."""
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(seed)
        head = keras.Sequential(
            [
                keras.Input((self.standardised.shape[1],)),
                keras.layers.Dense(defaults.HIDDEN, "relu", kernel_initializer="he_uniform"),
                keras.layers.Dropout(defaults.DROPOUT),
                keras.layers.Dense(defaults.DIM, kernel_initializer="he_uniform"),
            ]
        )
        optimizer = keras.optimizers.Adam(defaults.LEARNING_RATE)
        matrix, order = tf.constant(self.standardised), np.random.default_rng(seed)

        @tf.function(reduce_retracing=True)
        def step(rows: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                one, near, far = (
                    head(tf.gather(matrix, rows[:, place]), training=True) for place in range(3)
                )
                gap = tf.norm(one - near + 1e-6, axis=1) - tf.norm(one - far + 1e-6, axis=1)
                loss = tf.reduce_mean(tf.nn.relu(gap + SENTENCE_MARGIN))
            gradients = tape.gradient(loss, head.trainable_variables)
            optimizer.apply_gradients(zip(gradients, head.trainable_variables, strict=True))

        size = defaults.BATCH_SIZE
        for _ in range(n_epochs(len(self.train))):
            rows = order.permutation(self.train)
            for start in range(0, len(rows), size):
                step(tf.constant(rows[start : start + size], tf.int32))
        return self.margins(head(matrix).numpy())

    def pytorch_metric_learning(self, seed: int) -> np.ndarray:
        """The head of the recipe mlp in PyTorch, with its triplet margin loss."""
        import torch
        from pytorch_metric_learning.losses import TripletMarginLoss

        torch.manual_seed(seed)
        order, matrix = np.random.default_rng(seed), torch.from_numpy(self.standardised)
        head = torch.nn.Sequential(
            torch.nn.Linear(matrix.shape[1], defaults.HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Dropout(defaults.DROPOUT),
            torch.nn.Linear(defaults.HIDDEN, defaults.DIM),
        )
        loss_of = TripletMarginLoss(margin=defaults.MARGIN)
        optimizer = torch.optim.Adam(head.parameters(), defaults.LEARNING_RATE)
        for _ in range(n_epochs(len(self.train))):
            rows = torch.from_numpy(order.permutation(self.train).astype(np.int64))
            for batch in rows.split(defaults.BATCH_SIZE):
                images, places = torch.unique(batch, return_inverse=True)
                loss = loss_of(head(matrix[images]), indices_tuple=tuple(places.T))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        head.eval()
        with torch.no_grad():
            return self.margins(torch.nn.functional.normalize(head(matrix)).numpy())

    def ways(self) -> dict[str, Callable[[int], np.ndarray]]:
        """Return those that can be measured here."""
        ways: dict[str, Callable[[int], np.ndarray]] = {
            "frozen features, cosine": self.frozen,
            "sentence-transformers' triplet loss": self.sentence_transformers,
            "pytorch-metric-learning": self.pytorch_metric_learning,
            "metric-learn SCML": self.scml,
        }
        if self._labels is not None:
            ways["scikit-learn NCA (labels)"] = self.nca
        for way, packages in PACKAGES.items():
            missing = [name for name in packages if not find_spec(name)]
            if missing:
                print(f"{way}: skipped, {missing[0]} is not installed", file=sys.stderr)
                del ways[way]
        return ways


def n_epochs(n_triplets: int) -> int:
    from tripletkit.model.settings import _choose_epochs

    return _choose_epochs(n_triplets, defaults.BATCH_SIZE, defaults.EPOCHS)


def take_old_name(check: Callable[..., Any]) -> Callable[..., Any]:
    def take(*arguments: Any, force_all_finite: bool = True, **named: Any) -> Any:
        return check(*arguments, ensure_all_finite=force_all_finite, **named)

    return take
