"""`tripletkit extract --ray`: the same rows as one process, whatever is killed."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from plain_encoder import write_encoder
from test_bulk_extraction import rows_of

from tripletkit import TripletkitError
from tripletkit.features.ray_extraction import RayRunner, _offline

TOP = Path(__file__).parents[1]
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


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    real_import = builtins.__import__

    def fail(name, *rest):
        if name.partition(".")[0] == "ray":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(TripletkitError, match=r"tripletkit\[ray\]"):
        RayRunner()


@pytest.mark.slow
def test_statistics_of_use_are_off(monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed (tripletkit[ray])")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    RayRunner()
    from ray._common.usage import usage_lib

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not usage_lib.usage_stats_enabled()


def test_processes_of_ray_are_started_without_a_way_to_the_web(monkeypatch):
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
def test_ray_gives_the_rows_of_one_process_and_asks_nobody_outside(
    tripletkit, toy_competition, tmp_path
):
    pytest.importorskip("ray", reason="ray is not installed (tripletkit[ray])")
    encoder = write_encoder(tmp_path / "plain.onnx")
    called = ["extract", str(toy_competition.images), *encoder, "--store"]
    tripletkit(*called, tmp_path / "single", code=0)
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "outside.txt"
    done = subprocess.run(
        [sys.executable, "-m", "tripletkit", *called, str(tmp_path / "ray"), "--ray"],
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
def test_a_cluster_that_is_not_there_is_said(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed (tripletkit[ray])")
    from tripletkit.features.ray_extraction import _cluster

    with (
        pytest.raises(TripletkitError, match="expected a Ray cluster"),
        _cluster("127.0.0.1:1", None),
    ):
        raise AssertionError("there is none")
