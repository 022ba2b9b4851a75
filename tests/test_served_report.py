"""The report that is served: to this computer alone, and an image dropped on it is answered."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli_report import browser  # noqa: F401

from tripletkit import SettingsError
from tripletkit.model.model_folder import load_model
from tripletkit.reporting.model_view import open_views

served = pytest.importorskip("tripletkit.reporting.served", reason="Flask is not installed")
TOKEN = "a-token-of-these-tests"


@pytest.fixture
def models(toy_competition, toy_model, tiny_backbone, tmp_path):
    return open_views([load_model(toy_model)], triplets=toy_competition.test, cache=tmp_path)


@pytest.fixture
def app(models, tmp_path, undrawn_figures):
    return served._make_app(models, TOKEN, cache=tmp_path)


@pytest.fixture
def visitor(app):
    """Who opened the link, with what the page sends."""
    client = app.test_client()
    assert client.get(f"/open/{TOKEN}", base_url="http://127.0.0.1").status_code == 303
    html = client.get("/", base_url="http://127.0.0.1").text
    token = re.search(r'data-token="(\w+)"', html).group(1)

    def post(data, token=token, kind="application/octet-stream", host="127.0.0.1", query=""):
        headers = {"X-Form-Token": token, "Content-Type": kind}
        return client.post(
            f"/neighbors{query}", data=data, headers=headers, base_url=f"http://{host}"
        )

    return post


@pytest.mark.slow
def test_nobody_looks_without_the_link(app):
    client = app.test_client()
    for path, code in (("/", 403), ("/open/another", 404), ("/static/x", 404)):
        assert client.get(path, base_url="http://127.0.0.1").status_code == code
    assert client.post("/neighbors", data=b"x", base_url="http://127.0.0.1").status_code == 403


@pytest.mark.slow
def test_the_page_may_ask_its_server_alone(app):
    client = app.test_client()
    client.get(f"/open/{TOKEN}", base_url="http://127.0.0.1")
    page = client.get("/", base_url="http://127.0.0.1")
    policy = page.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy and "script-src 'sha256-" in policy
    assert "frame-ancestors 'none'" in policy and "unsafe-inline'; script" in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert 'id="drop"' in page.text


@pytest.mark.slow
def test_the_nearest_are_those_of_the_embeddings(visitor, models, toy_competition):
    view = models[0]
    name = view.triplets.names[view.shown[0]]
    answer = visitor(Path(view.paths[view.shown[0]]).read_bytes())
    assert answer.status_code == 200, answer.text
    (found,) = answer.json["models"]
    near = [each["name"] for each in found["neighbors"]]
    # A copy of an image is not its own neighbour.
    assert found["name"] == models[0].name and name not in near and len(near) == 10
    own = view.embeddings[view.shown[0]]
    distances = np.linalg.norm(view.embeddings[view.shown] - own, axis=1)
    expected = [view.triplets.names[view.shown[k]] for k in np.argsort(distances, kind="stable")]
    assert near == [each for each in expected if each != name][:10]
    shown = [each["distance"] for each in found["neighbors"]]
    assert shown == sorted(shown)
    assert all(each["image"].startswith("data:image/jpeg") for each in found["neighbors"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"token": "another"}, 403),
        ({"kind": "multipart/form-data"}, 400),
        ({"query": "?k=3"}, 400),
        ({"host": "somebody.example"}, 400),
        ({"data": b""}, 400),
        ({"data": b"not an image"}, 422),
    ],
    ids=lambda value: str(value)[:30],
)
def test_anything_else_is_refused(visitor, changed, code):
    answer = visitor(**{"data": b"x", **changed})
    assert answer.status_code == code
    if code == 422:
        # Where the copy lay is of no use, and nobody's business.
        assert answer.json["error"].startswith("The image: expected an image, ")
        assert answer.json["error"].count("The image") == 1 and "/" not in answer.json["error"]
        assert "leave them out" not in answer.json["error"]


@pytest.mark.slow
def test_too_long_an_image_is_refused(visitor, monkeypatch, app):
    app.config["MAX_CONTENT_LENGTH"] = 1000
    answer = visitor(b"x" * 1001)
    assert answer.status_code == 413
    assert "at most 32 MiB" in answer.json["error"]


def test_features_that_were_given_are_refused(models):
    from types import SimpleNamespace

    from tripletkit.features.encoder import Encoder
    from tripletkit.reporting.served import _QuerySearch

    model = SimpleNamespace(name="m", encoder=Encoder(n_given=4))
    with pytest.raises(SettingsError, match="a new image has none"):
        _QuerySearch([model])


@pytest.mark.slow
def test_the_command_serves_until_it_is_stopped(
    tripletkit, tiny_backbone, toy_model, toy_competition, monkeypatch
):
    asked = []

    def run(server):
        asked.append(server.effective_host)

    from waitress.server import MultiSocketServer, TcpWSGIServer

    for kind in (MultiSocketServer, TcpWSGIServer):
        monkeypatch.setattr(kind, "run", run)
    arguments = ["report", toy_model, "--triplets", toy_competition.test, "--serve"]
    arguments += ["--no-browser", "--port", 0]
    result = tripletkit(*arguments)
    assert asked == ["127.0.0.1"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/open/[\w-]{43}\n", result.stdout)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.integration
def test_an_image_is_dropped_on_the_page(browser, models, toy_competition, tmp_path):  # noqa: F811
    from selenium.webdriver.support.ui import WebDriverWait

    own = tmp_path / "own.png"
    Image.new("RGB", (40, 30), "teal").save(own)
    with served.report_server(models, 0, cache=tmp_path) as (server, link):
        threading.Thread(target=server.run, daemon=True).start()
        browser.get(link)
        assert not browser.current_url.endswith(TOKEN)
        browser.find_element("id", "query-file").send_keys(str(own))
        tiles = "#query-answer .tile img"
        WebDriverWait(browser, 60).until(lambda b: b.find_elements("css selector", tiles))
        assert len(browser.find_elements("css selector", tiles)) == 11
        # One line parts the query from the others, and what is too wide says that it scrolls.
        assert len(browser.find_elements("css selector", "#query-answer .query")) == 1
        browser.set_window_size(500, 800)
        hint = browser.find_element("css selector", "#query-answer .hint")
        WebDriverWait(browser, 60).until(lambda _: hint.is_displayed())
        assert "own.png" in browser.find_element("id", "query-said").text
        broken = "return [...document.images].filter((i) => !i.naturalWidth && i.src).length"
        assert browser.execute_script(broken) == 0
        assert browser.get_log("browser") == []
        # What is no image is told in words.
        (tmp_path / "b.png").write_bytes(b"no image")
        browser.find_element("id", "query-file").send_keys(str(tmp_path / "b.png"))
        said = lambda b: "The image" in b.find_element("id", "query-said").text  # noqa: E731
        WebDriverWait(browser, 60).until(said)
