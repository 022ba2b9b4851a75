"""What a study says and asks: languages, consent, practice, checks, codes, proxies, old answers."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from collected import answer_all, by_label, names_of, start
from PIL import Image

import tripletkit as tk
from tripletkit import TripletkitError
from tripletkit.collecting import serving, study
from tripletkit.collecting.pages import Site, make_app
from tripletkit.collecting.serving import ScaledImages
from tripletkit.collecting.study import LANGUAGES, Study, _read_words, read_study
from tripletkit.data.judgement_files import read_answers_given
from tripletkit.data.judgements import read_judgements

NAMES = [f"p{n:02}.png" for n in range(12)]
LABELS = {name: n % 3 for n, name in enumerate(NAMES)}
PRACTICE = {
    ("p00.png", "p03.png", "p01.png"): "Both are round.",
    ("p01.png", "p04.png", "p02.png"): "",
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (80, 60), (20 * number, 90, 200)).save(path / name)
    return path


@pytest.fixture
def visit(folder, tmp_path):
    """Return a function that opens a study and gives a browser in it, and the site."""

    def visit(url="", practice=None, **said):
        database, asker = start(tmp_path / "j.sqlite", NAMES, (), practice, n_questions=8)
        numbers = database.add_images(NAMES)
        images = ScaledImages({number: folder / name for name, number in numbers.items()})
        rows = tuple((*row, why) for row, why in (practice or {}).items())
        site = Site(database, asker, images, Study(practice=rows, **said))
        return make_app(site, url).test_client(), site

    return visit


def text_of(response):
    return response.get_data(as_text=True)


def token_of(site, judge):
    return serving.form_token(site.database.key, judge.token)


def enter(browser, site, name="anna", query=""):
    judge = site.database.add_judge(name)
    assert browser.get(f"/j/{judge.token}{query}").status_code == 303
    return judge


def send(browser, site, judge, screen, side, number):
    body = {"client_id": f"client-{number:04}", "screen": screen, "side": side, "places": []}
    body |= {"response_ms": 800, "method": "mouse"}
    headers = {"X-Form-Token": token_of(site, judge)}
    return browser.post(f"/judge/{judge.id}/answer", json=body, headers=headers)


def state_of(browser):
    page = text_of(browser.get("/judge/1/ask"))
    return json.loads(html.unescape(re.search(r'data-state="([^"]*)"', page)[1]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything(visit, language):
    words, english = _read_words(language), _read_words("en")
    assert set(words) == set(english)
    for key, said in words.items():
        assert sorted(re.findall(r"{\w+}", said)) == sorted(re.findall(r"{\w+}", english[key]))
        if language != "en":
            assert said != english[key] or key in {"zoom", "name", "pause", "image_n"}, key
    browser, site = visit(language=language, words=words)
    enter(browser, site)
    page = text_of(browser.get("/judge/1/ask"))
    assert f'<html lang="{language}">' in page and words["cant_tell"] in page
    assert words["left"] in page and words["in_the_middle"] in page
    assert words["progress_soon"].format(done=0, total=8) in page or "min" in page
    assert words["no_such_link"] in text_of(browser.get("/j/wrong"))


def test_words_of_ones_own_are_whole(tmp_path):
    source = Path(study.__file__).parent / "words" / "en.toml"
    own = tmp_path / "words-it.toml"
    own.write_text(source.read_text().replace('lang = "en"', 'lang = "it"'))
    (tmp_path / "study.toml").write_text('language = "words-it.toml"\n')
    assert read_study(tmp_path / "study.toml").say("lang") == "it"
    for spoil, said in (("{done} of", "{finished} of"), ('left = "Left"\n', "")):
        own.write_text(source.read_text().replace(spoil, said))
        with pytest.raises(TripletkitError, match="expected the keys of the English words"):
            read_study(tmp_path / "study.toml")


def test_the_template_says_nothing_yet_and_every_line_of_it_can_be_said(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(study.study_template())
    assert read_study(path) == Study()
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# What this")]
    lines = [line for line in lines if not line.startswith("# and start")]
    path.write_text("\n".join(re.sub(r"^# ?", "", line) for line in lines))
    said = tomllib.loads(path.read_text())
    assert set(said) == {f.name for f in dataclasses.fields(Study)} - {"words"}
    assert read_study(path).practice == (tuple(said["practice"][0]),)


def test_nobody_answers_before_they_have_agreed(visit):
    browser, site = visit(consent="Your answers are **kept**. <script>")
    judge = enter(browser, site)
    page = text_of(browser.get("/judge/1/"))
    assert "Your answers are <strong>kept</strong>. &lt;script&gt;" in page
    assert 'type="checkbox" name="agree"' in page
    assert browser.get("/judge/1/ask").headers["Location"] == "/judge/1/"
    screen = site.asker.screens(judge.id)[0].id
    assert send(browser, site, judge, screen, "left", 1).status_code == 403
    form = {"form_token": token_of(site, judge)}
    assert browser.post("/judge/1/agree", data=form).status_code == 400
    assert browser.post("/judge/1/agree", data={"agree": "yes"}).status_code == 403
    assert browser.post("/judge/1/agree", data=form | {"agree": "yes"}).status_code == 303
    assert send(browser, site, judge, screen, "left", 1).status_code == 200
    (kept,) = site.database.judges()
    assert kept.about["consent"]["at"].startswith("20")
    # To another text they have not agreed.
    site.study = dataclasses.replace(site.study, consent="Something else.")
    assert browser.get("/judge/1/ask").headers["Location"] == "/judge/1/"


def test_practice_comes_first_says_what_is_right_and_counts_for_nothing(visit):
    browser, site = visit(practice=PRACTICE)
    judge = enter(browser, site)
    names = names_of(site.database)
    state = state_of(browser)
    assert state["progress"] == "Practice 1 of 2"
    assert [screen["practice"] for screen in state["screens"]] == [True, True, False, False]
    # Right first, then wrong.
    for number, (row, why) in enumerate(PRACTICE.items()):
        screen = state["screens"][0]
        assert names[screen["anchor"]] == row[0]
        right = "left" if names[screen["shown"][0]] == row[1] else "right"
        wrong = {"left": "right", "right": "left"}[right]
        state = send(
            browser, site, judge, screen["id"], wrong if number else right, number
        ).get_json()
        said = f"Here the answer is “{right.capitalize()}”." if number else f"Right. {why}"
        assert state["feedback"] == said
        assert state["can_undo"] and state["done"] == 0
    assert state["progress"].startswith("0 of 8")
    assert site.database.n_answers() == 0
    assert read_answers_given(site.database.path) == []
    answer_all(site.database, site.asker, "anna", by_label(LABELS))
    assert site.database.n_answers() == 8


def test_who_comes_from_prolific_has_no_name_to_give(visit):
    browser, site = visit(
        code="C1X2", link="https://app.prolific.com/submissions/complete?cc={code}&s={SESSION_ID}"
    )
    address = f"/join/{site.database.open_token}"
    query = "?PROLIFIC_PID=5f1a&STUDY_ID=s1&SESSION_ID=e77"
    page = text_of(browser.get(address + query))
    assert "What is your name" not in page and "Hello 5f1a" in page
    form = {"form_token": serving.form_token(site.database.key, site.database.open_token)}
    assert browser.post(address + query, data=form).headers["Location"] == "/judge/1/"
    (judge,) = site.database.judges()
    expected = {"PROLIFIC_PID": "5f1a", "STUDY_ID": "s1", "SESSION_ID": "e77"}
    assert (judge.name, judge.about["parameters"]) == ("5f1a", expected)
    # In another browser the same session is the same person, and another one is not.
    other = browser.application.test_client()
    assert other.post(address + query, data=form).headers["Location"] == "/judge/1/"
    stranger = browser.application.test_client()
    refused = stranger.post(address + query.replace("e77", "x"), data=form)
    assert "is taken" in text_of(refused) and "Set-Cookie" not in refused.headers
    answer_all(site.database, site.asker, "5f1a", by_label(LABELS))
    page = text_of(browser.get("/judge/1/done"))
    assert "C1X2" in page
    assert 'href="https://app.prolific.com/submissions/complete?cc=C1X2&amp;s=e77"' in page


def test_odd_parameters_are_left_out(visit):
    browser, site = visit()
    enter(browser, site, query="?workerId=W1&hitId=%3Cb%3E&other=1&assignmentId=" + "x" * 41)
    (judge,) = site.database.judges()
    assert judge.about["parameters"] == {"workerId": "W1"}


@pytest.mark.parametrize("path", ["/study/j/{}", "/j/{}"])
def test_behind_a_proxy_links_and_cookies_are_those_of_its_address(visit, path):
    browser, site = visit(url="https://museum.example/study/")
    judge = site.database.add_judge("anna")
    # What a visitor says of the host is not believed, whether or not the proxy leaves the prefix.
    lies = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http", "Host": "evil.example"}
    entered = browser.get(path.format(judge.token), headers=lies)
    assert entered.headers["Location"] == "/study/judge/1/"
    cookie = entered.headers["Set-Cookie"]
    assert "Secure" in cookie and "Path=/study" in cookie
    name, value = cookie.partition(";")[0].split("=")
    page = text_of(browser.get("/study/judge/1/", headers=lies | {"Cookie": f"{name}={value}"}))
    assert f"https://museum.example/study/j/{judge.token}" in page and "evil" not in page
    for address in re.findall(r'(?:src|href|action)="(/[^"]*)"', page):
        assert address.startswith("/study/")


def test_enough_is_enough():
    about = {"curve": [{"accuracy": 0.8}], "more": 200, "after_more": 0.804}
    assert Study().is_enough(about)
    assert not Study(stop_points=0.3).is_enough(about)
    # What was followed ahead for another number says nothing, and nor does nothing.
    assert not Study(stop_answers=100).is_enough(about)
    assert not Study().is_enough(about | {"after_more": None}) and not Study().is_enough({})


def collect(tripletkit, folder, database, *options, code=0):
    words = ["collect", folder, "--db", database, "--judge", "anna", *options]
    return tripletkit(*words, "--offline", database.with_suffix(".html"), "--force", code=code)


def test_a_study_is_made_kept_and_shown_and_changes_are_said(tripletkit, folder, tmp_path):
    database, path = tmp_path / "j.sqlite", tmp_path / "study.toml"
    first = collect(tripletkit, folder, database)
    assert path.read_text() == study.study_template()
    assert "Other than" not in first.stderr
    own = 'language = "de"\nquota = 9\nquestion = "Was ist ähnlicher?"\n'
    own += 'attention = [["p00", "p03", "p01"]]\n'
    path.write_text(own)
    second = collect(tripletkit, folder, database, "--overlap", 2)
    assert "Other than at the last start: overlap is 2, it was 1." in second.stderr
    assert "language is de, it was en" in second.stderr and "quota is 9" in second.stderr
    assert "Was ist ähnlicher?" in database.with_suffix(".html").read_text()
    # Nobody writes over it; without it the database knows it still.
    assert path.read_text() == own
    path.unlink()
    third = collect(tripletkit, folder, database, "--overlap", 2, "-n", 5)
    assert "n_questions is 5, it was 9" in third.stderr and "language" not in third.stderr
    assert not path.exists()
    old, asker = start(tmp_path / "old.sqlite", NAMES, n_questions=4)
    answer_all(old, asker, "ben", by_label(LABELS))
    assert tk.judges(tmp_path / "old.sqlite").study == {}
    tripletkit("collect", folder, "--db", database, "--import", "old.csv", code=2)


def test_a_study_that_is_not_right_makes_no_database(tripletkit, folder, tmp_path):
    (tmp_path / "study.toml").write_text('practice = [["p00", "p01", "nobody"]]\n')
    refused = collect(tripletkit, folder, tmp_path / "j.sqlite", code=1)
    assert "nobody" in refused.stderr
    (tmp_path / "study.toml").write_text("quota = 0\n")
    refused = collect(tripletkit, folder, tmp_path / "new.sqlite", code=1)
    assert "quota: expected a number from 1 on" in refused.stderr
    assert not (tmp_path / "new.sqlite").exists()


OLD = {
    "triplets.txt": "p00 p03 p01\np01 p04 p02\n",
    "answers.csv": "a,b,c,choice\np00.png,p01.png,p03.png,c\np01.png,p04.png,p02.png,b\n",
    "salmon.csv": "head,winner,loser,rt\np00,p03,p01,1.2\np01,p04,p02,0.8\n",
    "rows.jsonl": '{"anchor": "p00", "positive": "p03", "negative": "p01"}\n'
    '{"anchor": "p01", "positive": "p04", "negative": "p02"}\n',
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_study_goes_on(tripletkit, folder, tmp_path, name):
    database, table = tmp_path / "j.sqlite", tmp_path / name
    table.write_text(OLD[name])
    words = ["collect", folder, "--db", database, "--import", table, "--judge", "old study"]
    assert "2 answers of old study added." in tripletkit(*words, code=0).stderr
    assert "0 answers of old study added, 2 were there" in tripletkit(*words, code=0).stderr
    judgements = read_judgements(database)
    names = judgements.triplets.names
    told = [[names[image] for image in row] for row in judgements.triplets.rows]
    assert told == [["p00.png", "p03.png", "p01.png"], ["p01.png", "p04.png", "p02.png"]]
    given = read_answers_given(database)
    assert {(a.judge, a.how, a.method) for a in given} == {("old study", "imported", "import")}
    # New answers come beside it, and only questions drawn by chance are scored.
    collected, asker = start(database, NAMES, n_questions=6)
    answer_all(collected, asker, "anna", by_label(LABELS))
    both = read_judgements(database)
    # One that was drawn by chance as well is fair.
    assert both.is_random[2:].all() and {answer.probability for answer in given} == {0.0}
    assert read_judgements(database, exclude=["anna"]).is_random is None


def test_votes_become_judges_and_what_cannot_is_refused(folder, tmp_path):
    table = pd.DataFrame({"a": ["p00", "p01"], "b": ["p01", "p04"], "c": ["p03", "p02"]}).assign(
        votes_b=[1, 3], votes_c=[2, 0]
    )
    imported = tk.import_judgements(tmp_path / "j.sqlite", table, folder)
    assert imported.n_new == 6 and str(imported) == "6 answers of imported added."
    judgements = read_judgements(tmp_path / "j.sqlite")
    assert judgements.votes.for_first.tolist() == [2, 3]
    assert judgements.votes.for_second.tolist() == [1, 0]
    assert [judge.name for judge in tk.judges(tmp_path / "j.sqlite").judges] == [
        "imported",
        "imported 2",
        "imported 3",
    ]
    shares = table.drop(columns=["votes_b", "votes_c"]).assign(share=[0.25, 1.0])
    with pytest.raises(TripletkitError, match="whole numbers of votes"):
        tk.import_judgements(tmp_path / "other.sqlite", shares, folder)
    with pytest.raises(TripletkitError, match="p99"):
        tk.import_judgements(tmp_path / "j.sqlite", table.assign(a="p99"), folder)
    with pytest.raises(TripletkitError, match="needs the folder"):
        tk.import_judgements(tmp_path / "j.sqlite", table)
    assert len(read_judgements(tmp_path / "j.sqlite")) == 2
    # Half a vote for each is one who cannot tell; so a database can be imported into another.
    halves = table.assign(votes_b=[1.5, 0], votes_c=[0.5, 1])
    assert tk.import_judgements(tmp_path / "halves.sqlite", halves, folder).n_new == 3
    again = tk.import_judgements(tmp_path / "copy.sqlite", tmp_path / "halves.sqlite", folder)
    assert again.n_new == 3
    assert read_judgements(tmp_path / "copy.sqlite").votes.for_first.tolist() == [1.5, 1.0]


def test_judges_show_the_study(folder, tmp_path, tripletkit):
    database = tmp_path / "j.sqlite"
    (tmp_path / "study.toml").write_text('language = "fr"\nconsent = "Oui ?"\n')
    with tk.collect(folder, database, questions=4, port=None) as collection:
        assert set(collection.links) == {"everybody", "owner"}
        asker = collection._site.asker
        answer_all(collection._site.database, asker, "ben", by_label(LABELS))
    result = tripletkit("judges", database, code=0)
    assert "How it was asked" in result.stdout and "Oui ?" in result.stdout
    told = json.loads(tripletkit("judges", database, "--json", code=0).stdout)["study"]
    assert (told["language"], told["n_questions"]) == ("fr", 4)


@pytest.mark.slow
@pytest.mark.integration
def test_an_application_for_a_server_of_ones_own(folder, tmp_path):
    database, url = tmp_path / "j.sqlite", "https://museum.example/study"
    with tk.collect(folder, database, judge=["anna"], url=f"{url}/", port=None) as collection:
        link = collection.links["anna"]
        assert link.startswith(f"{url}/j/")
        browser = collection.wsgi().test_client()
        assert browser.get(link.removeprefix("https://museum.example")).status_code == 303
        with pytest.raises(TripletkitError, match="another server"):
            tk.collect(folder, database, port=None)
    # Closed, it lets another have the database.
    tk.collect(folder, database, port=None).close()


def test_settings_that_exclude_each_other_are_refused(folder, tmp_path):
    for settings, said in (
        ({"url": "museum.example"}, "expected such as https://"),
        ({"screen": "grid", "overlap": 2}, "excludes `ask`, `overlap`"),
        ({"judge": ["  "]}, "expected a name"),
    ):
        with pytest.raises(tk.SettingsError, match=said):
            tk.collect(folder, tmp_path / "j.sqlite", port=None, **settings)
    assert not (tmp_path / "j.sqlite").exists()
