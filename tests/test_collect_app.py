"""The pages as a hostile or clumsy visitor sees them: secrets, paths, sizes, headers, names."""

from __future__ import annotations

import dataclasses
import html
import io
import json
import logging
import re

import pytest
from collected import answer_all, by_label, start
from PIL import Image

from tripletkit import TripletkitError
from tripletkit.collecting import serving
from tripletkit.collecting.pages import Site, make_app
from tripletkit.collecting.serving import (
    MAX_BODY_BYTES,
    SIZES_PX,
    ScaledImages,
    scale_image,
)
from tripletkit.collecting.study import Study, read_study, render_markdown
from tripletkit.data.judgement_files import read_answers_given

INSTRUCTIONS = "Look *well*. <script>alert(1)</script>"
SECRET_NAME = "secret-dress-of-anna"


@pytest.fixture
def folder(tmp_path):
    """Twelve images whose names must not be seen, one of them on its side and with a place."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(12):
        image = Image.new("RGB", (1600, 1200), (20 * number, 90, 200))
        exif = Image.Exif()
        if number == 0:
            exif[0x0112] = 6  # turned by a quarter
            exif[0x010F] = "CameraOfAnna"
        image.save(path / f"{SECRET_NAME}-{number}.jpg", exif=exif)
    return path


@pytest.fixture
def site(folder, tmp_path):
    names = sorted(path.name for path in folder.iterdir())
    database, asker = start(tmp_path / "j.sqlite", names, n_questions=20)
    numbers = database.add_images(names)
    images = ScaledImages({number: folder / name for name, number in numbers.items()})
    return Site(database, asker, images, Study(instructions=INSTRUCTIONS))


@pytest.fixture
def app(site):
    return make_app(site)


@pytest.fixture
def anna(app, site):
    return Visitor(app, site, "anna")


class Visitor:
    """A judge's browser."""

    def __init__(self, app, site, name):
        self.judge = site.database.add_judge(name)
        self.client = app.test_client()
        assert self.client.get(f"/j/{self.judge.token}").status_code == 303
        self.token = serving.form_token(site.database.key, self.judge.token)

    def post(self, path, body, token=None, **options):
        headers = {"X-Form-Token": self.token if token is None else token}
        return self.client.post(path, json=body, headers=headers, **options)

    def state(self):
        page = all_text(self.client.get("/judge/1/ask"))
        return json.loads(html.unescape(re.search(r'data-state="([^"]*)"', page)[1]))

    def answer(self, **changes):
        screen = self.state()["screens"][0]["id"]
        body = {"client_id": "client-0001", "screen": screen, "side": "left", "places": []}
        return self.post(
            "/judge/1/answer", body | {"response_ms": 800.5, "method": "mouse"} | changes
        )


def all_text(response):
    return response.get_data(as_text=True)


def test_the_link_becomes_a_cookie_and_the_address_keeps_no_secret(app, site):
    judge = site.database.add_judge("anna")
    client = app.test_client()
    response = client.get(f"/j/{judge.token}")
    assert (response.status_code, response.headers["Location"]) == (303, "/judge/1/")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    page = all_text(client.get("/judge/1/ask"))
    assert judge.token not in page
    # The instructions show the link, to be kept.
    assert f"/j/{judge.token}" in all_text(client.get("/judge/1/"))


@pytest.mark.parametrize(
    "path",
    ["/judge/1/", "/judge/1/ask", "/judge/1/done", "/owner", "/image/1/small"],
)
def test_without_a_secret_there_is_nothing_to_see(app, path):
    response = app.test_client().get(path)
    assert response.status_code == 403
    assert SECRET_NAME not in all_text(response)


@pytest.mark.parametrize("path", ["/j/{}", "/join/{}", "/owner/{}"])
@pytest.mark.parametrize("token", ["x", "", "é", "%ff", "a" * 5000])
def test_a_guessed_secret_opens_nothing(app, site, path, token):
    site.database.add_judge("anna")
    response = app.test_client().get(path.format(token))
    assert response.status_code == 404
    assert "Set-Cookie" not in response.headers


def test_a_judge_is_no_owner_and_an_owner_no_judge(app, site, anna):
    assert anna.client.get("/owner").status_code == 403
    assert anna.client.get(f"/owner/{anna.judge.token}").status_code == 404
    owner = app.test_client()
    assert owner.get(f"/owner/{site.database.owner_token}").status_code == 303
    assert owner.get("/owner").status_code == 200
    assert owner.get("/judge/1/ask").status_code == 403


def test_every_token_is_compared_in_constant_time(app, site, anna, monkeypatch):
    compared = []
    original = serving.hmac.compare_digest

    def compare(given, expected):
        compared.append(expected)
        return original(given, expected)

    ben = site.database.add_judge("ben")
    monkeypatch.setattr(serving.hmac, "compare_digest", compare)
    app.test_client().get(f"/j/{anna.judge.token}")
    # All judges, those after the right one as well.
    assert compared == [anna.judge.token.encode(), ben.token.encode()]
    compared.clear()
    anna.state()
    assert compared == [anna.judge.token.encode()]
    compared.clear()
    anna.answer()
    assert serving.form_token(site.database.key, anna.judge.token).encode() in compared
    compared.clear()
    app.test_client().get("/owner/guess")
    app.test_client().get("/join/guess")
    assert compared == [site.database.owner_token.encode(), site.database.open_token.encode()]


def test_an_answer_from_elsewhere_is_refused(app, site, anna):
    ben = Visitor(app, site, "ben")
    for token in ("", "x", ben.token, anna.judge.token):
        response = anna.post("/judge/1/answer", {}, token=token)
        assert response.status_code == 403
        assert anna.post("/judge/1/undo", {"undo_id": "undo-0001"}, token=token).status_code == 403
    form = {"side": "left", "screen": "1", "client_id": "client-0001"}
    assert anna.client.post("/judge/1/answer", data=form).status_code == 403
    assert site.database.n_answers() == 0


def test_an_answer_is_kept_and_sent_twice_is_one(site, anna):
    first = anna.answer()
    assert first.status_code == 200
    assert first.get_json()["is_new"] is True
    assert first.get_json()["done"] == 1
    screen = site.database.connection.execute("SELECT screen FROM answers").fetchone()[0]
    again = anna.answer(screen=screen)
    assert again.status_code == 200
    assert again.get_json()["is_new"] is False
    other = anna.answer(screen=screen, client_id="client-0002", side="right")
    assert other.status_code == 409
    assert other.get_json()["screens"][0]["id"] != screen
    assert site.database.n_answers() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "short"},
        {"client_id": "x" * 65},
        {"client_id": "bad id with blanks"},
        {"client_id": 12345678},
        {"screen": "1"},
        {"screen": 1.5},
        {"screen": True},
        {"screen": -1},
        {"screen": 2**70},
        {"side": "up"},
        {"side": None},
        {"side": ["left"]},
        {"places": "0"},
        {"places": ["0"]},
        {"places": [0] * 100},
        {"response_ms": -1},
        {"response_ms": 1e12},
        {"response_ms": float("nan")},
        {"response_ms": float("inf")},
        {"response_ms": "5"},
        {"response_ms": True},
        {"method": "telepathy"},
        {"method": {}},
        {"extra": 1},
    ],
)
def test_an_answer_is_read_strictly(site, anna, changes):
    response = anna.answer(**changes)
    assert response.status_code == 400
    assert site.database.n_answers() == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a": NaN}', b"\xff", b"[" * 9000])
def test_what_is_no_answer_is_refused(site, anna, body):
    response = anna.client.post(
        "/judge/1/answer",
        data=body,
        headers={"X-Form-Token": anna.token, "Content-Type": "application/json"},
    )
    assert response.status_code == 400
    for place in ("/judge/1/answer", "/judge/1/undo"):
        not_json = anna.client.post(place, data=body, headers={"X-Form-Token": anna.token})
        assert not_json.status_code in (303, 400)
    assert site.database.n_answers() == 0


def test_uploads_are_bounded(anna):
    response = anna.answer(client_id="x" * (MAX_BODY_BYTES + 1))
    assert response.status_code == 413
    form = anna.client.post("/judge/1/answer", data={"form_token": "x" * (MAX_BODY_BYTES + 1)})
    assert form.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/image/../../etc/passwd",
        "/image/%2e%2e%2f%2e%2e%2fetc%2fpasswd/small",
        f"/image/{SECRET_NAME}-0.jpg/small",
        "/image/-1/small",
        "/image/0/small",
        "/image/13/small",
        "/image/1/huge",
        "/image/1/../../j.sqlite",
        "/image/99999999999999999999999/small",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fdefaults.py",
        "/static/%2fetc%2fpasswd",
    ],
)
def test_there_is_no_way_to_another_file(anna, path):
    response = anna.client.get(path, follow_redirects=True)
    assert response.status_code == 404
    assert b"root:" not in response.data and b"import" not in response.data


@pytest.mark.slow
def test_images_are_scaled_upright_and_without_their_story(site, anna, folder):
    number = site.database.add_images([f"{SECRET_NAME}-0.jpg"])[f"{SECRET_NAME}-0.jpg"]
    for size, px in SIZES_PX.items():
        response = anna.client.get(f"/image/{number}/{size}")
        assert response.status_code == 200
        with Image.open(io.BytesIO(response.data)) as image:
            # 1600 by 1200, turned by a quarter.
            assert image.size == (round(px * 0.75), px)
            assert not dict(image.getexif())
        assert b"CameraOfAnna" not in response.data
    assert "private" in response.headers["Cache-Control"]


def test_images_of_two_studies_at_one_port_are_not_taken_for_one_another(site, anna):
    page = all_text(anna.client.get("/judge/1/ask"))
    addresses = re.findall(r'/image/\d+/\w*[^ "]*', page)
    assert len(addresses) > 9 and all(site.database.id in address for address in addresses)
    assert anna.client.get(addresses[-1]).status_code == 200


def test_a_tiny_image_keeps_its_pixels(tmp_path):
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "tiny.png")
    with Image.open(io.BytesIO(scale_image(tmp_path / "tiny.png", 360))) as image:
        assert (image.format, image.size, image.getpixel((3, 3))) == ("PNG", (8, 8), (1, 2, 3))


def test_a_broken_image_is_not_found_and_told(site, anna, folder, caplog):
    number = site.database.add_images([f"{SECRET_NAME}-3.jpg"])[f"{SECRET_NAME}-3.jpg"]
    (folder / f"{SECRET_NAME}-3.jpg").write_bytes(b"\xff\xd8 broken")
    with caplog.at_level(logging.WARNING, logger="tripletkit"):
        response = anna.client.get(f"/image/{number}/small")
    assert response.status_code == 404
    assert SECRET_NAME not in all_text(response)
    assert "cannot be read" in caplog.text
    for screen in site.asker.all_screens(1):
        assert number not in (screen.anchor, *screen.shown)


def test_no_page_shows_a_name_a_path_or_anothers_answer(app, site, anna, folder):
    names = {name: n % 3 for n, name in enumerate(sorted(p.name for p in folder.iterdir()))}
    answer_all(site.database, site.asker, "ben", by_label(names), n=8)
    anna.answer()
    pages = [all_text(anna.client.get(path)) for path in ("/judge/1/", "/judge/1/ask")]
    pages.append(all_text(anna.answer(client_id="client-0002")))
    owner = app.test_client()
    owner.get(f"/owner/{site.database.owner_token}")
    for page in [*pages, all_text(owner.get("/owner"))]:
        assert SECRET_NAME not in page
        assert str(folder) not in page and "j.sqlite" not in page
    for page in pages:
        assert "ben" not in page
        assert "random" not in page and "repeat" not in page


@pytest.mark.slow
def test_headers_of_every_kind_of_reply(app, site, anna):
    for response in (
        anna.client.get("/judge/1/"),
        anna.client.get("/judge/1/ask"),
        anna.answer(),
        anna.client.get("/image/1/small"),
        anna.client.get("/static/collect.js"),
        app.test_client().get("/nothing"),
        anna.client.get("/owner"),
    ):
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers.getlist("Content-Security-Policy") == [policy]
    assert anna.client.get("/judge/1/ask").headers["Cache-Control"] == "no-store"


def test_pages_have_no_script_or_style_of_their_own_and_nothing_from_elsewhere(app, site, anna):
    owner = app.test_client()
    owner.get(f"/owner/{site.database.owner_token}")
    for page in (
        all_text(anna.client.get("/judge/1/")),
        all_text(anna.client.get("/judge/1/ask")),
        all_text(owner.get("/owner")),
        all_text(app.test_client().get("/judge/1/ask")),
    ):
        assert not re.search(r"<script(?![^>]* src=)", page)
        assert not re.search(r"<style|\sstyle=|\son\w+=", page)
        for address in re.findall(r'(?:src|href|action)="([^"]*)"', page):
            assert address.startswith("/") and not address.startswith("//")


def test_no_secret_is_logged(app, site, anna, caplog):
    with caplog.at_level(logging.DEBUG):
        app.test_client().get(f"/j/{anna.judge.token}")
        app.test_client().get(f"/owner/{site.database.owner_token}")
        app.test_client().get("/j/wrong")
        anna.answer()
    for secret in (anna.judge.token, site.database.owner_token, anna.token):
        assert secret not in caplog.text


def test_instructions_can_do_no_harm(anna):
    page = all_text(anna.client.get("/judge/1/"))
    assert "Look <em>well</em>." in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    rendered = render_markdown(
        "[x](javascript:alert(1)) ![i](http://a.example/i.png) <img src=x onerror=alert(1)>"
    )
    assert "<img" not in rendered
    assert 'href="javascript' not in rendered


def test_a_study_is_bounded_text_of_known_keys(tmp_path):
    path = tmp_path / "study.toml"
    path.write_bytes(b'\xef\xbb\xbfinstructions = "# Look"')
    assert read_study(path).instructions == "# Look"
    for data, said in (
        (b"\xff\xfe", "UTF-8"),
        (b"instructions", "expected TOML"),
        (b'colour = "red"', "got colour"),
        (b"quota = 0", "quota: expected a number from 1 on"),
        (b'quota = "many"', "quota: expected a number from 1 on"),
        (b'practice = [["a", "b", "b"]]', "practice: expected a list of"),
        (b'link = "javascript:alert(1)"', "link: expected an address"),
        (b'language = "xx"', "expected one of en, de, es, fr"),
    ):
        path.write_bytes(data)
        with pytest.raises(TripletkitError, match=said):
            read_study(path)


def join(app, site, name, token=None):
    client = app.test_client()
    form_token = serving.form_token(site.database.key, site.database.open_token)
    form = {"name": name, "form_token": form_token if token is None else token}
    return client, client.post(f"/join/{site.database.open_token}", data=form)


def test_who_joins_gives_a_name(app, site):
    client, response = join(app, site, "  Anna   Maria ")
    assert response.status_code == 303
    assert "Hello Anna Maria" in all_text(client.get("/judge/1/"))
    _, elsewhere = join(app, site, "anna", token="")
    assert elsewhere.status_code == 403
    _, taken = join(app, site, "anna maria")
    assert taken.status_code == 200
    assert "taken" in all_text(taken)
    assert "Set-Cookie" not in taken.headers
    hostile = "<b>&\"'{{ 7 * 7 }}"
    client, response = join(app, site, hostile)
    assert response.status_code == 303
    assert html.escape(hostile).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in all_text(
        client.get("/judge/2/")
    )


def test_the_common_link_knows_who_comes_back(app, site):
    client, _ = join(app, site, "Anna")
    address = f"/join/{site.database.open_token}"
    assert "Go on as Anna" in all_text(client.get(address))
    form_token = serving.form_token(site.database.key, site.database.open_token)
    # The same name in the same browser is the same person; another name is another.
    again = client.post(address, data={"name": "Anna", "form_token": form_token})
    assert again.headers["Location"] == "/judge/1/"
    other = client.post(address, data={"name": "Ben", "form_token": form_token})
    assert other.headers["Location"] == "/judge/2/"
    assert [judge.name for judge in site.database.judges()] == ["Anna", "Ben"]
    # Each has pages of their own in the same browser.
    for number, name in ((1, "Anna"), (2, "Ben")):
        page = all_text(client.get(f"/judge/{number}/ask"))
        screen = int(re.search(r'name="screen" value="(\d+)"', page)[1])
        assert f">{name}</a>" in page
        token = re.search(r'data-form-token="(\w+)"', page)[1]
        body = {"client_id": f"client-000{number}", "screen": screen, "side": "left", "places": []}
        body |= {"response_ms": 800, "method": "mouse"}
        headers = {"X-Form-Token": token}
        assert client.post(f"/judge/{number}/answer", json=body, headers=headers).status_code == 200
        assert site.database.n_answers(number) == 1
        # The page of the one does not answer for the other.
        wrong = client.post(f"/judge/{3 - number}/answer", json=body, headers=headers)
        assert wrong.status_code == 403


def test_a_mistyped_link_says_what_it_is(app):
    page = all_text(app.test_client().get("/j/abc"))
    assert "No study has this link" in page


def test_who_is_paused_or_revoked_cannot_answer(app, site, anna):
    site.database.change_judge(anna.judge.id, state="paused")
    assert "paused" in all_text(anna.client.get("/judge/1/ask"))
    assert anna.post("/judge/1/answer", {}).status_code == 403
    site.database.change_judge(anna.judge.id, state="revoked")
    assert anna.client.get("/judge/1/").status_code == 403
    assert anna.client.get("/image/1/small").status_code == 403
    assert "withdrawn" in all_text(app.test_client().get(f"/j/{anna.judge.token}"))


def test_the_owner_adds_pauses_revokes_leaves_out_and_ends(app, site, anna):
    anna.answer()
    owner = app.test_client()
    owner.get(f"/owner/{site.database.owner_token}")
    token = serving.form_token(site.database.key, site.database.owner_token)

    def press(path, **fields):
        return owner.post(path, data={"form_token": token, **fields})

    page = all_text(owner.get("/owner"))
    assert f"/j/{anna.judge.token}" in page and "<svg" in page and "Revoke the link" in page
    assert press("/owner/judges", name=" Ben ").status_code == 303
    assert "taken" in all_text(press("/owner/judges", name="ben"))
    states = [("pause", "paused"), ("go-on", "active"), ("revoke", "revoked")]
    for change, state in states:
        assert press(f"/owner/judges/2/{change}").status_code == 303
        assert site.database.judges()[1].state == state
    assert press("/owner/judges/2/anything").status_code == 404
    table = owner.get("/owner/answers.csv")
    assert table.headers["Content-Disposition"].endswith("answers.csv")
    assert all_text(table).splitlines()[1].startswith("anna,")
    press("/owner/judges/1/leave-out")
    assert read_answers_given(site.database.path) == []
    assert "answers left out" in all_text(owner.get("/owner"))
    press("/owner/end")
    assert anna.client.get("/judge/1/ask").headers["Location"] == "/judge/1/done"
    press("/owner/go-on")
    assert anna.client.get("/judge/1/ask").status_code == 200


def test_only_the_owners_page_changes_judges(app, site, anna):
    token = serving.form_token(site.database.key, site.database.owner_token)
    owner = app.test_client()
    owner.get(f"/owner/{site.database.owner_token}")
    for client, given in ((owner, "wrong"), (anna.client, token), (app.test_client(), token)):
        for path in ("/owner/judges", "/owner/judges/1/revoke", "/owner/end"):
            assert client.post(path, data={"form_token": given, "name": "x"}).status_code == 403
    assert [(j.name, j.state) for j in site.database.judges()] == [("anna", "active")]
    assert anna.client.get("/owner/answers.csv").status_code == 403


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "a\x00b", "a\u202eb", "\u200b"])
def test_other_names_are_refused(app, site, name):
    _, response = join(app, site, name)
    assert "A name has 1 to 40 letters" in all_text(response)
    assert site.database.judges() == []


def test_undo_by_the_page(site, anna):
    assert anna.post("/judge/1/undo", {"undo_id": "undo-0001"}).get_json()["undone"] is False
    anna.answer()
    reply = anna.post("/judge/1/undo", {"undo_id": "undo-0002"}).get_json()
    assert (reply["undone"], reply["done"], reply["can_undo"]) == (True, 0, False)
    for body in ({}, {"undo_id": 5}, {"undo_id": "undo-0003", "x": 1}, []):
        assert anna.post("/judge/1/undo", body).status_code == 400


def test_the_end_says_thanks_and_can_be_taken_back(site, anna):
    for number in range(20):
        state = anna.answer(client_id=f"client-{number:04}").get_json()
    assert state["screens"] == []
    assert anna.client.get("/judge/1/ask").headers["Location"] == "/judge/1/done"
    assert "Thank you, anna" in all_text(anna.client.get("/judge/1/done"))
    form = {"form_token": anna.token, "undo_id": "undo-0001"}
    assert anna.client.post("/judge/1/undo", data=form).headers["Location"] == "/judge/1/ask"
    assert anna.client.get("/judge/1/done").headers["Location"] == "/judge/1/ask"


def test_progress_and_pause(site, anna):
    site.study = dataclasses.replace(site.study, pause_every=2)
    replies = [
        anna.answer(client_id=f"client-{n:04}", response_ms=8700).get_json() for n in range(2)
    ]
    assert [reply["pause_due"] for reply in replies] == [False, True]
    # 18 left, 9 seconds each.
    assert replies[-1]["progress"] == "2 of 20, about 3 min left"


@pytest.mark.slow
def test_owner_sees_judges_curve_and_hardest(app, site, folder):
    names = {name: n % 2 for n, name in enumerate(sorted(p.name for p in folder.iterdir()))}
    # Every question goes to all three: whether they overlap is not left to chance.
    site.asker.settings = dataclasses.replace(site.asker.settings, overlap=3)
    for judge in ("anna", "ben"):
        answer_all(site.database, site.asker, judge, by_label(names))
    answer_all(site.database, site.asker, "<carla>", lambda a, s: "left", response_ms=100)
    points = [
        {"n_questions": n, "accuracy": a, "low": a - 0.1, "high": min(a + 0.1, 1)}
        for n, a in ((10, 0.6), (20, 0.7), (40, 0.8))
    ]
    about = {"curve": points, "n_random": 40, "more": 200, "after_more": 0.9}
    about["hardest"] = [{"anchor": 1, "chosen": 2, "other": 3, "margin": -0.5, "votes": [2.0, 0.5]}]
    site.database.add_model(40, about, [])
    site.status["text"] = "A model is being trained."
    owner = app.test_client()
    owner.get(f"/owner/{site.database.owner_token}")
    page = all_text(owner.get("/owner"))
    assert "60 answers" in page
    assert "&lt;carla&gt;" in page
    assert "20 of 20 answers took less than 0.5 s" in page
    assert "Krippendorff" in page
    assert "Another 200 would bring it to about <strong>90.0%</strong>" in page
    assert ">2 to 0.5<" in page
    assert "A model is being trained." in page
    assert owner.get("/image/1/small").status_code == 200
