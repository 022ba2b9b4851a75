"""The pages, by HTTP: what they hold and ask, and what a hostile or clumsy visitor gets."""

from __future__ import annotations

import hmac
import html
import io
import json
import logging
import re
import tomllib
from pathlib import Path

import pytest
from collected import read_answers_given, rows_of
from PIL import Image

import tripletkit as tk

SECRET_NAME = "secret-dress-of-anna"
WORDS = Path(tk.__file__).parent / "collecting" / "words"
MAX_BODY_BYTES = 16_384
TOKEN = re.compile(r'name="form_token" value="(\w+)"|data-form-token="(\w+)"')


@pytest.fixture
def folder(tmp_path):
    """Twelve images whose names must not be seen, one of them on its side and with a place."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(12):
        size = (1600, 1200) if number == 0 else (80, 60)
        image = Image.new("RGB", size, (20 * number, 90, 200))
        exif = Image.Exif()
        if number == 0:
            exif[0x0112] = 6  # turned by a quarter
            exif[0x010F] = "CameraOfAnna"
        image.save(path / f"{SECRET_NAME}-{number:02}.jpg", exif=exif)
    return path


class Visitor:
    """A browser, and what it does as the judge of a number."""

    def __init__(self, app, address=None, number=1):
        self.client, self.number = app.test_client(), number
        if address is not None:
            assert self.get(address).status_code == 303

    def get(self, path, **options):
        return self.client.get(path, **options)

    def page(self, name="", **options):
        """Return a page of the judge, or of an address that begins with a slash."""
        path = name if name.startswith("/") else f"/judge/{self.number}/{name}"
        return said(self.get(path, **options))

    def token(self, name="ask"):
        """Return what a page wants back, if there is one."""
        found = TOKEN.search(self.page(name))
        return found and (found[1] or found[2])

    def state(self):
        return json.loads(html.unescape(re.search(r'data-state="([^"]*)"', self.page("ask"))[1]))

    def post(self, name, body, token=None):
        headers = {"X-Form-Token": self.token() or "" if token is None else token}
        return self.client.post(f"/judge/{self.number}/{name}", json=body, headers=headers)

    def answer(self, number=1, token=None, **changes):
        screen = changes.get("screen") or self.state()["screens"][0]["id"]
        body = {"client_id": f"client-{number:04}", "side": "left", "places": []}
        body |= {"screen": screen, "response_ms": 800.5, "method": "mouse"}
        return self.post("answer", body | changes, token)

    def answer_all(self, n=99, **changes):
        for number in range(n):
            if self.get(f"/judge/{self.number}/ask").status_code != 200:
                return
            assert self.answer(100 * self.number + number, **changes).status_code == 200


class Site:
    """A collection and its application; `paths` are its links without the address."""

    def __init__(self, collection, url=""):
        self.collection, self.app = collection, collection.wsgi()
        links = collection.links.items()
        self.paths = {name: "/" + link.removeprefix(url).lstrip("/") for name, link in links}

    def visit(self, name="anna"):
        return Visitor(self.app, self.paths[name], 1 + [*self.paths].index(name))

    def stranger(self):
        return Visitor(self.app)

    def rows(self, query):
        return rows_of(self.collection.database, query)

    def press(self, path, token=None, client=None, **fields):
        """Press a button of the owner's page."""
        owner = self.visit("owner")
        token = owner.token("/owner") if token is None else token
        return (client or owner.client).post(path, data={"form_token": token, **fields})


def said(response):
    return response.get_data(as_text=True)


@pytest.fixture
def open_site(folder, tmp_path, monkeypatch):
    """Return a function that opens a collection by what `study.toml` says; nothing is trained."""
    for name in ("start", "stop"):
        trainer = "tripletkit.collecting.choosing.BackgroundTrainer"
        monkeypatch.setattr(f"{trainer}.{name}", lambda self: None)
    opened = []

    def open_site(study="", judge=("anna", "ben"), url="", **settings):
        (tmp_path / "study.toml").write_text(study)
        settings = {"questions": 20, "port": None, "judge": judge, "url": url} | settings
        opened.append(tk.collect(folder, tmp_path / "j.sqlite", **settings))
        return Site(opened[-1], url)

    yield open_site
    for each in opened:
        each.close()


@pytest.fixture
def site(open_site):
    harm = "[x](javascript:alert(1)) ![i](http://a.example/i.png) <img src=x onerror=alert(1)>"
    return open_site(f'instructions = "Look *well*. <script>alert(1)</script> {harm}"')


@pytest.fixture
def anna(site):
    return site.visit()


def test_the_link_becomes_a_cookie_and_the_address_keeps_no_secret(site):
    client, link = site.app.test_client(), site.paths["anna"]
    response = client.get(link)
    assert (response.status_code, response.headers["Location"]) == (303, "/judge/1/")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert link.rpartition("/")[2] not in said(client.get("/judge/1/ask"))
    # The instructions show the link, to be kept.
    assert link in said(client.get("/judge/1/"))


def test_without_the_right_secret_there_is_nothing_to_see(site, anna):
    owner = site.visit("owner")
    judges = ["/judge/1/", "/judge/1/ask", "/judge/1/done"]
    owners, image = ["/owner", "/owner/answers.csv"], "/image/1/small"
    nobody = [*judges, *owners, image]
    for visitor, paths in ((site.stranger(), nobody), (anna, owners), (owner, judges)):
        for path in paths:
            response = visitor.get(path)
            assert response.status_code == 403
            assert SECRET_NAME not in said(response)
    assert owner.get("/owner").status_code == owner.get(image).status_code == 200
    for path in ("/j/", "/join/", "/owner/"):
        for token in ("x", "", "é", "%ff", "a" * 5000, site.paths["anna"][3:][::-1]):
            response = site.stranger().get(path + token)
            assert response.status_code == 404
            assert "Set-Cookie" not in response.headers


def test_a_collection_has_one_server(site, open_site):
    with pytest.raises(tk.TripletkitError, match="another server"):
        open_site()
    # Closed, it lets another have the database.
    site.collection.close()
    assert open_site().paths["anna"] == site.paths["anna"]


def test_every_token_is_compared_in_constant_time(site, anna, monkeypatch):
    compared = []
    original = hmac.compare_digest

    def compare(given, expected):
        compared.append(expected.decode())
        return original(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    links = {name: path.rpartition("/")[2] for name, path in site.paths.items()}
    form_token = anna.token()
    for act, expected in (
        # All judges, those after the right one as well.
        (lambda: site.stranger().get(site.paths["anna"]), [links["anna"], links["ben"]]),
        (lambda: anna.get("/judge/1/ask"), [links["anna"]]),
        (lambda: anna.answer(token=form_token, screen=1), [links["anna"], form_token]),
        (lambda: site.stranger().get("/owner/guess"), [links["owner"]]),
    ):
        compared.clear()
        act()
        assert compared == expected
    compared.clear()
    site.stranger().get("/join/guess")
    assert len(compared) == 1


def test_an_answer_from_elsewhere_is_refused(site, anna):
    for token in ("", "x", site.visit("ben").token(), site.paths["anna"][3:]):
        assert anna.post("answer", {}, token).status_code == 403
        assert anna.post("undo", {"undo_id": "undo-0001"}, token).status_code == 403
    form = {"side": "left", "screen": "1", "client_id": "client-0001"}
    assert anna.client.post("/judge/1/answer", data=form).status_code == 403
    assert len(site.collection) == 0


def test_an_answer_is_kept_and_sent_twice_is_one(site, anna):
    first = anna.answer()
    assert first.status_code == 200
    assert first.get_json()["is_new"] is True
    assert first.get_json()["done"] == 1
    ((screen,),) = site.rows("SELECT screen FROM answers")
    again = anna.answer(screen=screen)
    assert again.status_code == 200
    assert again.get_json()["is_new"] is False
    other = anna.answer(2, screen=screen, side="right")
    assert other.status_code == 409
    assert other.get_json()["screens"][0]["id"] != screen
    assert len(site.collection) == 1


def test_an_answer_is_read_strictly(site, anna):
    token = anna.token()
    for wrong in (
        *({"client_id": value} for value in ("short", "x" * 65, "bad id with blanks", 12345678)),
        *({"screen": value} for value in ("1", 1.5, True, -1, 2**70)),
        *({"side": value} for value in ("up", None, ["left"])),
        *({"places": value} for value in ("0", ["0"], [0] * 100)),
        *({"response_ms": value} for value in (-1, 1e12, float("nan"), float("inf"), "5", True)),
        *({"method": value} for value in ("telepathy", {})),
        {"extra": 1},
    ):
        assert anna.answer(token=token, **({"screen": 1} | wrong)).status_code == 400, wrong
    assert len(site.collection) == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a": NaN}', b"\xff", b"[" * 9000])
def test_what_is_no_answer_is_refused(site, anna, body):
    headers = {"X-Form-Token": anna.token()}
    for place in ("/judge/1/answer", "/judge/1/undo"):
        as_json = headers | {"Content-Type": "application/json"}
        assert anna.client.post(place, data=body, headers=as_json).status_code == 400
        assert anna.client.post(place, data=body, headers=headers).status_code == 400
    assert len(site.collection) == 0


def test_uploads_are_bounded(anna):
    assert anna.answer(client_id="x" * (MAX_BODY_BYTES + 1)).status_code == 413
    form = anna.client.post("/judge/1/answer", data={"form_token": "x" * (MAX_BODY_BYTES + 1)})
    assert form.status_code == 413


def test_there_is_no_way_to_another_file(anna):
    for path in (
        "/image/../../etc/passwd",
        "/image/%2e%2e%2f%2e%2e%2fetc%2fpasswd/small",
        f"/image/{SECRET_NAME}-00.jpg/small",
        "/image/-1/small",
        "/image/0/small",
        "/image/13/small",
        "/image/1/huge",
        "/image/1/../../j.sqlite",
        "/image/99999999999999999999999/small",
        "/static/../pages.py",
        "/static/%2e%2e/pages.py",
        "/static/..%2f..%2fdefaults.py",
        "/static/%2fetc%2fpasswd",
    ):
        response = anna.get(path, follow_redirects=True)
        assert response.status_code == 404, path
        assert b"root:" not in response.data and b"import" not in response.data


def number_of(site, name):
    return dict(site.rows("SELECT name, id FROM images"))[f"{SECRET_NAME}-{name}.jpg"]


@pytest.mark.slow
def test_images_are_scaled_upright_and_without_their_story(site, anna):
    for size, px in {"small": 360, "medium": 720, "large": 1280}.items():
        response = anna.get(f"/image/{number_of(site, '00')}/{size}")
        assert response.status_code == 200
        with Image.open(io.BytesIO(response.data)) as image:
            # 1600 by 1200, turned by a quarter.
            assert image.size == (round(px * 0.75), px)
            assert not dict(image.getexif())
        assert b"CameraOfAnna" not in response.data
    assert "private" in response.headers["Cache-Control"]
    # A tiny one keeps its pixels.
    tiny = anna.get(f"/image/{number_of(site, '03')}/small")
    with Image.open(io.BytesIO(tiny.data)) as image:
        assert (image.format, image.size) == ("PNG", (80, 60))


def test_a_broken_image_is_not_found_and_told_and_asked_about_no_more(site, anna, folder, caplog):
    number = number_of(site, "03")
    (folder / f"{SECRET_NAME}-03.jpg").write_bytes(b"\xff\xd8 broken")
    with caplog.at_level(logging.WARNING, logger="tripletkit"):
        response = anna.get(f"/image/{number}/small")
    assert response.status_code == 404
    assert SECRET_NAME not in said(response)
    assert "cannot be read" in caplog.text
    for place in range(20):
        screens = anna.state()["screens"]
        assert all(number not in (screen["anchor"], *screen["shown"]) for screen in screens)
        anna.answer(place)


def test_no_page_shows_a_name_a_path_or_anothers_answer(site, anna, folder):
    site.visit("ben").answer_all(8)
    anna.answer()
    pages = [anna.page(), anna.page("ask"), said(anna.answer(2))]
    for page in [*pages, site.visit("owner").page("/owner")]:
        assert SECRET_NAME not in page
        assert str(folder) not in page and "j.sqlite" not in page
    for page in pages:
        assert "ben" not in page
        assert "random" not in page and "repeat" not in page
    # Images of two studies at one port are not taken for one another.
    addresses = re.findall(r'/image/\d+/\w*[^ "]*', pages[1])
    ((study,),) = site.rows("SELECT value FROM meta WHERE key = 'database'")
    assert len(addresses) > 9 and all(study in address for address in addresses)
    assert anna.get(addresses[-1]).status_code == 200


@pytest.mark.slow
def test_every_reply_keeps_to_itself_and_brings_nothing_from_elsewhere(open_site):
    site = open_site()
    anna = site.visit()
    for response in (
        anna.get("/judge/1/"),
        anna.get("/judge/1/ask"),
        anna.answer(),
        anna.get("/image/1/small"),
        anna.get("/static/collect.js"),
        site.stranger().get("/nothing"),
        site.stranger().get("/judge/1/ask"),
        site.visit("owner").get("/owner"),
    ):
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers.getlist("Content-Security-Policy") == [policy]
        if response.mimetype == "text/html":
            page = said(response)
            assert response.headers["Cache-Control"] == "no-store"
            assert not re.search(r"<script(?![^>]* src=)", page)
            assert not re.search(r"<style|<[^>]*\s(style|on\w+)=", page)
            for address in re.findall(r'(?:src|href|action)="([^"]*)"', page):
                assert address.startswith("/") and not address.startswith("//")


def test_no_secret_is_logged(site, anna, caplog):
    with caplog.at_level(logging.DEBUG):
        site.visit()
        site.visit("owner")
        site.stranger().get("/j/wrong")
        anna.answer()
    for secret in (*(path.rpartition("/")[2] for path in site.paths.values()), anna.token()):
        assert secret not in caplog.text


def test_instructions_can_do_no_harm(anna):
    page = anna.page()
    assert "Look <em>well</em>." in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<img") == 0 and 'href="javascript' not in page


def join(site, name, token=None):
    client, address = site.app.test_client(), site.paths["everybody"]
    given = TOKEN.search(said(client.get(address)))[1] if token is None else token
    return client, client.post(address, data={"name": name, "form_token": given})


@pytest.fixture
def everybody(open_site):
    site = open_site(judge=())
    assert set(site.paths) == {"everybody", "owner"}
    return site


def judges_of(site):
    return [name for (name,) in site.rows("SELECT name FROM judges ORDER BY id")]


def test_who_joins_gives_a_name(everybody):
    client, response = join(everybody, "  Anna   Maria ")
    assert response.status_code == 303
    assert "Hello Anna Maria" in said(client.get("/judge/1/"))
    _, elsewhere = join(everybody, "anna", token="")
    assert elsewhere.status_code == 403
    _, taken = join(everybody, "anna maria")
    assert taken.status_code == 200
    assert "taken" in said(taken)
    assert "Set-Cookie" not in taken.headers
    hostile = "<b>&\"'{{ 7 * 7 }}"
    client, response = join(everybody, hostile)
    assert response.status_code == 303
    assert html.escape(hostile).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in said(
        client.get("/judge/2/")
    )
    for name in ("", "   ", "x" * 41, "a\x00b", "a\u202eb", "\u200b"):
        assert "A name has 1 to 40 letters" in said(join(everybody, name)[1])
    assert judges_of(everybody) == ["Anna Maria", hostile]


def test_the_common_link_knows_who_comes_back(everybody):
    client, _ = join(everybody, "Anna")
    page = said(client.get(everybody.paths["everybody"]))
    assert "Go on as Anna" in page
    # The same name in the same browser is the same person; another name is another.
    for name, number in (("Anna", 1), ("Ben", 2)):
        form = {"name": name, "form_token": TOKEN.search(page)[1]}
        again = client.post(everybody.paths["everybody"], data=form)
        assert again.headers["Location"] == f"/judge/{number}/"
    assert judges_of(everybody) == ["Anna", "Ben"]
    # Each has pages of their own in the same browser.
    both = [Visitor(everybody.app, number=number) for number in (1, 2)]
    both[0].client = both[1].client = client
    for judge, name in zip(both, ("Anna", "Ben"), strict=True):
        assert f">{name}</a>" in judge.page("ask")
        assert judge.answer(judge.number).status_code == 200
        # The page of the one does not answer for the other.
        assert both[2 - judge.number].answer(token=judge.token()).status_code == 403
    assert everybody.rows("SELECT judge FROM answers ORDER BY id") == [(1,), (2,)]


def test_the_owner_adds_pauses_revokes_leaves_out_and_ends(site, anna):
    anna.answer()
    owner = site.visit("owner")
    page = owner.page("/owner")
    assert site.paths["anna"] in page and "<svg" in page and "Revoke the link" in page
    assert site.press("/owner/judges", name=" Cleo ").status_code == 303
    assert "taken" in said(site.press("/owner/judges", name="cleo"))
    table = owner.get("/owner/answers.csv")
    assert table.headers["Content-Disposition"].endswith("answers.csv")
    assert said(table).splitlines()[1].startswith("anna,")
    assert site.press("/owner/judges/1/anything").status_code == 404
    site.press("/owner/judges/1/leave-out")
    assert read_answers_given(site.collection.database) == []
    assert "answers left out" in owner.page("/owner")
    site.press("/owner/judges/1/pause")
    assert "paused" in anna.page("ask")
    assert anna.post("answer", {}).status_code == 403
    site.press("/owner/judges/1/go-on")
    site.press("/owner/end")
    assert anna.get("/judge/1/ask").headers["Location"] == "/judge/1/done"
    site.press("/owner/go-on")
    assert anna.get("/judge/1/ask").status_code == 200
    site.press("/owner/judges/1/revoke")
    assert anna.get("/judge/1/").status_code == anna.get("/image/1/small").status_code == 403
    assert "withdrawn" in site.stranger().page(site.paths["anna"])
    assert "No study has this link" in site.stranger().page("/j/abc")


def test_only_the_owners_page_changes_judges(site, anna):
    for client, token in (
        (None, "wrong"),
        (anna.client, None),
        (anna.client, anna.token()),
        (site.app.test_client(), None),
    ):
        for path in ("/owner/judges", "/owner/judges/1/revoke", "/owner/end"):
            assert site.press(path, token, client, name="x").status_code == 403
    assert site.rows("SELECT name, state FROM judges") == [("anna", "active"), ("ben", "active")]
    assert site.rows("SELECT * FROM meta WHERE key = 'ended'") == []


def test_the_end_says_thanks_and_can_be_taken_back(anna):
    token = anna.token()

    def undo(number):
        return anna.post("undo", {"undo_id": f"undo-{number:04}"}, token).get_json()

    assert undo(1)["undone"] is False
    # 19 left, 9 seconds each.
    kept = anna.answer(response_ms=8700).get_json()
    assert kept["progress"] == "1 of 20, about 3 min left"
    reply = undo(2)
    assert (reply["undone"], reply["done"], reply["can_undo"]) == (True, 0, False)
    for body in ({}, {"undo_id": 5}, {"undo_id": "undo-0003", "x": 1}, []):
        assert anna.post("undo", body).status_code == 400
    anna.answer_all()
    assert anna.get("/judge/1/ask").headers["Location"] == "/judge/1/done"
    assert "Thank you, anna" in anna.page("done")
    form = {"form_token": token, "undo_id": "undo-0004"}
    assert anna.client.post("/judge/1/undo", data=form).headers["Location"] == "/judge/1/ask"
    assert anna.get("/judge/1/done").headers["Location"] == "/judge/1/ask"


@pytest.mark.slow
def test_the_owner_sees_judges_and_what_more_would_bring(open_site):
    # Every question goes to both: whether they overlap is not left to chance.
    site = open_site("stop_points = 20.0", judge=("anna", "<carla>"), overlap=2)
    site.visit().answer_all()
    carla = site.visit("<carla>")
    carla.answer_all(response_ms=100)
    points = [
        {"n_questions": n, "accuracy": a, "low": a - 0.1, "high": min(a + 0.1, 1)}
        for n, a in ((10, 0.6), (20, 0.7), (40, 0.8))
    ]
    about = {"curve": points, "n_random": 40, "more": 200, "after_more": 0.9}
    about["hardest"] = [{"anchor": 1, "chosen": 2, "other": 3, "votes": [2.0, 0.5]}]
    site.collection._collected.add_model(40, about, [])
    owner = site.visit("owner")
    page = owner.page("/owner")
    for text in (
        "40 answers",
        "&lt;carla&gt;",
        "20 of 20 answers took less than 0.5 s",
        "Krippendorff",
        '40</td><td class="number">80.0%</td><td class="number">70.0% to 90.0%</td>',
        "Another 200 would bring it to about <strong>90.0%</strong>",
        "That is less than 20.0 points: it is enough",
        ">accuracy</text>",
        ">questions learned from</text>",
        'y2="256.0"/><text x="48" y="260.0" text-anchor="end">50%</text>',
        'points="78.6',
        'text-anchor="middle">40</text>',
        'text-anchor="end">240</text>',
        'src="/image/2/medium?of=',
        'alt="Chosen by the judges"',
        ">2 to 0.5<",
        "Features of the images are being computed.",
    ):
        assert text in page, text
    assert owner.get("/image/1/small").status_code == 200
    # Where errors do not fall as a power does, nothing is known of more answers.
    site.collection._collected.add_model(41, about | {"after_more": None}, [])
    page = owner.page("/owner")
    assert "do not yet tell what more would bring" in page
    assert "it is enough" not in page and 'class="ahead"' not in page


def words_of(language):
    return tomllib.loads((WORDS / f"{language}.toml").read_text())


@pytest.mark.parametrize("language", ["en", "de", "es", "fr"])
def test_every_language_says_everything(open_site, language):
    words, english = words_of(language), words_of("en")
    assert set(words) == set(english)
    for key, text in words.items():
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", english[key]))
        if language != "en":
            assert text != english[key] or key in {"zoom", "name", "pause", "image_n"}, key
    anna = open_site(f'language = "{language}"').visit()
    page = anna.page("ask")
    assert f'<html lang="{language}">' in page and words["cant_tell"] in page
    assert words["left"] in page and words["in_the_middle"] in page
    assert words["no_such_link"] in anna.page("/j/wrong")


def test_words_of_ones_own_are_whole(open_site, tmp_path):
    source, own = (WORDS / "en.toml").read_text(), tmp_path / "words-it.toml"
    study = 'language = "words-it.toml"'
    for spoil, text in (("{done} of", "{finished} of"), ('left = "Left"\n', "")):
        own.write_text(source.replace(spoil, text))
        with pytest.raises(tk.TripletkitError, match="expected the keys of the English words"):
            open_site(study)
    own.write_text(source.replace('lang = "en"', 'lang = "it"'))
    assert '<html lang="it">' in open_site(study).visit().page()


def test_nobody_answers_before_they_have_agreed(open_site):
    site = open_site('consent = "Your answers are **kept**. <script>"')
    anna = site.visit()
    page = anna.page()
    assert "Your answers are <strong>kept</strong>. &lt;script&gt;" in page
    assert 'type="checkbox" name="agree"' in page
    assert anna.get("/judge/1/ask").headers["Location"] == "/judge/1/"
    form = {"form_token": anna.token("/judge/1/")}
    assert anna.answer(token=form["form_token"], screen=1).status_code == 403
    for wrong, code in ((form, 400), ({"agree": "yes"}, 403)):
        assert anna.client.post("/judge/1/agree", data=wrong).status_code == code
    assert anna.client.post("/judge/1/agree", data=form | {"agree": "yes"}).status_code == 303
    assert anna.answer().status_code == 200
    ((about,),) = site.rows("SELECT about FROM judges WHERE id = 1")
    assert json.loads(about)["consent"]["at"].startswith("20")
    # To another text they have not agreed.
    site.collection.close()
    anna = open_site('consent = "Something else."').visit()
    assert anna.get("/judge/1/ask").headers["Location"] == "/judge/1/"


def test_practice_comes_first_says_what_is_right_and_counts_for_nothing(open_site):
    named = [f"{SECRET_NAME}-{n:02}" for n in range(6)]
    rows = [[named[0], named[3], named[1], "Both are round."], [named[1], named[4], named[2]]]
    site = open_site(f"practice = {json.dumps(rows)}", questions=8)
    names, anna = dict(site.rows("SELECT id, name FROM images")), site.visit()
    state = anna.state()
    assert state["progress"] == "Practice 1 of 2"
    assert [screen["practice"] for screen in state["screens"]] == [True, True, False, False]
    # Right first, then wrong.
    for number, row in enumerate(rows):
        screen = state["screens"][0]
        assert names[screen["anchor"]] == f"{row[0]}.jpg"
        right = "left" if names[screen["shown"][0]] == f"{row[1]}.jpg" else "right"
        wrong = {"left": "right", "right": "left"}[right]
        state = anna.answer(number, side=wrong if number else right).get_json()
        text = f"Here the answer is “{right.capitalize()}”." if number else "Right. Both are round."
        assert state["feedback"] == text
        assert state["can_undo"] and state["done"] == 0
    assert state["progress"].startswith("0 of 8")
    assert len(site.collection) == 0
    assert read_answers_given(site.collection.database) == []
    anna.answer_all()
    assert len(site.collection) == 8


def test_who_comes_from_prolific_has_no_name_to_give(open_site):
    link = "https://app.prolific.com/submissions/complete"
    site = open_site(f'code = "C1X2"\nlink = "{link}?cc={{code}}&s={{SESSION_ID}}"', judge=())
    address = f"{site.paths['everybody']}?PROLIFIC_PID=5f1a&STUDY_ID=s1&SESSION_ID=e77"
    address += "&hitId=%3Cb%3E&other=1&assignmentId=" + "x" * 41  # odd ones are left out
    visitor = site.stranger()
    page = visitor.page(address)
    assert "What is your name" not in page and "Hello 5f1a" in page
    form = {"form_token": TOKEN.search(page)[1]}
    assert visitor.client.post(address, data=form).headers["Location"] == "/judge/1/"
    ((name, about),) = site.rows("SELECT name, about FROM judges")
    expected = {"PROLIFIC_PID": "5f1a", "STUDY_ID": "s1", "SESSION_ID": "e77"}
    assert (name, json.loads(about)["parameters"]) == ("5f1a", expected)
    # In another browser the same session is the same person, and another one is not.
    other = site.app.test_client()
    assert other.post(address, data=form).headers["Location"] == "/judge/1/"
    stranger = site.app.test_client()
    refused = stranger.post(address.replace("e77", "x"), data=form)
    assert "is taken" in said(refused) and "Set-Cookie" not in refused.headers
    visitor.answer_all()
    page = visitor.page("done")
    assert "C1X2" in page
    assert f'href="{link}?cc=C1X2&amp;s=e77"' in page


@pytest.mark.parametrize("prefix", ["/study", ""])
def test_behind_a_proxy_links_and_cookies_are_those_of_its_address(open_site, prefix):
    url = "https://museum.example/study/"
    site = open_site(url=url)
    browser, path = site.app.test_client(), site.paths["anna"]
    # What a visitor says of the host is not believed, whether or not the proxy leaves the prefix.
    lies = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http", "Host": "evil.example"}
    entered = browser.get(f"{prefix}{path}", headers=lies)
    assert entered.headers["Location"] == "/study/judge/1/"
    cookie = entered.headers["Set-Cookie"]
    assert "Secure" in cookie and "Path=/study" in cookie
    name, value = cookie.partition(";")[0].split("=")
    page = said(browser.get("/study/judge/1/", headers=lies | {"Cookie": f"{name}={value}"}))
    assert f"https://museum.example/study{path}" in page and "evil" not in page
    for address in re.findall(r'(?:src|href|action)="(/[^"]*)"', page):
        assert address.startswith("/study/")
