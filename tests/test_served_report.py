"""The report that is served: to this computer alone, and an image dropped on it is answered."""

import re
import threading

import numpy as np
import pytest
from browsers import wait_until
from PIL import Image
from test_cli_report import browser  # noqa: F401

import tripletkit as tk

Client = pytest.importorskip("werkzeug.test", reason="Flask is not installed").Client
LOCAL = "http://127.0.0.1"
pytestmark = pytest.mark.slow


@pytest.fixture
def serve(toy_competition, toy_model, tiny_backbone, tmp_path):
    return lambda: tk.serve_report(toy_model, 0, triplets=toy_competition.test, cache=tmp_path)


@pytest.fixture
def served(serve, undrawn_figures):
    """A visitor of the application, and the path of the link that opens it."""
    with serve() as (server, link):

        def answer(environ, start):
            return server.application(environ | {"REMOTE_ADDR": "127.0.0.1"}, start)

        yield Client(answer), "/" + link.split("/", 3)[3]


@pytest.fixture
def visitor(served):
    """Who opened the link, with what the page sends."""
    client, opening = served
    assert client.get(opening, base_url=LOCAL).status_code == 303
    html = client.get("/", base_url=LOCAL).text
    token = re.search(r'data-token="(\w+)"', html).group(1)

    def post(data, token=token, kind="application/octet-stream", host="127.0.0.1", query=""):
        headers = {"X-Form-Token": token, "Content-Type": kind}
        return client.post(
            f"/neighbors{query}", data=data, headers=headers, base_url=f"http://{host}"
        )

    return post


def test_nobody_looks_without_the_link(served):
    client = served[0]
    for path, code in (("/", 403), ("/open/another", 404), ("/static/x", 404)):
        assert client.get(path, base_url=LOCAL).status_code == code
    assert client.post("/neighbors", data=b"x", base_url=LOCAL).status_code == 403


def test_the_page_may_ask_its_server_alone(served):
    client, opening = served
    client.get(opening, base_url=LOCAL)
    page = client.get("/", base_url=LOCAL)
    policy = page.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy and "script-src 'sha256-" in policy
    assert "frame-ancestors 'none'" in policy and "unsafe-inline'; script" in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert 'id="drop"' in page.text


def test_the_nearest_are_those_of_the_embeddings(visitor, toy_model, toy_competition):
    path = toy_competition.images / "p42.png"
    answer = visitor(path.read_bytes())
    assert answer.status_code == 200, answer.text
    (found,) = answer.json["models"]
    near = [each["name"] for each in found["neighbors"]]
    # A copy of an image is not its own neighbour.
    assert found["name"] == toy_model.name and "p42.png" not in near and len(near) == 10
    model, asked = tk.load(toy_model), toy_competition.test.read_text().split()
    known = model.embed().take(sorted(set(asked)))
    expected = model.neighbors(known.take(["p42.png"]), known).to_frame()
    assert near == expected["name"].tolist()
    shown = [each["distance"] for each in found["neighbors"]]
    assert shown == pytest.approx(expected["distance"].tolist()) and shown == sorted(shown)
    assert all(each["image"].startswith("data:image/jpeg") for each in found["neighbors"])


def test_anything_else_is_refused(visitor):
    for changed, code in (
        ({"token": "another"}, 403),
        ({"kind": "multipart/form-data"}, 400),
        ({"query": "?k=3"}, 400),
        ({"host": "somebody.example"}, 400),
        ({"data": b""}, 400),
    ):
        assert visitor(**{"data": b"x", **changed}).status_code == code, changed
    answer = visitor(b"not an image")
    # Where the copy lay is of no use, and nobody's business.
    said = answer.json["error"]
    assert answer.status_code == 422 and said.startswith("The image: expected an image, ")
    assert said.count("The image") == 1 and "/" not in said and "leave them out" not in said
    answer = visitor(b"x" * ((32 << 20) + 1))
    assert answer.status_code == 413 and "at most 32 MiB" in answer.json["error"]


@pytest.mark.filterwarnings("ignore::tripletkit.TripletkitWarning")
def test_features_that_were_given_are_refused(toy_competition, tmp_path):
    names = [f"p{number:02}.png" for number in range(60)]
    features = tmp_path / "given.npz"
    np.savez(features, names=names, features=np.random.default_rng(0).random((60, 4)))
    given = toy_competition.train, toy_competition.images
    model = tk.train(*given, features=features, recipe="map", refit=False, unseen_classes=0)
    served = tk.serve_report(model, 0, features=features)
    with pytest.raises(tk.SettingsError, match="a new image has none"), served:
        pass


def test_the_command_serves_until_it_is_stopped(
    tripletkit, tiny_backbone, toy_model, toy_competition, monkeypatch
):
    asked = []
    from waitress.server import MultiSocketServer, TcpWSGIServer

    for kind in (MultiSocketServer, TcpWSGIServer):
        monkeypatch.setattr(kind, "run", lambda server: asked.append(server.effective_host))
    arguments = ["report", toy_model, "--triplets", toy_competition.test, "--serve"]
    arguments += ["--no-browser", "--port", 0]
    result = tripletkit(*arguments)
    assert asked == ["127.0.0.1"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/open/[\w-]{43}\n", result.stdout)
    assert result.exit_code == 0, result.output


@pytest.mark.integration
def test_an_image_is_dropped_on_the_page(browser, serve, tmp_path):  # noqa: F811
    own = tmp_path / "own.png"
    Image.new("RGB", (40, 30), "teal").save(own)
    with serve() as (server, link):
        threading.Thread(target=server.run, daemon=True).start()
        browser.get(link)
        assert browser.current_url != link
        browser.find_element("id", "query-file").send_keys(str(own))
        tiles = "#query-answer .tile img"
        wait_until(lambda: browser.find_elements("css selector", tiles))
        assert len(browser.find_elements("css selector", tiles)) == 11
        # One line parts the query from the others, and what is too wide says that it scrolls.
        assert len(browser.find_elements("css selector", "#query-answer .query")) == 1
        browser.set_window_size(500, 800)
        hint = browser.find_element("css selector", "#query-answer .hint")
        wait_until(hint.is_displayed)
        assert "own.png" in browser.find_element("id", "query-said").text
        broken = "return [...document.images].filter((i) => !i.naturalWidth && i.src).length"
        assert browser.execute_script(broken) == 0
        assert browser.get_log("browser") == []
        # What is no image is told in words.
        (tmp_path / "b.png").write_bytes(b"no image")
        browser.find_element("id", "query-file").send_keys(str(tmp_path / "b.png"))
        wait_until(lambda: "The image" in browser.find_element("id", "query-said").text)
