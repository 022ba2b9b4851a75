"""Measure every recipe, the frozen features and other libraries' ways on one triplet set.

    python examples/accuracy_benchmark.py train.txt test.txt truth.csv images/ --labels labels.csv

prints one table: accuracy on the test as mean, lowest and highest over seeds, the time of one
training, and for each way the paired 95% interval of how far it is behind the best one, shared
images allowed for. All of them get the same frozen features, and none sees the truth; `best`
chooses from two networks and their early layers, as `train` does, unless --backbone names one.
The last column is what its held-out draws said beforehand: the mean over seeds of their accuracy,
and how often their interval holds that on the test. `--without-classes a,b` leaves every training
triplet with an image of these classes out, and asks only the questions that have one.

pytorch-metric-learning and metric-learn are measured where they are installed
(`pip install 'tripletkit[benchmark]'`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
import sklearn.utils

from tripletkit import defaults
from tripletkit.data.training_set import (
    TrainingSet,
    join_training_set,
    places_of_names,
    share_names,
)
from tripletkit.data.triplet_files import read_triplets
from tripletkit.evaluation.answers import read_truth
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.intervals import image_interval
from tripletkit.evaluation.pooled import PooledScore
from tripletkit.features.collection import find_files, load_collection
from tripletkit.features.image_views import choose_views
from tripletkit.features.sources import choose_source
from tripletkit.features.store import FeatureStore
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.embedding import embed
from tripletkit.model.scaling import Scaling
from tripletkit.model.settings import HeadSettings, choose_epochs
from tripletkit.progress import no_stages
from tripletkit.training.epochs import compress_embeddings, train_model
from tripletkit.training.fitting import fit

# Components that the methods which learn a whole matrix start from, as they do not scale to more.
N_COMPONENTS = 100
BACKBONE = "efficientnet-lite0"

# Directions that SCML weighs. Its default of 80 for each component takes gigabytes for 20,000
# triplets.
N_SCML_BASES = 1000


@dataclass(frozen=True)
class Task:
    """What every way of answering gets.

    Attributes:
        data: training triplets, and as its validation the test with its truth, for the end only.
        features: `(n_images, n_features)` float32.
        labels: `(n_images,)` class of each image, or None.
        ensemble_features: `(n_images, n)` float32, what `best` chooses from.
        ensemble_columns: of each network and depth.
        validations: name of a way -> what its held-out draws said, seed after seed.
    """

    data: TrainingSet
    features: np.ndarray
    labels: np.ndarray | None
    ensemble_features: np.ndarray
    ensemble_columns: dict[str, slice]
    validations: dict[str, list[PooledScore]] = field(default_factory=dict)

    @property
    def train(self) -> np.ndarray:
        return self.data.train.rows

    @property
    def images(self) -> np.ndarray:
        return np.unique(self.train)

    def standardised(self) -> np.ndarray:
        return Scaling.of(self.features[self.images]).apply(self.features)

    def components(self) -> np.ndarray:
        from sklearn.decomposition import PCA

        features = scale_to_unit_length(self.features)
        n_components = min(N_COMPONENTS, *features[self.images].shape)
        pca = PCA(n_components, random_state=0).fit(features[self.images])
        components = pca.transform(features)
        return components / components[self.images].std()


# Takes a task and a seed, and yields name and embeddings of what one training gives.
Way = Callable[[Task, int], Iterator[tuple[str, np.ndarray]]]


def train_source(task: Task, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    yield "mlp", train_recipe(task, settings_of(task, "mlp", seed))


def train_residual(task: Task, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    yield "residual", train_recipe(task, settings_of(task, "residual", seed))


def train_best(task: Task, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    settings = settings_of(task, "best", seed)
    # Without truth: the test's triplets are no validation here.
    data = replace(task.data, val=task.data.train.take(np.arange(0)))
    fitted = fit(
        data,
        task.ensemble_features,
        task.ensemble_columns,
        settings,
        None,
        pools=True,
        budget_s=None,
        unseen_fraction=0.0,
        test_features=None,
        with_curve=False,
        on_epoch=lambda record, n_epochs: None,
        stages=no_stages,
    )
    for worth in fitted.pooled.candidates:
        print(f"{worth.name} {worth.weight:.3f} ({worth.score.accuracy:.4f})", file=sys.stderr)
    task.validations.setdefault("best", []).append(fitted.pooled.trained)
    embeddings = embed(fitted.trained.head, task.ensemble_features)
    yield "best", embeddings
    ten = HeadSettings.of_recipe("best", dim=defaults.DIM, seed=seed)
    yield "best, 10-D", compress_embeddings(embeddings, task.images, ten)


def train_metric_learning(task: Task, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """The source's head in PyTorch, with pytorch-metric-learning's triplet margin loss."""
    import torch
    from pytorch_metric_learning.losses import TripletMarginLoss

    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    settings = settings_of(task, "mlp", seed)
    matrix = torch.from_numpy(task.standardised())
    head = torch.nn.Sequential(
        torch.nn.Linear(matrix.shape[1], settings.hidden),
        torch.nn.ReLU(),
        torch.nn.Dropout(settings.dropout),
        torch.nn.Linear(settings.hidden, settings.dim),
    )
    loss_of = TripletMarginLoss(margin=settings.margin)
    optimizer = torch.optim.Adam(head.parameters(), settings.learning_rate)
    for _ in range(settings.epochs):
        rows = torch.from_numpy(order.permutation(task.train).astype(np.int64))
        for batch in rows.split(settings.batch_size):
            images, places = torch.unique(batch, return_inverse=True)
            loss = loss_of(head(matrix[images]), indices_tuple=tuple(places.T))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    head.eval()
    with torch.no_grad():
        yield "pytorch-metric-learning", torch.nn.functional.normalize(head(matrix)).numpy()


def train_nca(task: Task, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    from sklearn.neighbors import NeighborhoodComponentsAnalysis

    nca = NeighborhoodComponentsAnalysis(defaults.DIM, max_iter=50, random_state=seed)
    components = task.components()
    nca.fit(components[task.images], task.labels[task.images])
    yield "scikit-learn NCA (labels)", nca.transform(components)


def train_scml(task: Task, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    import metric_learn._util as checks
    from metric_learn import SCML

    # metric-learn 0.7 calls scikit-learn's checks with `force_all_finite`, which 1.6 renamed to
    # `ensure_all_finite` and 1.8 took away. It is renamed back here, and nothing else is changed.
    for name in ("check_array", "check_X_y"):
        setattr(checks, name, _take_old_name(getattr(sklearn.utils, name)))
    components = task.components()
    scml = SCML(preprocessor=components, n_basis=N_SCML_BASES, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of bases with nonzero weight")
        scml.fit(task.train)
    yield "metric-learn SCML", scml.transform(components)


def _take_old_name(check: Callable[..., Any]) -> Callable[..., Any]:
    def take(*arguments: Any, force_all_finite: bool = True, **named: Any) -> Any:
        return check(*arguments, ensure_all_finite=force_all_finite, **named)

    return take


# Another seed gives the same again.
WITHOUT_CHANCE = {train_nca}


def settings_of(task: Task, recipe: str, seed: int) -> HeadSettings:
    settings = HeadSettings.of_recipe(recipe, seed=seed)
    epochs = choose_epochs(len(task.train), settings.batch_size, settings.epochs)
    return HeadSettings.of_recipe(recipe, seed=seed, epochs=epochs)


def train_recipe(task: Task, settings: HeadSettings) -> np.ndarray:
    trained = train_model(task.features, task.train, task.train[:0], settings)
    return embed(trained.head, task.features)


def ways(task: Task) -> Iterator[Way]:
    yield from (train_source, train_residual, train_best)
    if find_spec("pytorch_metric_learning"):
        yield train_metric_learning
    if task.labels is not None:
        yield train_nca
    if find_spec("metric_learn"):
        yield train_scml


def read_task(options: argparse.Namespace) -> Task:
    truth = read_truth(options.truth).labels
    train, test = share_names(read_triplets(options.train), read_triplets(options.test))
    data = join_training_set(train, test, truth)
    files = find_files(data.names, places_of_names(train, test), options.images)
    source = choose_source(
        options.backbone.split(","),
        {name or None: Path(file) for name, _, file in options.weights},
        choose_views(options.views.split(",")),
    )
    # What `train --recipe best` takes where no backbone is named; all others get the same features.
    of_best = source
    if options.backbone == BACKBONE:
        of_best = choose_source(defaults.ENSEMBLE_BACKBONES, depth="all")
    with FeatureStore() as store:
        features, for_best = (
            load_collection(files, each, store).features for each in (source, of_best)
        )
    labels = None
    if options.labels:
        table = pd.read_csv(options.labels, dtype=str, index_col="name")
        labels = table.loc[data.names, "label"].to_numpy()
    if options.without_classes:
        is_new = np.isin(labels, options.without_classes.split(","))
        train = data.train.take(~is_new[data.train.rows].any(axis=1))
        val = data.val.take(is_new[data.val.rows].any(axis=1))
        data = replace(data, train=train, val=val)
    return Task(data, features, labels, for_best, of_best.columns)


def measure(task: Task, n_seeds: int) -> Iterator[list[dict[str, str]]]:
    """Yield after each seed a table with one row for each way.

    A row has the accuracies of a way so far, and where it stands behind the best one.
    """
    rows = task.data.val.rows
    right: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {}

    def note(name: str, embeddings: np.ndarray, distance: str, taken_s: float) -> None:
        margins = triplet_margins(embeddings, rows, distance)
        right.setdefault(name, []).append((margins > 0).astype(np.float64))
        seconds.setdefault(name, []).append(taken_s)
        print(f"{name}: {right[name][-1].mean():.4f} in {taken_s:.0f} s", file=sys.stderr)

    for name, distance in (("frozen features, L2", "l2"), ("frozen features, cosine", "cosine")):
        note(name, task.features, distance, 0.0)
    of_source = []
    for seed in range(n_seeds):
        for way in ways(task):
            if seed and way in WITHOUT_CHANCE:
                continue
            started_s = time.perf_counter()
            for name, embeddings in way(task, seed):
                note(name, embeddings, "l2", time.perf_counter() - started_s)
                if way is train_source:
                    of_source.append(embeddings)
        if seed == n_seeds - 1 > 0:
            note(f"{n_seeds} mlp heads", np.hstack(of_source), "l2", sum(seconds["mlp"]))
        yield make_table(right, seconds, rows, task.validations)


def make_table(
    right: dict[str, list[np.ndarray]],
    seconds: dict[str, list[float]],
    rows: np.ndarray,
    validations: dict[str, list[PooledScore]],
) -> list[dict[str, str]]:
    means = {name: np.mean(of_seeds, axis=0) for name, of_seeds in right.items()}
    best = max(means, key=lambda name: means[name].mean())
    table = []
    for name, of_seeds in right.items():
        accuracies = [credit.mean() for credit in of_seeds]
        behind = image_interval(means[best] - means[name], rows, bounds=(-1, 1))
        table.append(
            {
                "answers by": name,
                "accuracy": f"{np.mean(accuracies):.4f}",
                "lowest to highest seed": f"{min(accuracies):.4f} to {max(accuracies):.4f}",
                "behind the best": f"{behind.low:+.4f} to {behind.high:+.4f}" if behind else "-",
                "seconds": f"{np.mean(seconds[name]):.1f}",
                "held-out draws": describe_validations(validations.get(name, []), accuracies),
            }
        )
    return table


def describe_validations(scores: list[PooledScore], accuracies: list[float]) -> str:
    """Return the middle of what held-out draws said, and how often their interval had the test."""
    if not scores:
        return "-"
    n_held = sum(
        score.interval is not None and score.interval.low <= accuracy <= score.interval.high
        for score, accuracy in zip(scores, accuracies, strict=True)
    )
    return f"{np.mean([score.accuracy for score in scores]):.4f}, holds {n_held} of {len(scores)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("train", "test", "truth", "images"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--labels", type=Path, help="CSV with the columns name and label")
    parser.add_argument("--without-classes", help="labels, separated by commas")
    parser.add_argument("--backbone", default=BACKBONE, help="or several, by commas")
    parser.add_argument(
        "--weights",
        type=lambda given: given.rpartition("="),
        action="append",
        default=[],
        help="FILE, or NAME=FILE for each of several backbones",
    )
    parser.add_argument("--views", default=defaults.VIEWS, help="as `tripletkit train` has them")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.without_classes and not options.labels:
        parser.error("--without-classes needs --labels")
    task = read_task(options)
    print(
        f"{len(task.train):,} training triplets over {len(task.images):,} images, "
        f"{len(task.data.val):,} questions\n"
    )
    # It can take an hour: what is known so far is told after each seed.
    for seed, table in enumerate(measure(task, options.seeds)):
        to = sys.stdout if seed == options.seeds - 1 else sys.stderr
        for cells in (table[0], ["---"] * len(table[0]), *(row.values() for row in table)):
            print(f"| {' | '.join(cells)} |", file=to)


if __name__ == "__main__":
    main()
