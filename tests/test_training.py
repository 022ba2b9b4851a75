"""Training of a head: learns, repeats itself bit by bit, and says when it failed."""

from __future__ import annotations

import dataclasses
import gc
import warnings

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from plain import triplet_margins

import tripletkit as tk
from tripletkit import TripletkitError, defaults
from tripletkit.data.labels import ImageLabels
from tripletkit.data.triplets import Votes, make_loss_weights
from tripletkit.errors import DataWarning
from tripletkit.evaluation.validation import warn_of_features
from tripletkit.model.head_layers import Scaling, embed
from tripletkit.model.settings import Settings, _choose_epochs
from tripletkit.training import head_trainer
from tripletkit.training.trainer import (
    Examples,
    _effective_rank,
    _mean_pairwise_distance,
    check_collapse,
    make_trainer,
)

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
    with pytest.raises(TripletkitError, match="embeddings are not numbers"):
        check_collapse(good * np.nan, 0.1, settings)
    alike = np.ones((3, 3), np.float32)
    with pytest.raises(TripletkitError, match=r"stuck at the margin \(0\.2000, margin 0\.2"):
        check_collapse(alike, 0.2, settings)
    with pytest.raises(TripletkitError, match="semi-hard` is gentler"):
        check_collapse(alike, 0.2, dataclasses.replace(settings, mining="batch-hard"))


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
    head = head_trainer.build_body(N_FEATURES, SMALL)
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
    process, after = psutil.Process(), []
    before = process.memory_info().rss

    def look(_):
        after.append(process.memory_info().rss)

    train_head(features, rows, rows[:200_000], settings, on_epoch=look)
    assert after[0] - before < 400e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "recipe"),
    [("triplet", "mlp"), ("soft-margin", "mlp"), ("ratio", "mlp"), ("triplet", "residual")],
)
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


LABELS = ImageLabels([str(label) for label in range(4)], np.arange(40, dtype=np.int32) % 4)


@pytest.fixture
def nothing_idle(monkeypatch):
    monkeypatch.setattr(head_trainer, "_idle", type(head_trainer._idle)())


def draw_few(seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    rows = np.stack([rng.permutation(40)[:3] for _ in range(60)]).astype(np.int32)
    return features, rows


def make_training(features, rows, settings):
    examples = Examples(features, rows, labels=LABELS)
    return head_trainer._make_training(examples, np.arange(len(rows)), settings)


def train_few(seed, **settings):
    features, rows = draw_few(seed)
    given = Settings(hidden=16, dim=3, seed=seed, batch_size=16, **settings)
    training = make_training(features, rows, given)
    found = [training.run_epoch() for _ in range(2)]
    return found, embed(training.finish(training.weights()), features)


WAYS = [{}, {"loss": "center"}, {"loss": "triplet+cross-entropy"}, {"mining": "batch-hard"}]


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_idle")
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_training_on_reused_steps_is_the_same_bit_for_bit(way):
    losses, embeddings = train_few(1, **way)
    head_trainer._idle.clear()
    train_few(0, **way)
    assert sum(map(len, head_trainer._idle.values())) == 1
    again, embedded = train_few(1, **way)
    assert sum(map(len, head_trainer._idle.values())) == 1
    assert np.array_equal(again, losses)
    assert np.array_equal(embedded, embeddings)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_idle")
def test_two_trainings_at_once_do_not_share(monkeypatch):
    features, rows = draw_few(0)
    settings = Settings(hidden=8, dim=3, batch_size=16)
    one, other = (make_training(features, rows, settings) for _ in range(2))
    one.run_epoch()
    before = other.embed()
    one.run_epoch()
    assert np.array_equal(other.embed(), before)
    assert not np.array_equal(one.embed(), before)
    del one, other
    gc.collect()
    assert sum(map(len, head_trainer._idle.values())) == 2


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
def test_a_setting_decides_a_step_or_is_not_in_its_form(name):
    usual = Settings()
    value = getattr(usual, name)
    other = {"recipe": "residual", "loss": "center", "mining": "batch-hard", "distance": "l1"}
    other |= {"reduction": "active"}
    if name not in other:
        other[name] = not value if isinstance(value, bool) else value + 1
    changed = dataclasses.replace(usual, **{name: other[name]})
    is_same = head_trainer._form_of(changed) == head_trainer._form_of(usual)
    assert is_same == (name in head_trainer._OUTSIDE_STEPS)
    if name == "dim":
        wide, narrow = (Settings.of_recipe("residual", dim=dim) for dim in (8, 4))
        assert head_trainer._form_of(wide) == head_trainer._form_of(narrow)


def run_steps(optimizer, n_steps):
    """Return two variables after some steps with seeded gradients, in a compiled function."""
    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(rng.normal(size=shape), dtype="float32") for shape in ((5, 3), (3,))
    ]
    optimizer.build(variables)
    step = tf.function(lambda gradients: optimizer.apply(gradients, variables))
    for _ in range(n_steps):
        step([tf.constant(rng.normal(size=v.shape), dtype=tf.float32) for v in variables])
    return [variable.numpy() for variable in variables]


@pytest.mark.slow
@pytest.mark.parametrize("n_steps", [1, 50])
def test_fused_adam_equals_adam(n_steps):
    fused = run_steps(head_trainer.FusedAdam(0.01), n_steps)
    plain = run_steps(keras.optimizers.Adam(0.01), n_steps)
    start = run_steps(head_trainer.FusedAdam(0.01), 0)
    for ours, theirs, before in zip(fused, plain, start, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert not np.allclose(ours, before)
