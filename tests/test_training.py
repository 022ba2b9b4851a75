"""Training of a head: learns, repeats itself bit by bit, and says when it failed."""

from __future__ import annotations

import dataclasses
import tracemalloc
import warnings

import numpy as np
import psutil
import pytest
from plain import triplet_margins

import tripletkit as tk
from tripletkit import TripletkitError, defaults
from tripletkit.data.triplets import Votes, make_loss_weights
from tripletkit.errors import DataWarning
from tripletkit.evaluation.validation import warn_of_features
from tripletkit.model.head_layers import Scaling, embed
from tripletkit.model.heads import build_head
from tripletkit.model.settings import Settings, _choose_epochs
from tripletkit.training.epochs import _effective_rank, _mean_pairwise_distance, check_collapse
from tripletkit.training.trainer import Examples, make_trainer

N_FEATURES = 20
SMALL = Settings(hidden=16, dim=4, epochs=5, batch_size=64)


def make_features(n_images):
    """Return images of six kinds, which only some of the features tell apart."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(6, N_FEATURES)) * (np.arange(N_FEATURES) < 8)
    noise = rng.normal(size=(n_images, N_FEATURES)) * np.where(np.arange(N_FEATURES) < 8, 0.3, 2)
    return (kinds[np.arange(n_images) % 6] + noise + 5).astype(np.float32)


@pytest.fixture
def features():
    return make_features(60)


def draw_rows(low, high, n_rows, seed=1):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(low, high, (40 * n_rows, 3))
    kinds = drawn % 6
    is_right = (
        (kinds[:, 0] == kinds[:, 1]) & (kinds[:, 0] != kinds[:, 2]) & (drawn[:, 0] != drawn[:, 1])
    )
    return drawn[is_right][:n_rows].astype(np.int32)


def accuracy(embeddings, rows, distance="l2"):
    return float(np.mean(triplet_margins(embeddings, rows, distance) > 0))


def train_head(features, rows, val, settings, loss_weights=None, on_epoch=lambda _: None):
    examples = Examples(features, rows, val, loss_weights=loss_weights)
    return make_trainer(examples, settings).fit(lambda record, _: on_epoch(record))


def train(features, settings=SMALL, n_rows=600, n_val=200, **options):
    val = draw_rows(42, 60, n_val) if n_val else np.empty((0, 3), np.int32)
    return train_head(features, draw_rows(0, 42, n_rows), val, settings, **options)


@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
def test_training_learns_what_the_features_hide(distance):
    features = make_features(600)
    settings = dataclasses.replace(SMALL, distance=distance, hidden=64, learning_rate=3e-3)
    val = draw_rows(400, 500, 500)
    trained = train_head(features, draw_rows(0, 400, 4000), val, settings)
    embeddings = embed(trained.head, features)
    rows = draw_rows(500, 600, 1000, seed=9)
    assert accuracy(embeddings, rows, distance) > accuracy(features, rows, distance) + 0.1
    assert accuracy(embeddings, rows, distance) > 0.9
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_the_best_epoch_is_kept(features):
    told = []
    settings = dataclasses.replace(SMALL, epochs=30, patience=3)
    trained = train(features, settings, n_val=500, on_epoch=told.append)
    accuracies = [record.val_accuracy for record in trained.history]
    assert list(map(str, told)) == list(map(str, trained.history))
    assert trained.best_epoch == 1 + int(np.argmax(accuracies))
    assert len(accuracies) == min(30, trained.best_epoch + 3)
    embeddings = embed(trained.head, features)
    kept = accuracy(embeddings, draw_rows(42, 60, 500))
    assert kept == pytest.approx(max(accuracies), abs=0.02)


def test_without_validation_the_last_epoch_is_kept(features):
    trained = train(features, n_val=0)
    assert trained.best_epoch == len(trained.history) == SMALL.epochs
    assert np.isnan([record.val_accuracy for record in trained.history]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_rows", "batch_size"), [(1, 1), (1, 64), (63, 64), (64, 64), (65, 64), (130, 1000)]
)
def test_any_number_of_triplets_goes_with_any_batch_size(features, n_rows, batch_size):
    settings = dataclasses.replace(SMALL, epochs=1, batch_size=batch_size)
    trained = train(features, settings, n_rows=n_rows, n_val=0)
    assert np.isfinite(trained.history[0].loss)
    assert 0 <= trained.history[0].active <= 1


@pytest.mark.slow
def test_an_epochs_loss_is_the_mean_over_its_triplets(features):
    settings = dataclasses.replace(
        SMALL, epochs=1, batch_size=7, dropout=0.0, learning_rate=1e-12, distance="l1"
    )
    rows = draw_rows(0, 42, 100)
    trained = train_head(features, rows, rows[:0], settings)
    embeddings = embed(trained.head, features)
    losses = np.maximum(settings.margin - triplet_margins(embeddings, rows, "l1"), 0)
    assert trained.history[0].loss == pytest.approx(losses.mean(), rel=1e-3)
    assert trained.history[0].active == pytest.approx((losses > 0).mean())
    assert trained.history[0].spread == pytest.approx(
        _mean_pairwise_distance(embeddings[np.unique(rows)]), rel=1e-3
    )


def test_images_without_features_do_no_harm(features):
    clean = train(features)
    holes = np.concatenate([features, np.full((3, N_FEATURES), np.nan, np.float32)])
    trained = train(holes)
    assert trained.history == clean.history
    embeddings = embed(trained.head, holes)
    np.testing.assert_array_equal(embeddings[:60], embed(clean.head, features))
    assert np.isnan(embeddings[60:]).all()


def test_check_collapse_says_what_it_saw():
    good = np.eye(3, dtype=np.float32)
    settings = Settings(margin=0.2, learning_rate=1e-3)
    assert check_collapse(good, 0.1, settings) == pytest.approx((2 / 3**0.5, 2))
    with pytest.raises(TripletkitError, match=r"the loss is nan.*`learning_rate=0\.0001"):
        check_collapse(good, float("nan"), settings)
    with pytest.raises(TripletkitError, match="broke down"):
        check_collapse(good * np.nan, 0.1, settings)
    alike = np.ones((3, 3), np.float32)
    with pytest.raises(
        TripletkitError, match=r"loss is stuck at the margin \(0\.2000, margin 0\.2"
    ):
        check_collapse(alike, 0.2, settings)
    with pytest.raises(TripletkitError, match="semi-hard` is gentler"):
        check_collapse(alike, 0.2, dataclasses.replace(settings, mining="batch-hard"))


def test_features_that_are_alike_are_named_as_the_cause():
    with pytest.raises(TripletkitError, match=r"training collapsed.*features of 100%") as caught:
        train(np.full((60, N_FEATURES), 3, np.float32))
    assert "learning_rate" not in str(caught.value)


def test_features_of_most_images_alike_are_told_before_training(features, tmp_path):
    (tmp_path / "t.txt").write_text("".join(f"{n} {n + 20} {n + 40}\n" for n in range(20)))
    triplets = tk.read_judgements(tmp_path / "t.txt").triplets
    alike = np.where(np.arange(60)[:, None] < 33, np.ones(N_FEATURES) * 7, features)
    with pytest.warns(DataWarning, match=r"t\.txt: the features of 55% of the images are nearly"):
        warn_of_features(alike, triplets)
    with pytest.warns(DataWarning) as caught:
        warn_of_features(np.full((60, N_FEATURES), 7.0), triplets)
    assert len(caught) == 1  # Ties do not say that near and far are exchanged.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_features(features, triplets)


def test_many_classes_on_a_line_are_a_collapse():
    rng = np.random.default_rng(0)
    line = np.outer(rng.normal(size=50), [1, 2, 3]).astype(np.float32)
    settings = Settings()
    with pytest.raises(TripletkitError, match="the embeddings of 8 classes lie on a line"):
        check_collapse(line, 0.1, settings, n_classes=8)
    # Two classes need no more, and of judgements nobody knows how many there are.
    check_collapse(line, 0.1, settings, n_classes=2)
    check_collapse(line, 0.1, settings)


@pytest.mark.parametrize("n_dims", [1, 3, 7])
def test_the_effective_rank_counts_equal_directions_whatever_the_turn_and_size(n_dims):
    rng = np.random.default_rng(0)
    embeddings = np.zeros((2 * n_dims, 9))
    embeddings[np.arange(n_dims), np.arange(n_dims)] = 1
    embeddings[n_dims + np.arange(n_dims), np.arange(n_dims)] = -1
    turn, _ = np.linalg.qr(rng.normal(size=(9, 9)))
    assert _effective_rank(5 + 3 * embeddings @ turn) == pytest.approx(n_dims)


def test_scaling_folds_into_the_first_layer(features):
    scaling = Scaling.of(features)
    scaled = scaling.apply(features)
    np.testing.assert_allclose(scaled[:, :8].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-4)
    head = build_head(N_FEATURES, 16, 4, 0.5)
    rng = np.random.default_rng(0)
    head.set_weights([rng.normal(size=value.shape) for value in head.get_weights()])
    before = embed(head, scaled)
    head.set_weights(scaling.fold_into(head.get_weights()))
    np.testing.assert_allclose(embed(head, features), before, atol=1e-4)


def test_scaling_does_not_blow_up_features_that_never_vary(features):
    features[:, 3] = 7
    features[:, 4] = 7 + 1e-6 * np.arange(60)
    scaled = Scaling.of(features).apply(features)
    assert np.abs(scaled[:, [3, 4]]).max() < 0.01
    dead = np.zeros((5, 3), np.float32)
    np.testing.assert_array_equal(Scaling.of(dead).apply(dead), dead)


def test_embeddings_do_not_depend_on_the_other_images(features, monkeypatch):
    head = train(features).head
    embeddings = embed(head, features)
    np.testing.assert_array_equal(embed(head, features[::-1])[::-1], embeddings)
    np.testing.assert_array_equal(embed(head, features[7:8])[0], embeddings[7])
    many = np.tile(features, (30, 1))
    np.testing.assert_array_equal(embed(head, many), np.tile(embeddings, (30, 1)))
    assert embed(head, features[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("n_triplets", "n_epochs"), [(1, 100), (1000, 100), (5000, 25), (20_000, 10), (10**6, 10)]
)
def test_small_sets_get_more_epochs(n_triplets, n_epochs, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_EPOCHS", 100)
    assert _choose_epochs(n_triplets, batch_size=256) == n_epochs


@pytest.mark.slow
def test_memory_does_not_hold_the_features_of_every_triplet():
    """Three gathered arrays would take 300,000 x 3 x 500 numbers: 1.8 GB."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 500)).astype(np.float32)
    rows = rng.integers(0, 200, (300_000, 3)).astype(np.int32)
    settings = dataclasses.replace(SMALL, epochs=1, batch_size=4096)
    process = psutil.Process()
    before = process.memory_info().rss
    peak_rss = []
    tracemalloc.start()
    try:
        train_head(
            features,
            rows,
            rows[:200_000],
            settings,
            on_epoch=lambda _: peak_rss.append(process.memory_info().rss),
        )
        peak_python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_python < 100e6
    assert peak_rss[0] - before < 400e6


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["mlp", "residual"])
@pytest.mark.parametrize("loss", ["triplet", "soft-margin", "ratio"])
def test_the_loss_with_votes_is_the_mean_over_the_voters(features, loss, recipe):
    rows = draw_rows(0, 42, 100)
    rng = np.random.default_rng(3)
    votes = Votes(rng.integers(1, 6, 100).astype(float), rng.integers(0, 4, 100).astype(float))
    # The loss is that of the head, before frozen features are blended in.
    alone = {"strength": 1.0, "frozen_share": 0.0} if recipe == "residual" else {}
    settings = Settings.of_recipe(
        recipe, epochs=1, batch_size=9, dropout=0.0, learning_rate=1e-12, loss=loss, **alone
    )
    weights = make_loss_weights(votes, "soft")
    trained = train_head(features, rows, rows[:0], settings, loss_weights=weights)
    embeddings = embed(trained.head, features).astype(float)

    def distance(a, b):
        squared = float(((embeddings[a] - embeddings[b]) ** 2).sum())
        return squared if recipe == "residual" else squared**0.5

    def loss_of(near, far):
        return {
            "triplet": max(0.0, near - far + settings.margin),
            "soft-margin": np.log1p(np.exp(near - far)),
            "ratio": (1 / (1 + np.exp(far - near))) ** 2,
        }[loss]

    means = []
    for (a, b, c), n_b, n_c in zip(rows, votes.for_first, votes.for_second, strict=True):
        to_b, to_c = distance(a, b), distance(a, c)
        said = [loss_of(to_b, to_c)] * int(n_b) + [loss_of(to_c, to_b)] * int(n_c)
        means.append(np.mean(said))
    assert trained.history[0].loss == pytest.approx(np.mean(means), rel=1e-3)


@pytest.mark.slow
def test_votes_rescue_what_many_were_wrong_about():
    features = make_features(600)
    rows = draw_rows(0, 400, 4000)
    rng = np.random.default_rng(0)
    n_right = rng.choice([0, 1, 2, 5], len(rows), p=[0.0, 0.1, 0.35, 0.55])
    votes = Votes(n_right.astype(float), 5.0 - n_right)
    settings = dataclasses.replace(SMALL, hidden=64, learning_rate=3e-3)
    test = draw_rows(500, 600, 1000, seed=9)
    accuracies = {
        votes_as: accuracy(
            embed(
                train_head(
                    features,
                    rows,
                    rows[:0],
                    settings,
                    loss_weights=make_loss_weights(votes, votes_as),
                ).head,
                features,
            ),
            test,
        )
        for votes_as in ("majority", "weight", "soft")
    }
    assert accuracies["weight"] > accuracies["majority"]
    assert accuracies["soft"] > accuracies["majority"]
