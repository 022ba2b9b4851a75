"""Parts of an ensemble: gradients, what they learn, their choice by held-out answers, and one head
of several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plain import triplet_margins, unit_vectors

from tripletkit import TripletkitError
from tripletkit.model.head_layers import (
    NumpyHead,
    Scaling,
    TrainedPart,
    embed,
    join_parts,
    write_head,
)
from tripletkit.model.recipes import PART_HEADS, Part
from tripletkit.model.settings import Settings
from tripletkit.training import part_training, parts_trainer
from tripletkit.training.held_out import answer_held_out, score_held_out
from tripletkit.training.part_training import (
    MLP_PART,
    RESIDUAL_PART,
    MapSettings,
    PartFeatures,
    _HeadProblem,
    _MapProblem,
    embed_part,
    train_map,
    train_part,
)
from tripletkit.training.parts_trainer import (
    PartsTrainer,
    SimplestTrainer,
    _choose_parts,
    _choose_steps,
    _list_owners,
)
from tripletkit.training.trainer import Examples

N_IMAGES = 40
SMALL = {"hidden": 7, "dropout": 0.0, "input_dropout": 0.0, "variants": (60,)}
SMALL |= {"batch_size": 64, "learning_rate": 0.01}
RESIDUAL, MLP = replace(RESIDUAL_PART, **SMALL), replace(MLP_PART, n_dims=5, **SMALL)


def make_triplets(scale=1.0, center=0.0):
    """Images whose first two numbers alone tell who is nearer, among twelve."""
    rng = np.random.default_rng(0)
    features = (center + scale * rng.normal(size=(N_IMAGES, 12))).astype(np.float32)
    rows = np.array([rng.permutation(N_IMAGES)[:3] for _ in range(400)])
    is_right = triplet_margins(features[:, :2], rows, "l2") > 0
    return features, np.where(is_right[:, None], rows, rows[:, [0, 2, 1]])


def as_they_are(features, n_directions=12):
    """Features that are not standardised, of which training sees the first few."""
    scaling = Scaling(np.zeros(12), np.ones(12))
    return PartFeatures(scaling, features, np.eye(12, n_directions, dtype=np.float32))


def at_length_1(features, n_directions=12):
    """Features as a map sees them."""
    return PartFeatures.of(features, np.arange(N_IMAGES), n_directions, is_standardised=False)


def share_right(embeddings, rows):
    return float(np.mean(triplet_margins(embeddings, rows, "cosine") > 0))


def hinge(features, rows, weights, settings):
    """The mean hinge of a head, by the definition, in float64."""
    kernel, bias, last, last_bias = (values.astype(np.float64) for values in weights)
    step = np.maximum(features @ kernel + bias, 0) @ last + last_bias
    embeddings = unit_vectors(features + step if settings.head == "residual" else step)
    distance = "squared-l2" if settings.is_squared else "l2"
    margins = triplet_margins(embeddings, rows, distance)
    return float(np.maximum(settings.margin - margins, 0).mean())


@pytest.mark.parametrize("settings", [RESIDUAL, MLP, replace(MLP, is_squared=True)])
def test_gradients_of_a_head_are_those_of_the_loss(settings):
    features, rows = make_triplets()
    rng = np.random.default_rng(1)
    head = _HeadProblem(as_they_are(features), rows, settings, rng)
    for values in head.learned:
        values += 0.3 * rng.normal(size=values.shape).astype(np.float32)
    # A head may see components at another scale than they have.
    seen = head.components.astype(np.float64)
    for number, gradient in enumerate(head.gradients(np.arange(len(rows)))):
        for place in list(np.ndindex(gradient.shape))[:: max(1, gradient.size // 7)]:
            ends = []
            for step in (1e-3, -1e-3):
                moved = [values.astype(np.float64) for values in head.weights]
                moved[number][place] += step
                ends.append(hinge(seen, rows, moved, settings))
            slope = (ends[0] - ends[1]) / 2e-3
            assert gradient[place] == pytest.approx(slope, abs=2e-3, rel=0.02)


@pytest.mark.parametrize("takes_all", [True, False])
@pytest.mark.parametrize("has_votes", [True, False])
@pytest.mark.parametrize("loss", MapSettings().variants)
def test_the_gradient_of_a_map_is_that_of_the_loss(loss, has_votes, takes_all, monkeypatch):
    monkeypatch.setattr(part_training, "_GATHERED_PAIRS", 1000 if takes_all else 0)
    features, rows = make_triplets(center=5)
    votes = np.random.default_rng(1).uniform(size=(len(rows), 2)) if has_votes else None
    seen = at_length_1(features, 7)
    problem, settings = _MapProblem(seen, rows, votes), MapSettings()
    rng = np.random.default_rng(2)
    at = np.eye(7).ravel() + 0.2 * rng.normal(size=49)
    value, gradient = problem.loss(at, loss, settings)
    # The value by its definition.
    embeddings = unit_vectors(
        seen.scaled + seen.reduced @ (at.reshape(7, 7) - np.eye(7)) @ seen.directions.T
    ).astype(np.float64)
    anchor, positive, negative = (embeddings[column] for column in rows.T)
    margins = np.sum(anchor * (positive - negative), axis=1) / problem.unit

    def miss(margins):
        if loss == "hinge":
            return np.maximum(1 - margins / settings.margin, 0)
        return np.log1p(np.exp(-margins / settings.temperature))

    each = miss(margins) if votes is None else votes[:, 0] * miss(margins)
    each = each if votes is None else each + votes[:, 1] * miss(-margins)
    held = settings.hold * np.sum((at - np.eye(7).ravel()) ** 2)
    assert value == pytest.approx(each.mean() + held, rel=1e-4)
    # The slope by finite differences, along directions of chance.
    for _ in range(5):
        along = rng.normal(size=49)
        ends = [problem.loss(at + step * along, loss, settings)[0] for step in (1e-6, -1e-6)]
        assert gradient @ along == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("settings", [RESIDUAL, MLP])
def test_a_head_answers_new_triplets_better_than_the_features(settings):
    features, rows = make_triplets()
    (weights,) = train_part(as_they_are(features), rows[:300], settings, seed=0)
    embeddings = embed_part(features, weights, settings.head)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    assert share_right(embeddings, rows[300:]) > share_right(features, rows[300:]) + 0.1


@pytest.mark.parametrize("scale", [1.0, 0.02], ids=["wide", "narrow"])
def test_a_map_answers_new_triplets_better_however_small_the_margins_are(scale):
    features, rows = make_triplets(scale, center=5)
    for weights in train_map(at_length_1(features), rows[:300], MapSettings()):
        embeddings = embed_part(unit_vectors(features), weights, "map")
        assert share_right(embeddings, rows[300:]) > share_right(features, rows[300:]) + 0.1


def test_a_residual_head_and_a_map_that_is_held_firmly_are_the_features():
    features, rows = make_triplets()
    (weights,) = train_part(as_they_are(features), rows, replace(RESIDUAL, variants=(0,)), 0)
    embeddings = embed_part(features, weights, "residual")
    np.testing.assert_allclose(embeddings, unit_vectors(features), atol=1e-6)
    held = MapSettings(("hinge",), hold=1e6)
    ((directions, step),) = train_map(at_length_1(features), rows, held)
    np.testing.assert_allclose(directions @ step, 0, atol=1e-4)


def test_votes_against_a_triplet_turn_what_is_learned():
    features, rows = make_triplets()
    as_it_stands = np.tile([1.0, 0.0], (400, 1))
    seen, scaled = at_length_1(features), as_they_are(features)
    learned = (
        [
            *train_part(scaled, given, RESIDUAL, 0, loss_weights=votes)[0],
            train_map(seen, given, MapSettings(("logistic",)), votes)[0][1],
        ]
        for given, votes in ((rows, as_it_stands), (rows[:, [0, 2, 1]], 1 - as_it_stands))
    )
    for one, other in zip(*learned, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_features_that_are_no_numbers_are_told():
    features, rows = make_triplets()
    seen = at_length_1(features)
    features[rows[0, 0]] = seen.scaled[rows[0, 0]] = np.inf
    with np.errstate(all="ignore"):
        with pytest.raises(TripletkitError, match="no longer finite"):
            train_part(as_they_are(features), rows, RESIDUAL, 0)
        with pytest.raises(TripletkitError, match="finite features"):
            train_map(seen, rows, MapSettings())


@pytest.mark.parametrize("settings", [RESIDUAL, MLP])
def test_a_head_does_not_move_what_training_does_not_see(settings):
    features, rows = make_triplets()
    ((kernel, _, last, _),) = train_part(as_they_are(features, 2), rows, settings, 0)
    assert kernel.shape == (12, 7)
    assert np.any(kernel[:2])
    assert not kernel[2:].any()
    if settings.head == "residual":
        assert np.any(last[:, :2])
        assert not last[:, 2:].any()


@pytest.mark.parametrize("n_images", [8, 40])
def test_directions_are_those_of_the_training_images_alone(n_images):
    features, _ = make_triplets()
    trained = np.arange(n_images)
    one = PartFeatures.of(features, trained, 5)
    features[n_images:] *= -3
    other = PartFeatures.of(features, trained, 5)
    assert np.array_equal(one.directions, other.directions)
    assert one.directions.T @ one.directions == pytest.approx(np.eye(5), abs=1e-4)
    # The leading ones: no other five hold more of the training images.
    squares = np.linalg.svd(one.scaled[trained], compute_uv=False)[:5] ** 2
    assert np.square(one.reduced[trained]).sum() == pytest.approx(squares.sum(), rel=1e-3)


def test_images_that_are_all_the_same_have_directions_and_maps_too():
    features, rows = np.ones((N_IMAGES, 4), np.float32), make_triplets()[1]
    assert PartFeatures.of(features, np.arange(6), 3).reduced.shape == (N_IMAGES, 3)
    for weights in train_map(at_length_1(features), rows, MapSettings()):
        assert np.isfinite(weights[1]).all()


N_FEATURES, N_COLUMNS = 20, 8
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(30, N_FEATURES)).astype(np.float32)
SCALING = Scaling.of(unit_vectors(FEATURES[:, 4 : 4 + N_COLUMNS]))


def make_part(head, weight, *shapes):
    weights = [RNG.normal(size=shape).astype(np.float32) for shape in shapes]
    n_dims = 5 if head == "mlp" else N_COLUMNS
    part = Part("net", 4, 4 + N_COLUMNS, head, 3 if weights else 0, n_dims, weight)
    return TrainedPart(part, weights, None if head in ("cosine", "map") else SCALING)


PARTS = [
    make_part("frozen", 0.1),
    make_part("cosine", 0.2),
    make_part("map", 0.3, (N_COLUMNS, 3), (3, N_COLUMNS)),
    make_part("residual", 0.15, (N_COLUMNS, 3), (3,), (3, N_COLUMNS), (N_COLUMNS,)),
    make_part("mlp", 0.25, (N_COLUMNS, 3), (3,), (3, 5), (5,)),
]


def embed_by_definition(trained):
    unit = unit_vectors(FEATURES[:, 4 : 4 + N_COLUMNS])
    seen = unit if trained.scaling is None else trained.scaling.apply(unit)
    if trained.part.head == "map":
        directions, step = trained.weights
        return unit_vectors(seen + seen @ directions @ step)
    if trained.weights:
        kernel, bias, last, last_bias = trained.weights
        step = np.maximum(seen @ kernel + bias, 0) @ last + last_bias
        return unit_vectors(step if trained.part.head == "mlp" else seen + step)
    return unit_vectors(seen)


def squared_distances(embeddings):
    return np.square(embeddings[:15] - embeddings[15:]).sum(axis=1)


@pytest.mark.parametrize("parts", [PARTS, PARTS[2:3]], ids=["several", "one"])
def test_squared_distances_are_the_weighed_ones_of_the_parts(parts):
    total = sum(part.part.weight for part in parts)
    expected = sum(
        part.part.weight * squared_distances(embed_by_definition(part)) for part in parts
    )
    embeddings = embed(join_parts(N_FEATURES, parts), FEATURES)
    np.testing.assert_allclose(squared_distances(embeddings), expected, rtol=1e-4)
    np.testing.assert_allclose(np.square(embeddings).sum(axis=1), total, rtol=1e-5)


def test_a_file_and_keras_give_the_same_embeddings(tmp_path):
    kernel, bias = RNG.normal(size=(37, 4)), RNG.normal(size=4)
    whole = join_parts(N_FEATURES, PARTS)
    head = whole.compressed(kernel, bias)
    embeddings = embed(head, FEATURES)
    compressed = unit_vectors(embed(whole, FEATURES) @ kernel + bias)
    np.testing.assert_allclose(embeddings, compressed, atol=1e-5)
    write_head(head, tmp_path / "head.weights.h5")
    from_file = NumpyHead.read(tmp_path / "head.weights.h5")
    np.testing.assert_array_equal(embed(from_file, FEATURES), embeddings)
    assert from_file.count_params() == head.count_params() > kernel.size
    np.testing.assert_allclose(embed(from_file.to_keras(), FEATURES), embeddings, atol=1e-5)


def make_margins(n, strengths, seed=0):
    """Margins of independent parts, each right the oftener the stronger it is, and their images."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(size=(len(strengths), n)) + np.array(strengths)[:, None]
    return margins, rng.integers(0, n, (n, 3))


def test_stronger_parts_weigh_more_useless_ones_nothing_and_few_images_leave_them_alike():
    margins, images = make_margins(4000, [1.0, 0.5, -0.5])
    choice = _choose_parts(margins, images)
    assert choice.weights[0] > choice.weights[1] > choice.weights[2]
    assert choice.weights[2] == pytest.approx(0, abs=0.01)
    assert choice.weights.sum() == pytest.approx(1)
    few = _choose_parts(margins, images % 5)
    assert np.ptp(few.weights) < np.ptp(choice.weights)
    # Parts that are all wrong are weighed alike.
    assert _choose_parts(-np.ones((2, 50)), images[:50]).weights.tolist() == [0.5, 0.5]


def test_the_scale_of_a_part_does_not_matter_and_one_that_says_nothing_does_no_harm():
    margins, images = make_margins(500, [1.0, 0.5])
    scaled = margins * np.array([[1.0], [100.0]])
    plain, other = _choose_parts(margins, images), _choose_parts(scaled, images)
    assert other.weights == pytest.approx(plain.weights, abs=1e-3)
    assert other.distance_weights[1] == pytest.approx(
        plain.distance_weights[1] / 100 / (plain.distance_weights @ [1, 0.01]), rel=0.02
    )
    with_nothing = np.vstack([margins[0], np.zeros(500)])
    choice = _choose_parts(with_nothing, images)
    assert np.isfinite(choice.distance_weights).all()
    assert np.array_equal(choice.margins(with_nothing) > 0, margins[0] > 0)


def test_the_ensemble_is_better_than_its_best_part_on_other_triplets():
    choice = _choose_parts(*make_margins(2000, [0.8, 0.7, 0.6]))
    others, _ = make_margins(5000, [0.8, 0.7, 0.6], seed=9)
    right = np.mean(choice.margins(others) > 0)
    assert right > np.mean(others > 0, axis=1).max() + 0.03


def test_steps_are_those_that_answer_most_images_count_alike_the_fewest_of_equals():
    margins, images = make_margins(400, [0.2, 0.6, 0.4, 0.1, 0.5])
    owners = np.array([0, 0, 0, 1, 2])
    times = np.bincount(images.ravel())
    right = [
        sum((m > 0) * (1 / times[image]).mean() for m, image in zip(row, images, strict=True))
        for row in margins
    ]
    assert _choose_steps(margins, owners, images).tolist() == [int(np.argmax(right[:3])), 3, 4]
    margins = np.array([[1.0, -1.0, 1.0], [2.0, 3.0, -1.0], [5.0, -5.0, 5.0]])
    images = np.arange(9).reshape(3, 3)
    assert _choose_steps(margins, np.array([0, 0, 0]), images).tolist() == [0]


@pytest.fixture
def short_parts(monkeypatch):
    for name in ("MLP_PART", "RESIDUAL_PART"):
        settings = getattr(parts_trainer, name)
        shorter = {"hidden": 16, "variants": tuple(steps // 10 for steps in settings.variants)}
        monkeypatch.setattr(parts_trainer, name, replace(settings, **shorter))


def make_ensemble(columns, n_images=150, n_triplets=3000):
    """Return a trainer on five kinds of images, of which some features tell."""
    rng = np.random.default_rng(0)
    kinds = np.arange(n_images) % 5
    features = rng.normal(size=(n_images, 24)).astype(np.float32)
    features[:, :5] += 2 * np.eye(5, dtype=np.float32)[kinds]
    rows = rng.integers(0, n_images, (20 * n_triplets, 3))
    is_triplet = (kinds[rows[:, 0]] == kinds[rows[:, 1]]) & (kinds[rows[:, 0]] != kinds[rows[:, 2]])
    rows = rows[is_triplet & (rows[:, 0] != rows[:, 1])][:n_triplets]
    return PartsTrainer(Examples(features, rows, columns=columns), Settings.of_recipe("best"))


@pytest.mark.slow
@pytest.mark.usefixtures("short_parts")
def test_each_candidate_is_left_with_the_steps_that_were_best():
    trainer = make_ensemble({"net": slice(0, 24), "half": slice(0, 12)})
    held_out = answer_held_out(trainer, budget_s=1)
    chosen = trainer.choose(held_out)
    candidates = chosen.trainer.candidates
    assert [each.name for each in candidates] == [each.name for each in trainer.candidates]
    assert [each.n_tried for each in candidates] == [1] * 7
    pooled = score_held_out(held_out, chosen)
    assert pooled.trained.accuracy > 0.6
    steps_of = {each.name: each.settings and each.settings.variants[0] for each in candidates}
    fitted = chosen.trainer.fit()
    assert all(part.n_steps in (0, steps_of[part.name]) for part in fitted.parts)
    assert fitted.history[0].val_accuracy == pytest.approx(pooled.trained.accuracy)


def test_a_short_embedding_of_all_features_is_beside_those_of_each_block():
    trainer = make_ensemble({"net": slice(0, 12), "net:a": slice(12, 18), "net:b": slice(18, 24)})
    *of_blocks, last = trainer.candidates
    assert [each.name for each in of_blocks] == [
        f"net{depth}, {head}" for depth in ("", " early") for head in PART_HEADS
    ]
    assert (last.name, last.columns) == ("all features, mlp", slice(0, 24))


@pytest.mark.usefixtures("short_parts")
def test_margins_have_a_row_for_each_number_of_steps():
    trainer = make_ensemble({"net": slice(0, 24)})
    features, rows = trainer.examples.features, trainer.examples.rows
    assert [each.head for each in trainer.candidates] == list(PART_HEADS)
    assert _list_owners(trainer.candidates).tolist() == [0, 1, 1, 2, 2, 2]
    margins = trainer.answer(np.arange(600), rows[600:], 3)
    # Frozen features need no training, and fewer steps are those of a shorter training.
    frozen = triplet_margins(unit_vectors(features), rows[600:], "squared-l2")
    assert np.corrcoef(margins[0], frozen)[0, 1] > 0.8
    one_each = [each.after(0) for each in trainer.candidates]
    shorter = PartsTrainer(trainer.examples, trainer.settings, one_each)
    alone = shorter.answer(np.arange(600), rows[600:], 3)
    np.testing.assert_array_equal(alone, margins[[0, 1, 3]])
    assert not np.array_equal(margins[3], margins[5])


@pytest.mark.usefixtures("short_parts")
def test_without_draws_parts_weigh_alike_and_the_curve_is_of_one_that_is_trained():
    trainer = make_ensemble({"net": slice(0, 24)})
    shifted = replace(trainer.examples, features=trainer.examples.features + 5)
    chosen = PartsTrainer(shifted, trainer.settings).choose(None)
    assert chosen.margins is None
    assert chosen.trainer.weights.weights == pytest.approx([1 / 3] * 3)
    # Margins of features that are not standardised are smaller, and weigh as much.
    of_raw, of_scaled = chosen.trainer.weights.distance_weights[[0, 2]]
    assert of_raw > of_scaled
    (strongest,) = chosen.trainer.for_curve().candidates
    assert strongest.settings is not None


def make_simplest(n_triplets, seed=0, is_coin=False):
    """Return a trainer of frozen features and a map, on triplets that two numbers of ten tell."""
    rng = np.random.default_rng(seed)
    features = (4 + rng.normal(size=(120, 10))).astype(np.float32)
    rows = np.array([rng.permutation(120)[:3] for _ in range(n_triplets)])
    is_right = triplet_margins(features[:, :2], rows, "l2") > 0
    if is_coin:
        is_right = rng.random(n_triplets) < 0.5
    rows = np.where(is_right[:, None], rows, rows[:, [0, 2, 1]])
    examples, settings = Examples(features, rows), Settings.of_recipe("auto")
    return SimplestTrainer(examples, settings, ["frozen", "map"])


@pytest.mark.parametrize(("n_triplets", "taken"), [(120, "frozen"), (3000, "map")])
def test_the_simplest_that_cannot_be_told_from_the_best_is_taken(n_triplets, taken):
    trainer = make_simplest(n_triplets)
    held_out = answer_held_out(trainer)
    chosen = trainer.choose(held_out)
    pooled = score_held_out(held_out, chosen)
    assert [worth.name for worth in pooled.recipes if worth.is_taken] == [taken]
    assert min(worth.behind for worth in pooled.recipes) == 0
    head = "map" if taken == "map" else "cosine"
    assert [part.head for part in chosen.trainer.fit().parts] == [head]
    assert f"Taken: {taken}, the simplest" in str(pooled)


def test_without_draws_the_map_of_all_kinds_of_heads_is_taken():
    trainer = make_simplest(60)
    assert [part.head for part in trainer.choose(None).trainer.fit().parts] == ["map"]
    whole = SimplestTrainer(trainer.examples, Settings.of_recipe("auto"))
    assert list(whole.trainers) == ["frozen", "map", "mlp", "residual"]
    answers = whole.answer(np.arange(40), trainer.examples.rows[40:])
    # A hinge and a logistic map, three numbers of steps of short embeddings.
    assert len(answers) == 1 + 2 + 3 + 1


@pytest.mark.slow
def test_answers_of_a_coin_are_printed_as_such():
    printed = []
    for seed in range(20):
        trainer = make_simplest(400, seed, is_coin=True)
        held_out = answer_held_out(trainer)
        printed.append(score_held_out(held_out, trainer.choose(held_out)).trained.accuracy)
    error = np.std(printed, ddof=1) / np.sqrt(len(printed))
    assert abs(np.mean(printed) - 0.5) < 3 * error


def test_a_map_does_not_move_what_lies_outside_its_directions():
    features, rows = make_triplets(center=5)
    seen = at_length_1(features, 3)
    directions, step = train_map(seen, rows, MapSettings(("hinge",)))[0]
    outside = np.linalg.svd(seen.directions.T)[2][3:]
    np.testing.assert_allclose(outside @ directions, 0, atol=1e-5)
    np.testing.assert_allclose(step @ outside.T, 0, atol=1e-5)
    assert np.abs(step).max() > 0.01


@pytest.mark.usefixtures("short_parts")
def test_of_many_images_a_sample_is_looked_at_and_a_round_is_enough(monkeypatch):
    trainer = make_ensemble({"net": slice(0, 24)}, n_images=60, n_triplets=300)
    few, whole = trainer.n_enough, trainer.choose(None).trainer.fit()
    monkeypatch.setattr(parts_trainer, "_MANY_IMAGES", 60)
    monkeypatch.setattr(parts_trainer, "_MOST_LOOKED_AT", 30)
    again = PartsTrainer(trainer.examples, trainer.settings)
    assert again.n_enough < few
    sampled = again.choose(None).trainer.fit()
    # The same heads; what is said of them is of fewer triplets.
    features = trainer.examples.features
    np.testing.assert_array_equal(*(fitted.head(features) for fitted in (whole, sampled)))
    assert whole.history[0].loss != sampled.history[0].loss
