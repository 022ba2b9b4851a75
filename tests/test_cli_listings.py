"""Lists: backbones, with what could be used right now, and losses with their papers."""

import json

import pytest

import tripletkit as tk


@pytest.fixture(autouse=True)
def keras_home(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path


@pytest.fixture
def listed(tripletkit):
    def listed():
        result = tripletkit("backbones", "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        return {row["name"]: row for row in json.loads(result.stdout)["backbones"]}

    return listed


@pytest.mark.weights
def test_backbones_lists_all_with_what_is_ready(tripletkit, listed):
    rows = listed()
    assert list(rows) == list(tk.list_backbones().facts)
    # Lite1's package is not among those that are installed with tripletkit, but may be there.
    ready = {name for name, row in rows.items() if row["ready"]} - {"efficientnet-lite1"}
    assert ready == {"efficientnet-lite0", "efficientnet-lite2", "cnn"}
    assert rows["cnn"]["weights"] == "none, trained from scratch"
    assert rows["resnet50"]["weights"] == "Keras, 95 MB download"
    result = tripletkit("backbones")
    table = [line.split() for line in result.stdout.splitlines()]
    assert table[0] == ["name", "ready", "features", "input", "weights", "licence"]
    assert table[1][:4] == ["resnet50", "no", "2,048", "224"]
    assert table[2][:4] == ["efficientnet-lite0", "yes", "1,280", "224"]
    for name, row in rows.items():
        assert f"{name}: {row['paper']}" in result.stdout


def test_backbones_does_not_call_a_broken_file_ready(listed, keras_home, monkeypatch):
    path = keras_home / "models" / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    path.write_bytes(b"half")
    assert not listed()["resnet50"]["ready"]
    monkeypatch.setattr("tripletkit.features.backbones.KerasDownload.is_ready", lambda _: True)
    assert listed()["resnet50"]["ready"]


def test_backbones_names_encoders_of_the_hub(tripletkit):
    result = tripletkit("backbones")
    of_hub = json.loads(tripletkit("backbones", "--json").stdout)["hub"]
    assert len(of_hub) == 12
    for row in of_hub:
        for key in ("encoder", "backbone", "size", "licence"):
            assert row[key] in result.stdout
        assert row["size_page"].startswith("https://")
