"""`tripletkit extract`: many images into a folder of Parquet files, whatever stops it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from tiny_encoders import N_FEATURES, write_encoder

import tripletkit as tk

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
TOP = Path(__file__).parents[1]


@pytest.fixture
def images(toy_competition, tmp_path) -> Path:
    return Path(shutil.copytree(toy_competition.images, tmp_path / "images"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> list[str]:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "plain.onnx")


@pytest.fixture
def run(tripletkit, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("tripletkit.features.extraction.BLOCK_IMAGES", 20)

    def invoke(images, *arguments, to="features", exit_code=0):
        how = [] if "--backbone" in arguments else encoder
        called = ["extract", images, "-o", tmp_path / to, "--json", *how, *arguments]
        result = tripletkit(*called, code=exit_code)
        return json.loads(result.stdout) if exit_code == 0 else result.stderr

    return invoke


def rows_of(folder):
    """Return name -> row of all rows, each name once."""
    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def test_features_are_those_of_embed_and_go_into_every_command(
    run, tripletkit, images, tmp_path, encoder, toy_competition
):
    assert run(images)["n_computed"] == 60
    assert {len(row["vector"]) for row in rows_of(tmp_path / "features").values()} == {N_FEATURES}
    for name, how in (("own", encoder), ("given", ["--features", tmp_path / "features"])):
        called = ["embed", images, "--frozen", *how, "-o", tmp_path / f"{name}.npz"]
        called = called if name == "given" else [word for word in called if word != "--frozen"]
        tripletkit(*called, code=0)
    own, given = (np.load(tmp_path / f"{name}.npz") for name in ("own", "given"))
    assert own["names"].tolist() == given["names"].tolist()
    np.testing.assert_array_equal(own["vectors"], given["vectors"])
    metadata = pq.read_schema(next((tmp_path / "features").glob("*.parquet"))).metadata
    assert json.loads(metadata[b"tripletkit"])["features"]["backbone"] == "onnx"
    model = tk.train(toy_competition.train, features=tmp_path / "features", epochs=1)
    assert len(model.answer(toy_competition.test)) > 0


def test_the_same_command_goes_on_and_notes_what_changed(run, images, tmp_path):
    bad = images / "broken.png"
    bad.write_bytes(b"no image")
    first = run(images)
    assert (first["n_computed"], list(first["problems"])) == (60, ["broken.png"])
    before = rows_of(tmp_path / "features")
    assert before["broken.png"]["vector"] is None
    assert before["broken.png"]["problem"].startswith("expected an image")
    again = run(images)
    assert (again["n_computed"], again["n_stored"]) == (0, 61)
    assert again["problems"] == first["problems"]
    # An image that was touched is as it was; one that holds something else is encoded again.
    later = time.time() + 5
    for name in ("p00.png", "p01.png"):
        os.utime(images / name, (later, later))
    shutil.copyfile(images / "p05.png", images / "p01.png")
    os.utime(images / "p01.png", (later, later))
    assert run(images)["n_computed"] == 1
    after = rows_of(tmp_path / "features")
    assert after["p01.png"]["vector"] == after["p05.png"]["vector"] == before["p05.png"]["vector"]
    assert {n: r for n, r in after.items() if n != "p01.png"} == {
        n: r for n, r in before.items() if n != "p01.png"
    }


def test_shares_and_lists_fill_one_folder(run, images, tmp_path):
    whole = run(images, to="whole")
    names = sorted(path.name for path in images.iterdir())
    (tmp_path / "list.txt").write_text("# all\n" + "".join(f"images/{name}\n" for name in names))
    for number in (2, 1, 3):
        run(images, "--shard", f"{number}/3")
    assert rows_of(tmp_path / "features") == rows_of(tmp_path / "whole")
    assert run(tmp_path / "list.txt", to="listed")["n_computed"] == whole["n_computed"]
    listed = {name.removeprefix("images/") for name in rows_of(tmp_path / "listed")}
    assert listed == set(names)
    assert "from 1/16 to 16/16" in run(images, "--shard", "4/3", exit_code=2)


def test_what_does_not_go_together_is_refused(run, images, tmp_path, encoder):
    run(images)
    other = write_encoder(tmp_path / "other.onnx")
    other[-1] = other[-1].replace("mean=0.5", "mean=0.4")
    assert "holds features of another encoder" in run(images, *other, exit_code=1)
    assert "numbers of another type" in run(images, "--dtype", "float16", exit_code=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "part-of-mine.txt").write_text("mine")
    assert "part-of-mine.txt" in run(images, to="mine", exit_code=1)
    assert "images" in run(images, to="images/features", exit_code=1)
    assert not (images / "features").exists()


def test_half_precision_and_what_it_cannot_hold(run, images, tmp_path):
    run(images, to="whole")
    run(images, "--dtype", "float16", to="half")
    whole, half = rows_of(tmp_path / "whole"), rows_of(tmp_path / "half")
    for name, row in whole.items():
        np.testing.assert_allclose(half[name]["vector"], row["vector"], rtol=1e-3)

    def small(pixels):
        return pixels.mean(axis=(1, 2)) * 1e-9

    tiny = tk.Encoder(small, name="small", version="1", size=32)
    with pytest.raises(tk.TripletkitError, match=r"too small .* take `dtype=float32`"):
        tk.extract(images, tmp_path / "tiny", backbone=tiny, dtype="float16")
    assert tk.extract(images, tmp_path / "tiny", backbone=tiny).n_computed == 60


def test_rows_are_read_by_need_and_damage_is_told(run, images, tmp_path, monkeypatch):
    run(images)
    from tripletkit.features import given_features

    read = []
    original = given_features._read_vectors
    monkeypatch.setattr(
        given_features, "_read_vectors", lambda path: read.append(path) or original(path)
    )
    given = given_features.open_features(tmp_path / "features")
    want = rows_of(tmp_path / "features")
    assert read == []
    found = given.take(["p03.png", "nobody.png", "p02"])
    assert len(read) == 1, "both are in one file"
    np.testing.assert_allclose(found[[0, 2]], [want[n]["vector"] for n in ("p03.png", "p02.png")])
    assert np.isnan(found[1]).all()
    path = read[0]
    content = bytearray(path.read_bytes())
    place = content.find(np.float32(want["p03.png"]["vector"]).tobytes())
    content[place + 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(tk.TripletkitError, match="is damaged") as caught:
        given.take(["p03.png"])
    assert str(path) in str(caught.value)
    path.unlink()
    assert run(images)["n_computed"] == 20
    assert rows_of(tmp_path / "features") == want


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns("vector"),
        lambda table: table.drop_columns("content"),
        lambda table: table.set_column(0, "name", pa.array(range(len(table)))),
        lambda table: table.set_column(2, "vector", pa.array([[0.5]] * len(table))),
        lambda table: table.replace_schema_metadata({b"tripletkit": b"[]"}),
        lambda table: table.replace_schema_metadata(
            {b"tripletkit": table.schema.metadata[b"tripletkit"].replace(b"features", b"others", 1)}
        ),
        lambda table: table.replace_schema_metadata(None),
    ],
)
def test_a_file_that_only_looks_like_ours_is_refused_in_a_line(run, images, tmp_path, change):
    run(images)
    (path, *_) = (tmp_path / "features").glob("part-*")
    pq.write_table(change(pq.read_table(path)), path)
    said = f"{path}: expected a file that `extract` wrote"
    assert said in run(images, exit_code=1)
    with pytest.raises(tk.TripletkitError, match=re.escape(said)):
        tk.pretrained(features=tmp_path / "features")


def test_features_of_another_encoder_are_no_features_of_a_model(
    run, images, tmp_path, encoder, toy_competition
):
    run(images)
    how = dict(zip(("backbone", "preprocess"), encoder[1::2], strict=True))
    model = tk.train(
        toy_competition.train, toy_competition.images, epochs=1, output=tmp_path / "m", **how
    )
    given = tk.load(tmp_path / "m", features=tmp_path / "features").answer(toy_competition.test)
    np.testing.assert_array_equal(given.margins, model.answer(toy_competition.test).margins)
    run(images, "--preprocess", encoder[-1].replace("mean=0.5", "mean=0.3"), to="other")
    with pytest.raises(tk.TripletkitError, match="are of another encoder"):
        tk.load(tmp_path / "m", features=tmp_path / "other")


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_a_kill_loses_a_block_at_most(images, encoder, tmp_path, run):
    for number in range(300):
        shutil.copyfile(images / f"p{number % 60:02}.png", images / f"more{number:03}.png")
    run(images, to="whole")
    code = (
        "from tripletkit import __main__\n"
        "from tripletkit.features import extraction\n"
        "extraction.BLOCK_IMAGES = 20\n"
        "__main__.main()"
    )
    called = ["extract", str(images), "-o", str(tmp_path / "features"), *encoder]
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *called], stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(TOP)},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        n_before = len(list((tmp_path / "features").glob("part-*")))
        while time.monotonic() < deadline and process.poll() is None:
            if len(list((tmp_path / "features").glob("part-*"))) > n_before:
                break
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        rows_of(tmp_path / "features")  # all files are whole
    run(images)
    assert rows_of(tmp_path / "features") == rows_of(tmp_path / "whole")
    assert not list((tmp_path / "features").glob(".unfinished*"))


# Run by every Python process below: notes and refuses whatever leads out of this machine. A UDP
# socket that is only connected sends nothing; Ray finds the machine's own address so.
GUARD = """
import os, socket
own = {"127.0.0.1", "::1", "localhost", ""}
try:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("192.0.2.1", 9))
        own.add(udp.getsockname()[0])
except OSError:
    pass
connect = socket.socket.connect
def guarded(self, address):
    leads_out = self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in own
    if leads_out and self.type & socket.SOCK_STREAM:
        with open(os.environ["GUARD_LOG"], "a") as log:
            log.write(f"{address}\\n")
        raise OSError("blocked")
    return connect(self, address)
socket.socket.connect = guarded
"""


def test_without_ray_it_is_said_how_to_get_it(monkeypatch, run, images):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "tripletkit[ray]" in run(images, "--ray", exit_code=1)


@pytest.mark.slow
def test_statistics_of_use_are_off(monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed (tripletkit[ray])")
    from tripletkit.features.extraction import _import_ray

    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    _import_ray()
    from ray._common.usage import usage_lib

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not usage_lib.usage_stats_enabled()


def test_processes_of_ray_are_started_without_a_way_to_the_web(monkeypatch):
    from tripletkit.features.extraction import _offline

    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "169.254.169.254")
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    before = dict(os.environ)
    with _offline():
        proxies = urllib.request.getproxies()
        assert proxies["http"] == proxies["https"] == "http://127.0.0.1:9"
        assert not urllib.request.proxy_bypass("169.254.169.254")
        assert urllib.request.proxy_bypass("127.0.0.1")
    assert dict(os.environ) == before


@pytest.mark.integration
@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_ray_gives_the_rows_of_one_process_and_asks_nobody_outside(run, images, encoder, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed (tripletkit[ray])")
    run(images, to="single")
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "outside.txt"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tripletkit", "extract", images, *encoder),
            *("-o", tmp_path / "ray", "--ray"),
        ],
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'guard'}:{TOP}", "GUARD_LOG": str(log)},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    assert not log.exists(), log.read_text()
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "single")


@pytest.mark.integration
@pytest.mark.campaign
@pytest.mark.timeout(120)
def test_a_cluster_that_is_not_there_is_said(run, images):
    pytest.importorskip("ray", reason="ray is not installed (tripletkit[ray])")
    assert "expected a Ray cluster" in run(images, "--ray", "127.0.0.1:1", exit_code=1)
