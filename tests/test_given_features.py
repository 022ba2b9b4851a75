"""Features from files: read or refused, and in the place of a backbone in every command."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tripletkit as tk
from tripletkit.errors import FeatureFileError
from tripletkit.features.given_features import open_features

NAMES = ["a.jpg", "b.png", "sub/c.jpg", "d"]
VALUES = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.fixture
def given(tmp_path):
    return open_features(save(tmp_path / "f.npz", names=np.array(NAMES), features=VALUES))


@pytest.mark.parametrize(
    "columns",
    [
        {"x": VALUES[:, 0], "y": VALUES[:, 1], "z": VALUES[:, 2]},
        {"features": VALUES.tolist()},
        {"rater": ["r"] * 4, "embedding": VALUES.tolist()},
        {"tags": [["t"]] * 4, "vector": VALUES.tolist()},
    ],
    ids=lambda columns: "-".join(columns),
)
def test_forms_of_parquet(tmp_path, columns):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"name": NAMES, **columns}), path)
    np.testing.assert_allclose(open_features(path).values, VALUES, rtol=1e-6)


def test_names_are_found_with_and_without_extension(given):
    found = given.take(["a.jpg", "a", "b", "sub/c", "d.jpg", "d", "e", "c", "a.png"])
    np.testing.assert_array_equal(found[:6], VALUES[[0, 0, 1, 2, 3, 3]])
    assert np.isnan(found[6:]).all()


def test_a_name_that_could_be_two_is_refused(tmp_path):
    path = save(tmp_path / "f.npz", names=np.array(["a.jpg", "a.png"]), features=VALUES[:2])
    given = open_features(path)
    np.testing.assert_array_equal(given.take(["a.png"]), VALUES[[1]])
    with pytest.raises(FeatureFileError, match=r"a could be a.jpg or a.png"):
        given.take(["a"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": VALUES}, "expected the arrays names and features, got features"),
        ({"names": np.array(NAMES)}, "expected the arrays names and features, got names"),
        ({"names": np.array(NAMES), "features": VALUES[:3]}, r"of shape \(4, n_features\)"),
        ({"names": np.array(NAMES), "features": VALUES[:, 0]}, r"got float32 of shape \(4,\)"),
        ({"names": np.array(NAMES), "features": VALUES > 0}, "expected numbers"),
        ({"names": np.arange(4), "features": VALUES}, "expected names as text"),
        ({"names": np.array(list("aabc")), "features": VALUES}, 'distinct names, got "a" twice'),
        ({"names": np.array(NAMES), "features": VALUES * [[1], [np.nan], [1], [1]]}, "b.png has"),
        ({"names": np.array([], str), "features": VALUES[:0]}, "expected features, got none"),
        ({"names": np.array(NAMES, object), "features": VALUES}, "cannot be read"),
    ],
)
def test_files_that_are_wrong_are_refused(tmp_path, arrays, message):
    path = save(tmp_path / "f.npz", **arrays)
    with pytest.raises(FeatureFileError, match=f"f.npz: .*{message}"):
        open_features(path)


def test_other_files_are_refused(tmp_path):
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "g.parquet")
    for name, message in (
        ("f.txt", r".npz, .npy, .parquet, .csv, .tsv, got '.txt'"),
        ("f.npz", "cannot be read"),
        ("f.parquet", "cannot be read"),
        ("f.csv", "cannot be read"),
        ("g.parquet", "expected a column name, got x"),
    ):
        if name.startswith("f"):
            (tmp_path / name).write_bytes(b"nothing of the kind\0\xff")
        with pytest.raises(FeatureFileError, match=message):
            open_features(tmp_path / name)


def test_an_index_of_pandas_is_no_feature(tmp_path):
    table = pd.DataFrame(VALUES, columns=["f0", "f1", "f2"]).assign(name=NAMES)
    shuffled = table.sample(frac=1, random_state=0)
    shuffled.to_parquet(tmp_path / "s.parquet")
    table.set_index("name").to_parquet(tmp_path / "named.parquet")
    took = pd.to_timedelta(range(4), unit="s")
    table.assign(took=took).to_parquet(tmp_path / "took.parquet")
    shuffled.to_csv(tmp_path / "s.csv")
    table.to_csv(tmp_path / "t.csv", sep=";", index=False)
    table.assign(label=["a"] * 4).to_csv(tmp_path / "l.tsv", sep="\t", index=False)
    for name in ("s.parquet", "named.parquet", "took.parquet", "s.csv", "t.csv", "l.tsv"):
        read = open_features(tmp_path / name)
        np.testing.assert_allclose(read.take(NAMES), VALUES, rtol=1e-6, err_msg=name)
    assert read.notes == ("features are of 3 columns (f0, f1, f2); left out: label.",)


@pytest.mark.parametrize(
    "column",
    [{"label": [0, 1, 0, 1]}, {"index": [2, 0, 3, 1]}, {"score": [0.1, 0.2, 0.3, 0.4]}],
)
def test_a_column_of_another_kind_is_refused(tmp_path, column):
    table = pd.DataFrame(VALUES, columns=["f0", "f1", "f2"]).assign(name=NAMES, **column)
    table.to_parquet(tmp_path / "f.parquet")
    with pytest.raises(FeatureFileError, match=f"got the column {next(iter(column))}, which is"):
        open_features(tmp_path / "f.parquet")
    # Where names have no pattern, a column that counts the rows is still none.
    by_hand = table.rename(columns={"f0": "hue", "f1": "size", "f2": "weight"})
    if "index" in column:
        with pytest.raises(FeatureFileError, match="got the column index"):
            open_features(by_hand)


def test_features_from_memory_are_those_of_a_file(tmp_path, given):
    table = pd.DataFrame(VALUES, columns=["f0", "f1", "f2"])
    np.save(tmp_path / "f.npy", VALUES)
    (tmp_path / "f.txt").write_text("\n".join(NAMES) + "\n")
    written = tmp_path / "written"
    written.mkdir()
    for suffix in (".csv", ".npz", ".parquet"):
        tk.Embeddings(NAMES, VALUES, "l2", [None] * 4).write(written / f"f{suffix}")
    for form in (
        tmp_path / "f.npy",
        str(written / "f.csv"),
        dict(zip(NAMES, VALUES, strict=True)),
        table.assign(name=NAMES),
        table.set_axis(NAMES),
        pd.DataFrame({"image": NAMES, "vector": list(VALUES)}),
        (NAMES, VALUES.astype(np.float64)),
        tk.Embeddings(NAMES, VALUES, "cosine", [None] * len(NAMES)),
        written / "f.npz",
        written / "f.parquet",
        given,
    ):
        opened = open_features(form)
        assert list(opened.names) == NAMES
        np.testing.assert_array_equal(opened.values, VALUES)
    (tmp_path / "f.txt").unlink()
    with pytest.raises(FeatureFileError, match=r"names of its rows in .*f.txt.*there is none"):
        open_features(tmp_path / "f.npy")
    with pytest.raises(FeatureFileError, match=r"vectors of one length, 3 numbers, d has 2"):
        open_features(dict(zip(NAMES, [*VALUES[:3], VALUES[3, :2]], strict=True)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e300, "numbers that float32 can hold, b.png has larger ones"),
        (1e-60, "those of b.png are too small"),
        (np.nan, "finite numbers, b.png has others"),
    ],
)
def test_what_float32_cannot_hold_is_refused(tmp_path, value, message):
    values = VALUES.astype(np.float64)
    values[1] = value
    with pytest.raises(FeatureFileError, match=message):
        open_features(save(tmp_path / "f.npz", names=np.array(NAMES), features=values))
    table = pd.DataFrame(values, columns=["f0", "f1", "f2"]).assign(name=NAMES)
    table.to_csv(tmp_path / "f.csv", index=False)
    with pytest.raises(FeatureFileError, match=message):
        open_features(tmp_path / "f.csv")


@pytest.fixture
def run(tripletkit):
    return lambda *words, code=0: tripletkit(*words, code=code)


@pytest.fixture
def vectors(run, tiny_backbone, toy_competition, tmp_path):
    path = tmp_path / "f.npz"
    run("embed", toy_competition.images, "-o", path, "--backbone", "tiny")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("with_images", [True, False])
def test_given_features_answer_as_the_backbone_that_made_them(
    run, vectors, toy_competition, tmp_path, with_images
):
    data = toy_competition
    folder = [data.images] if with_images else []
    train = ["train", data.train, "--epochs", 4, "--seed", 1]
    run(*train, data.images, "-o", tmp_path / "own", "--backbone", "tiny")
    run(*train, *folder, "-o", tmp_path / "given", "--features", vectors)
    own = run("predict", data.test, "--model", tmp_path / "own").stdout
    asked = ["predict", data.test, "--model", tmp_path / "given"]
    assert run(*asked, "--features", vectors).stdout == own
    record = json.loads((tmp_path / "given" / "model.json").read_text())
    assert record["features"] == {"backbone": "given", "n_features": 24}
    assert (record["images"] is not None) == with_images
    message = run(*asked, code=1).stderr
    assert "Give it as --features" in message


def test_every_command_takes_given_features(run, vectors, toy_competition, labels_file, tmp_path):
    data, model = toy_competition, tmp_path / "m"
    given = ("--features", vectors)
    run("train", data.train, "-o", model, "--epochs", 2, *given)
    run("embed", "-o", tmp_path / "e.npz", "--model", model, *given)
    run("embed", data.images, "-o", tmp_path / "e2.npz", "--model", model, *given)
    with np.load(tmp_path / "e.npz") as one, np.load(tmp_path / "e2.npz") as two:
        assert one["vectors"].shape == (60, 10)
        np.testing.assert_array_equal(one["vectors"], two["vectors"])
    run("classify", labels_file, "--model", model, *given)
    run("mine", "--triplets", data.train, data.images, "-o", tmp_path / "m.csv", *given)
    run("mine", labels_file, data.images, "-o", tmp_path / "m2.csv", "--model", model, *given)
    report = ["report", model, "-o", tmp_path / "r.html", "--triplets", data.test, *given]
    assert "expected a folder of images to show" in run(*report, code=2).stderr
    run(*report, "--images", data.images)


@pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")
def test_a_model_of_given_features_alone_from_python(vectors, toy_competition):
    """No image says what is the same: the names do."""
    model = tk.train(toy_competition.train, features=vectors, epochs=1, refit=False)
    assert "backbone none, features were given" in repr(model)
    assert "<img" not in model._repr_html_()
    known = model.embed()
    assert set(known.contents) == {None}
    # What stands in the file, as an array whose rows are named.
    array = np.load(vectors)
    asked = tk.read_judgements(toy_competition.train).triplets
    settings = {"names": list(array["names"]), "epochs": 1, "refit": False}
    same = tk.train(asked, features=array["vectors"], **settings)
    np.testing.assert_array_equal(same.embed().vectors, known.vectors)
    with pytest.raises(tk.SettingsError, match="needs `names`"):
        tk.train(asked, features=array["vectors"])
    found = model.neighbors(known, k=2).to_frame()
    assert len(found) == 2 * len(known)
    assert (found["query"] != found["name"]).all()


def test_what_does_not_go_with_given_features_is_refused(run, vectors, toy_competition, tmp_path):
    data = toy_competition
    train = ["train", data.train, data.images, "-o", tmp_path / "m", "--features", vectors]
    for extra in (["--backbone", "cnn"], ["--depth", "early"], ["--views", "flip"]):
        assert run(*train, *extra, code=2)
    assert "Missing argument 'IMAGES'" in run("train", data.train, code=2).stderr
    triplets = tmp_path / "t.txt"
    triplets.write_text("p00.png p01.png nowhere.png\n" * 3)
    result = run("train", triplets, "-o", tmp_path / "m", "--features", vectors, code=1)
    assert "nowhere.png: has no features in" in result.stderr


@pytest.mark.slow
def test_vectors_of_another_width_are_refused(run, vectors, toy_competition, tmp_path):
    data, model = toy_competition, tmp_path / "m"
    run("train", data.train, "-o", model, "--epochs", 1, "--features", vectors)
    other = save(tmp_path / "o.npz", names=np.array(["p00.png"]), features=VALUES[:1])
    result = run("predict", data.test, "--model", model, "--features", other, code=1)
    assert "expected vectors of 24 numbers, as the model was trained on, got 3" in result.stderr
