"""The estimator must do what scikit-learn's tools expect of one: clone, pipelines, grids, checks.

scikit-learn's own checks give a label for each row, so they run on a stand-in that draws triplets
from these. It has no `predict` and `decision_function`, which answer triplets, not features.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from plain import triplet_margins
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import tripletkit as tk
from tripletkit import SettingsError

QUICK = {"hidden": 8, "dim": 3, "epochs": 3}


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """60 feature vectors of which the first two numbers alone count."""
    return np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def triplets(features: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    rows = np.array([rng.choice(len(features), 3, replace=False) for _ in range(1500)])
    nearer = triplet_margins(features[:, :2], rows, "l2") > 0
    return np.where(nearer[:, None], rows, rows[:, [0, 2, 1]])


@pytest.fixture(scope="module")
def fitted(features, triplets) -> tk.TripletEmbedding:
    return tk.TripletEmbedding(epochs=15, dim=4).fit(features, triplets)


@pytest.mark.slow
def test_fit_learns_which_numbers_count(fitted, features, triplets):
    before = np.mean(triplet_margins(features, triplets, "l2") > 0)
    assert fitted.score(features, triplets) > before + 0.1
    assert fitted.embeddings_.shape == (60, 4)
    np.testing.assert_allclose(np.linalg.norm(fitted.embeddings_, axis=1), 1, rtol=1e-5)
    assert len(fitted.history_) == 15


def test_answers_are_the_signs_of_margins(fitted, features, triplets):
    np.testing.assert_array_equal(fitted.transform(features[7:9]), fitted.embeddings_[7:9])
    margins = fitted.decision_function(triplets)
    expected = triplet_margins(fitted.embeddings_, triplets, "l2")
    np.testing.assert_allclose(margins, expected, atol=1e-5)
    np.testing.assert_array_equal(fitted.predict(triplets), margins > 0)
    np.testing.assert_array_equal(fitted.decision_function(triplets[:, [0, 2, 1]]), -margins)
    # Of other images: the same rows under other numbers.
    np.testing.assert_array_equal(fitted.predict(features[::-1], 59 - triplets), margins > 0)
    framed = tk.TripletEmbedding(recipe="map").set_output(transform="pandas")
    assert framed.fit(features, triplets).score(features, triplets) == framed.score(triplets)
    with pytest.raises(tk.TripletkitError, match="triplets to score, got none"):
        framed.score(features, triplets[:0])


def test_a_pipeline_fits_on_features_and_triplets(features, triplets):
    stretched = features * 10 ** np.arange(8.0)
    pipeline = make_pipeline(StandardScaler(), tk.TripletEmbedding(**QUICK))
    pipeline.fit(stretched, triplets)
    assert pipeline.transform(stretched).shape == (60, 3)
    assert list(pipeline.get_feature_names_out()) == [f"tripletembedding{n}" for n in range(3)]
    assert pipeline.score(stretched, triplets) > 0.5


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"loss": "center"}, "loss"),
        ({"recipe": "residual", "distance": "l1"}, "distance"),
        ({"epochs": 0}, "epochs"),
        ({"distance": "l3"}, "distance"),
        ({"dim": -1}, "dim"),
        ({"margin": "a"}, "margin"),
        ({"random_state": -1}, "random_state"),
        ({"recipe": "map", "loss": "ratio"}, "loss"),
    ],
)
def test_parameters_that_do_not_go_together_are_named(features, triplets, parameters, field):
    with pytest.raises(SettingsError) as caught:
        tk.TripletEmbedding(**parameters).fit(features, triplets)
    assert caught.value.field == field


@pytest.mark.slow
def test_a_grid_is_searched_behind_a_scaler(features, triplets):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), tk.TripletEmbedding()),
        {"tripletembedding__dim": np.arange(2, 4)},
        cv=tk.ImageSplit(),
        error_score="raise",
    )
    search.fit(features * 100 + 7, tk.triplets_by_image(triplets, len(features)))
    assert len(search.cv_results_["mean_test_score"]) == 2
    answers = search.best_estimator_.predict(features * 100 + 7, triplets=triplets)
    assert search.score(features * 100 + 7, triplets) == answers.mean() > 0.5


def test_a_part_of_the_images_has_the_triplets_among_them(monkeypatch):
    y = tk.triplets_by_image([[0, 1, 2], [2, 1, 0], [3, 1, 2]], 4)
    # Of 3, 1 and 2 alone is the last; the other two have the image 0.
    vectors, part = np.array([[0.0], [1], [5], [2]]), [3, 2, 1]
    monkeypatch.setattr("tempfile.NamedTemporaryFile", None)  # as where its folder is full
    found = tk.TripletEmbedding(epochs=1, hidden=2, dim=1).fit(vectors[part], y[part])
    assert found.score(vectors[part], y[part]) == found.score([[0, 2, 1]])


@pytest.mark.parametrize("mode", ["rows", "images"])
def test_groups_are_held_out_as_a_whole(features, triplets, mode):
    groups = np.arange(60) // 6
    given = (triplets, None) if mode == "rows" else (features, tk.triplets_by_image(triplets, 60))
    for train, test in tk.ImageSplit(n_splits=3).split(*given, groups):
        sides = (triplets[train], triplets[test]) if mode == "rows" else (train, test)
        assert not np.intersect1d(groups[sides[0]], groups[sides[1]]).size
        assert np.unique(groups[sides[1]]).size == 3
    apart = [tk.ImageSplit().split(*given, each) for each in ([None, *range(59)], [59, *range(59)])]
    assert str(list(apart[0])) == str(list(apart[1]))
    for wrong in (np.arange(1500), groups[:5]):
        with pytest.raises(SettingsError, match="a group for each of 60 images"):
            next(tk.ImageSplit().split(*given, wrong))


def test_the_same_seed_gives_the_same_in_threads(features, triplets):
    def embed(seed):
        model = tk.TripletEmbedding(random_state=seed, dropout=0.3, **QUICK)
        return model.fit(features, triplets[:90]).embeddings_.tobytes()

    alone = [embed(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(embed, [0, 1, 2] * 6)) == alone * 6
    assert embed(np.random.RandomState(2)) not in alone


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda rows: rows + 1, "indices of 60 images, from 0 to 59, got 1 to 60"),
        (lambda rows: rows[:, :2], "shape"),
        (lambda rows: rows.astype(float), "integer triplets"),
        (lambda rows: rows[:0], "triplets to learn from"),
        (lambda rows: rows[:, [0, 1, 1]], "1,500 that name one twice"),
        (lambda rows: None, "requires y to be passed"),
        (lambda rows: tk.Triplets.from_array(rows, range(60)), "integers, the places of images"),
    ],
)
def test_what_are_no_triplets_is_refused(features, triplets, wrong, message):
    rows = np.concatenate([triplets[:-1], [[59, 0, 1]]])
    with pytest.raises(tk.TripletkitError, match=message):
        tk.TripletEmbedding().fit(features, wrong(rows))


class LabelledEmbedding(tk.TripletEmbedding):
    """The estimator, fitted on labels: each row is nearer to one of its label than to another."""

    def fit(self, X, y=None):
        if y is None:
            return super().fit(X, y)
        rng = np.random.default_rng(0)
        labels = np.asarray(y).ravel()
        if len(labels) < 3:
            return super().fit(X, [])
        rows = np.array([rng.choice(len(labels), 3, replace=False) for _ in range(60)])
        turned = labels[rows[:, 0]] == labels[rows[:, 2]]
        return super().fit(X, np.where(turned[:, None], rows[:, [0, 2, 1]], rows))

    def score(self, X, y=None):
        return float(super().transform(X).mean())

    def _of_triplets(self):
        raise AttributeError("answers are to triplets, and scikit-learn's checks give features")

    predict = decision_function = property(_of_triplets)


@pytest.mark.slow
@parametrize_with_checks([LabelledEmbedding(hidden=4, dim=2, epochs=1)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
