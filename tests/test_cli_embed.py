"""`tripletkit embed`: the file read back by those who would read it."""

import numpy as np
import pandas as pd
import pytest

import tripletkit as tk

NAMES = [f"{colour}{number}.png" for colour in ("blue", "red") for number in range(4)]
HOSTILE = ['a "b".png', "<i>&.png", " leading", "寿司,1.png"]


@pytest.fixture
def run(tripletkit, tiny_backbone, toy_images):
    def invoke(*arguments, images=toy_images, **extra):
        return tripletkit("embed", images, "--backbone", "tiny", *arguments, **extra)

    return invoke


def read(path):
    """Return names and vectors of any of the three formats."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file["names"].tolist(), file["vectors"]
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        return table["name"].tolist(), np.stack(table["vector"])
    table = pd.read_csv(path, dtype={"name": str})
    return table["name"].tolist(), table.drop(columns="name").to_numpy(np.float32)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz", ".NPZ"])
def test_writes_names_and_features_by_suffix(run, tmp_path, suffix, tiny_backbone):
    path = tmp_path / f"features{suffix}"
    result = run("-o", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Wrote features of 8 images" in result.stderr
    names, vectors = read(path.rename(path.with_suffix(suffix.lower())))
    assert names == NAMES
    assert vectors.shape == (8, tiny_backbone.n_features)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_vectors_read_back_the_same(tmp_path, suffix):
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    tk.Embeddings(HOSTILE, vectors, "l2", [None] * 4).write(tmp_path / f"v{suffix}")
    names, got = read(tmp_path / f"v{suffix}")
    assert names == HOSTILE
    np.testing.assert_array_equal(got, vectors)


def test_a_bad_output_is_refused_before_any_work(run, tmp_path):
    for output, message in [
        ("embeddings.txt", "expected a name that ends in .parquet, .csv, .npz, got '.txt'"),
        ("embeddings", "got 'no suffix'"),
        ("none/embeddings.csv", "does not exist"),
    ]:
        result = run("-o", tmp_path / output, code=1)
        assert message in result.stderr
        assert "Features" not in result.stderr
    assert list(tmp_path.iterdir()) == []
