"""Encoders by name from a hub: here one of the same interface on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import onnx
import pytest
from tiny_encoders import build_transformer

from tripletkit import TripletkitError

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (tripletkit[hub])")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
TOP = Path(__file__).parents[1]
REPO = "somebody/tiny-vit"
NAME = f"hf:{REPO}"
# As DINOv2's, a quarter as wide and high; its small network has twelve such blocks.
CONFIG = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 56, "width": 56},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
SHAPE = {"side_px": 56, "patch_px": 14, "width": 384, "n_heads": 6, "n_blocks": 2}
TAKEN = ["--backbone-output", "last_hidden_state:cls"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub:
    """Serves files, name -> content, as one repository of Hugging Face's hub would.

    It notes what is `asked` and by which `agents`, sends `wrong` contents where there are such,
    breaks the line after so many bytes (`cut`), and takes `slow_s` for each megabyte.
    """

    def __init__(self, files):
        self.files = files
        self.asked, self.wrong, self.cut, self.agents = [], {}, {}, []
        self.slow_s = 0.0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                path = unquote(urlparse(self.path).path)
                hub.asked.append(f"{self.command} {path}")
                hub.agents.append(self.headers.get("user-agent", ""))
                if path.startswith(f"/api/models/{REPO}"):
                    self.answer({"Content-Type": "application/json"}, hub.describe())
                elif not path.startswith(f"/{REPO}/resolve/"):
                    self.answer({"X-Error-Code": "RepoNotFound"}, b"", status=404)
                elif (name := path.split("/resolve/", 1)[1].split("/", 1)[1]) in hub.files:
                    content, digest = hub.files[name], hub.digest(name)
                    headers = {
                        "X-Repo-Commit": COMMIT,
                        "ETag": f'"{digest}"',
                        "X-Linked-ETag": f'"{digest}"',
                        "X-Linked-Size": str(len(content)),
                        "Accept-Ranges": "none",
                    }
                    self.answer(headers, hub.wrong.get(name, content), hub.cut.get(name))
                else:
                    self.answer({"X-Error-Code": "EntryNotFound"}, b"", status=404)

            do_HEAD = do_GET  # noqa: N815

            def answer(self, headers, body, cut=None, status=200):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                body = body[:cut] if self.command == "GET" else b""
                with contextlib.suppress(OSError):  # Whoever asked may be gone.
                    for start in range(0, len(body), 1 << 20):
                        self.wfile.write(body[start : start + (1 << 20)])
                        time.sleep(hub.slow_s)
                if cut is not None:
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def digest(self, name):
        """Large files, networks and their data, go by their SHA-256."""
        kind = hashlib.sha256 if ".onnx" in name else hashlib.sha1
        return kind(self.files[name]).hexdigest()

    def describe(self):
        facts = {"_id": "0", "id": REPO, "modelId": REPO, "sha": COMMIT, "tags": []}
        facts |= {"siblings": [{"rfilename": name} for name in self.files]}
        return json.dumps(facts | {"private": False, "downloads": 0}).encode()

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network with its data in another file, beside its text part and its smaller numbers."""
    path = tmp_path_factory.mktemp("made") / "vision_model.onnx"
    onnx.save(
        build_transformer(**SHAPE),
        path,
        save_as_external_data=True,
        location="vision_model.onnx_data",
        size_threshold=100,
    )
    return {
        "preprocessor_config.json": json.dumps(CONFIG).encode(),
        "onnx/text_model.onnx": b"never asked for",
        "onnx/vision_model_int8.onnx": b"never asked for",
        "onnx/vision_model_q4.onnx": b"never asked for",
        "onnx/vision_model.onnx": path.read_bytes(),
        "onnx/vision_model.onnx_data": path.with_name("vision_model.onnx_data").read_bytes(),
    }


@pytest.fixture
def run(tmp_path, toy_competition):
    def run(*arguments, hub=None, code=0, offline=False, wait=True):
        environment = os.environ | {
            "PYTHONPATH": str(TOP),
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": "http://127.0.0.1:9" if hub is None else hub.address,
            "TRIPLETKIT_CACHE": str(tmp_path / "cache"),
        }
        environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        called = [sys.executable, "-m", "tripletkit", *map(str, arguments)]
        place = {"env": environment, "cwd": tmp_path}
        if not wait:
            return subprocess.Popen(called, **place, stderr=subprocess.DEVNULL)
        done = subprocess.run(called, **place, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_a_name_on_the_hub_is_its_file(run, files, toy_competition, tmp_path):
    images = toy_competition.images
    train = ["train", toy_competition.train, images, "--epochs", "1", "--unseen-classes", "0"]
    train += TAKEN
    with LoopbackHub(files) as hub:
        done = run(*train, "--backbone", NAME, "-o", "m", hub=hub)
        got = {path.rpartition("/resolve/")[2].partition("/")[2] for path in hub.asked}
        assert not [agent for agent in hub.agents if "torch" in agent or "tensorflow" in agent]
    assert "onnx/vision_model.onnx of commit 0123456789ab" in done.stderr
    assert {name for name in got if name.endswith(".onnx")} == {"onnx/vision_model.onnx"}
    record = json.loads((tmp_path / "m" / "model.json").read_text())
    assert record["weights_files"] == [f"{NAME}@{COMMIT}/onnx/vision_model.onnx"]
    # From now on nothing is asked: new images, another training, with the hub gone.
    predictions = run("predict", toy_competition.test, "--model", "m", "--cache", "other").stdout
    run(*train, "--backbone", NAME, "-o", "again")
    run(*train, "--backbone", f"{NAME}@main", "-o", "main", offline=True)
    # And it is the same as the file.
    place = tmp_path / "file"
    place.mkdir()
    for name in ("onnx/vision_model.onnx", "onnx/vision_model.onnx_data"):
        (place / name.rpartition("/")[2]).write_bytes(files[name])
    (place / "preprocessor_config.json").write_text(json.dumps(CONFIG))
    run(*train, "--backbone", place / "vision_model.onnx", "-o", "f")
    for model in ("again", "main", "f"):
        assert run("predict", toy_competition.test, "--model", model).stdout == predictions


def test_what_the_hub_does_not_have_or_sends_wrongly_is_told(run, files, toy_competition):
    embed = ["embed", toy_competition.images, "-o", "e.npz", "--force", *TAKEN, "--backbone"]
    name = "onnx/vision_model.onnx_data"
    with LoopbackHub(files) as hub:
        hub.wrong[name] = files[name][:-8] + b"\1" * 8
        assert "is not what the hub says (its sha256" in run(*embed, NAME, hub=hub, code=1).stderr
        hub.wrong.clear()
        run(*embed, NAME, hub=hub)
        missing = run(*embed, f"{NAME}/onnx/other.onnx", hub=hub, code=1).stderr
        assert "expected the file onnx/other.onnx, there are onnx/text_model.onnx" in missing
        assert "cannot be had from the hub" in run(*embed, "hf:no/body", hub=hub, code=1).stderr
    assert "cannot be had from the hub" in run(*embed, "hf:no/body", code=1).stderr
    offline = run(*embed, "hf:no/body", code=1, offline=True).stderr
    assert "cannot be had from the hub (OfflineModeIsEnabled" in offline
    assert "expected hf:OWNER/NAME" in run(*embed, "hf:nobody", code=2).stderr
    with LoopbackHub({"onnx/a.onnx": b"", "onnx/b.onnx": b""}) as hub:
        assert "Say which: hf:" in run(*embed, f"{NAME}@other", hub=hub, code=1).stderr


def test_a_download_that_breaks_off_or_is_killed_is_taken_up_again(
    run, files, toy_competition, tmp_path
):
    embed = ["embed", toy_competition.images, "-o", "e.npz", "--backbone", NAME, "--force", *TAKEN]
    with LoopbackHub(files) as hub:
        hub.slow_s = 0.5
        for after_s in (0.0, 0.3, 0.8):
            hub.asked.clear()
            started = run(*embed, hub=hub, wait=False)
            while not any(each.endswith("onnx_data") for each in hub.asked):
                assert started.poll() is None
                time.sleep(0.01)
            time.sleep(after_s)
            started.kill()
            assert started.wait() == -signal.SIGKILL
            assert not (tmp_path / "e.npz").exists()
        hub.slow_s = 0.0
        hub.cut["onnx/vision_model.onnx"] = 100
        assert "Error" in run(*embed, hub=hub, code=1).stderr
        hub.cut.clear()
        run(*embed, hub=hub)
    vectors = np.load(tmp_path / "e.npz")["vectors"]
    assert vectors.shape == (60, SHAPE["width"])
    run(*embed)
    np.testing.assert_array_equal(np.load(tmp_path / "e.npz")["vectors"], vectors)


def test_files_are_chosen_by_what_they_see_and_hold():
    from tripletkit.features.onnx_files import _choose_file

    for chosen, *others in (
        ("onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_q4.onnx"),
        ("onnx/model_fp16.onnx", "onnx/model_quantized.onnx"),
        ("onnx/vision_model_fp16.onnx", "onnx/model.onnx"),
        ("dino.onnx",),
    ):
        assert _choose_file("a/b", [*others, chosen]) == chosen
    for names in (["model.safetensors"], ["a.onnx", "b.onnx"], ["model_q4.onnx"]):
        with pytest.raises(TripletkitError, match="expected an ONNX file"):
            _choose_file("a/b", names)
