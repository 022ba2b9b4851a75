"""Judges at work in a real browser: keyboard, mouse and touch, and everything that can go wrong.

Whatever happens, each answer that the page was told is kept is in the database once.
"""

from __future__ import annotations

import json
import time

import pytest
from browsers import check_fits, download_to, opened_browsers, set_screen, wait_until
from collect_server import opened_servers
from collected import read_answers_given, rows_of

import tripletkit as tk

Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def browse(tmp_path_factory):
    with opened_browsers(tmp_path_factory) as browse:
        yield browse


@pytest.fixture
def opened(serve, browse):
    """A server, and the page of its one judge."""
    server = serve("--judge", "anna", "-n", 10)
    return server, Page(browse(), server.links["anna"])


@pytest.fixture
def serve(toy_competition, tiny_backbone, tmp_path):
    with opened_servers(toy_competition.images, tmp_path / "j.sqlite") as serve:
        yield serve


class Page:
    """A judge's page."""

    def __init__(self, driver, link):
        self.driver = driver
        driver.get(link)
        driver.find_element("id", "begin").click()
        self.wait_ready()

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait_until(self, condition):
        wait_until(condition, self.said)

    def wait_ready(self):
        """Wait until an answer can be given."""
        undecided = "const undecided = document.getElementById('neither');"
        is_ready = f"{undecided} return undecided && undecided.ariaDisabled === 'false'"
        self.wait_until(lambda: self.run(is_ready))

    def done(self):
        """Return how many answers the page counts; None on a page without a question."""
        return self.run("const bar = document.getElementById('bar'); return bar && bar.value")

    def said(self):
        return self.run(
            "const said = document.getElementById('said'); return said && said.textContent"
        )

    def screen(self):
        return int(self.run("return document.getElementById('answer').elements.screen.value"))

    def press(self, key):
        self.driver.find_element("tag name", "body").send_keys(key)

    def tap(self, element_id):
        """Touch an element as a finger does."""
        x, y = self.run(
            "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]",
            element_id,
        )
        for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            self.driver.execute_cdp_cmd(
                "Input.dispatchTouchEvent", {"type": kind, "touchPoints": points}
            )

    def after(self, act):
        """Do something that ends with the page ready for the next answer, one answer on."""
        before = self.done()
        act()
        self.wait_until(lambda: self.has_moved_on(before))
        if self.run("const pause = document.getElementById('pause'); return pause && pause.open"):
            self.driver.find_element("css selector", "#pause button").click()

    def has_moved_on(self, n_answers):
        """Return whether it is ready for another answer than the one after so many, or done.

        In one call: asked for one by one, the parts of the answer may be of two pages.
        """
        return self.run(
            "const [bar, undecided] = ['bar', 'neither'].map((id) => document.getElementById(id));"
            "return location.pathname.endsWith('/done') ||"
            " Boolean(bar && undecided) && bar.value !== arguments[0] && "
            "undecided.ariaDisabled === 'false'",
            n_answers,
        )

    def finished(self):
        return self.driver.current_url.endswith("/done")

    def errors(self):
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and "net::ERR" not in entry["message"]
        ]


def standing(database):
    """Return the answers that were not undone: screen, judge, choice, side, method, time."""
    return rows_of(
        database,
        "SELECT screen, judge, choice, side, method, response_ms FROM answers "
        "WHERE undone_at IS NULL ORDER BY id",
    )


def test_two_judges_answer_and_the_server_dies_in_the_middle(serve, browse, tmp_path):
    (tmp_path / "study.toml").write_text("pause_every = 8\n")
    options = ["--judge", "anna", "--judge", "ben", "-n", 20]
    server = serve(*options)
    anna = Page(browse(), server.links["anna"])
    ben_driver = browse(390, 844)
    ben_driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    ben = Page(ben_driver, server.links["ben"])
    keys = [Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN]
    for number in range(10):
        anna.after(lambda number=number: anna.press(keys[number % 3]))
        ben.after(lambda number=number: ben.tap(("left", "right", "neither")[number % 3]))
    # Taken back and answered otherwise, by key and by button.
    before = anna.screen()
    anna.after(lambda: anna.press(Keys.BACKSPACE))
    assert anna.done() == 9
    assert anna.screen() != before
    assert "Taken back" in anna.said()
    anna.after(lambda: anna.press(Keys.ARROW_LEFT))
    assert anna.screen() == before
    ben.after(lambda: ben.tap("undo"))
    ben.after(lambda: ben.tap("right"))

    # The server dies; what is answered meanwhile is kept in the page and sent to the next one.
    acknowledged = standing(server.database)
    assert len(acknowledged) == 20
    server.kill()
    screen = anna.screen()
    anna.press(Keys.ARROW_RIGHT)
    anna.wait_until(lambda: "No connection" in anna.said())
    assert anna.screen() == screen
    server = serve(*options, port=server.port)
    assert standing(server.database)[:20] == acknowledged
    anna.wait_until(lambda: anna.done() == 11)
    anna.wait_ready()
    assert anna.said() == ""

    # A double click, and a reload, change nothing.
    ben.driver.execute_script(
        "for (const side of ['left', 'left', 'right']) document.getElementById(side).click()"
    )
    ben.wait_until(lambda: ben.done() == 11)
    ben.wait_ready()
    screen = ben.screen()
    ben.driver.refresh()
    ben.wait_ready()
    assert (ben.screen(), ben.done()) == (screen, 11)

    for page, choose in (
        (anna, lambda side: anna.driver.find_element("id", side).click()),
        (ben, ben.tap),
    ):
        while not page.finished():
            side = ("left", "right", "neither")[page.done() % 3]
            page.after(lambda choose=choose, side=side: choose(side))
        assert "Thank you" in page.driver.find_element("tag name", "h1").text
        assert page.errors() == []

    answers = standing(server.database)
    assert len(answers) == len({screen for screen, *_ in answers}) == 40
    methods = {judge: [row[4] for row in answers if row[1] == judge] for judge in (1, 2)}
    assert (methods[1].count("keyboard"), methods[1].count("mouse")) == (11, 9)
    # One of Ben's was clicked by a script.
    assert (methods[2].count("keyboard"), methods[2].count("touch")) == (1, 19)
    assert all(0 < row[5] < 60_000 for row in answers)
    n_undone = "SELECT count(*) FROM answers WHERE undone_at IS NOT NULL"
    assert rows_of(server.database, n_undone) == [(2,)]
    choices = {answer.choice for answer in read_answers_given(server.database)}
    assert choices == {"first", "second", "cant-tell"}
    log = server.stop()
    assert "Stopped. 40 answers" in log
    for link in server.links.values():
        assert link.rpartition("/")[2] not in log
    assert tk.read_judgements(server.database).is_random.all()


def test_an_answer_is_sent_again_after_a_reload(opened):
    """The reply is lost, the page is loaded again, and the answer is there once."""
    server, page = opened
    # The server gets the answer, and the page never hears of it.
    page.run("""
        const original = window.fetch;
        window.fetch = async (...given) => { await original(...given); throw new TypeError("x"); };
    """)
    page.press(Keys.ARROW_LEFT)
    page.wait_until(lambda: "No connection" in page.said())
    page.driver.refresh()
    page.wait_until(lambda: page.run("return document.readyState") == "complete")
    page.wait_ready()
    assert page.done() == 1
    assert len(standing(server.database)) == 1
    # And one that the server never got.
    page.run('window.fetch = () => Promise.reject(new TypeError("offline"))')
    page.press(Keys.ARROW_RIGHT)
    page.wait_until(lambda: "No connection" in page.said())
    assert len(standing(server.database)) == 1
    page.driver.refresh()
    page.wait_until(lambda: page.done() == 2)
    assert [row[3] for row in standing(server.database)] == ["left", "right"]


def test_a_pause_is_not_counted_and_the_next_images_are_there(serve, browse, tmp_path):
    (tmp_path / "study.toml").write_text("pause_every = 2\n")
    server = serve("--judge", "anna", "-n", 10)
    driver, started_s = browse(), time.monotonic()
    page = Page(driver, server.links["anna"])
    loaded = "performance.getEntriesByType('resource').filter((e) => e.name.includes('/image/'))"
    page.wait_until(lambda: page.run(f"return {loaded}.length") >= 9)
    page.driver.find_element("id", "show-pause").click()
    page.press(Keys.ARROW_LEFT)
    time.sleep(4)
    assert standing(server.database) == []
    page.press(Keys.ESCAPE)
    page.after(lambda: page.press(Keys.ARROW_LEFT))
    assert standing(server.database)[0][5] < 1000 * (time.monotonic() - started_s - 1.4)
    page.press(Keys.ARROW_LEFT)
    page.wait_until(lambda: page.run("return document.getElementById('pause').open"))
    assert "2 answers are saved" in page.driver.find_element("id", "pause-text").text


def test_the_keyboard_keeps_its_place_and_looks_closely(opened):
    server, page = opened

    def press(key):
        page.driver.switch_to.active_element.send_keys(key)

    page.run("document.getElementById('right').focus()")
    for _ in range(3):
        page.after(lambda: press(Keys.SPACE))
        assert page.run("return document.activeElement.id") == "right"
    assert [row[3:5] for row in standing(server.database)] == [("right", "keyboard")] * 3
    shown = "return document.getElementById('zoom').open && document.getElementById('zoomed').alt"
    press("z")
    assert page.run(shown) == "Right image"
    press(Keys.ARROW_RIGHT)
    assert page.run(shown) == "The image to compare with"
    press("z")
    assert not page.run(shown)
    # No arrow was taken for an answer.
    assert len(standing(server.database)) == 3
    assert "anna" in page.driver.find_element("class name", "who").text
    assert page.errors() == []


def test_a_grid_by_keys_and_by_mouse(serve, browse):
    server = serve("--judge", "anna", "-n", 8, "--screen", "grid", "--of", 6, "--pick", 2)
    page = Page(browse(), server.links["anna"])
    page.press("1")
    submit = page.driver.find_element("id", "submit-grid")
    assert submit.get_attribute("aria-disabled") == "false"  # one is enough
    page.press("4")
    page.after(lambda: page.press(Keys.ENTER))
    boxes = page.driver.find_elements("css selector", ".grid-images .choice")
    boxes[0].click()
    boxes[5].click()
    assert not page.driver.find_elements("css selector", "input[type=checkbox]")[1].is_enabled()
    page.after(lambda: page.driver.find_element("id", "submit-grid").click())
    page.after(lambda: page.press(Keys.ARROW_DOWN))
    assert page.errors() == []
    answers = read_answers_given(server.database)
    # Two of six: each picked one is nearer than each of the four others.
    assert len(answers) == 16
    assert {answer.screen for answer in answers} == {1, 2}
    judgements = tk.read_judgements(server.database)
    assert sorted(set(judgements.triplets.trials.tolist())) == [1, 2]


def test_an_offline_page_is_answered_mailed_and_imported(
    browse, toy_competition, tripletkit, tmp_path
):
    database, path = tmp_path / "j.sqlite", tmp_path / "carla.html"
    (tmp_path / "study.toml").write_text('consent = "Your answers are kept."')
    result = tripletkit(
        *("collect", str(toy_competition.images), "--db", str(database), "-n", "5"),
        *("--judge", "carla", "--offline", str(path)),
        code=0,
    )
    assert "http" not in path.read_text().replace("http-equiv", "")
    driver = browse()
    download_to(driver, tmp_path)
    driver.get(path.as_uri())

    def done():
        return driver.execute_script("return Number(document.getElementById('bar').value)")

    def press(key, expected):
        driver.find_element("tag name", "body").send_keys(key)
        wait_until(lambda: done() == expected)
        time.sleep(0.1)

    # Without the tick nothing is answered, and Escape does not help.
    driver.find_element("css selector", "dialog button").click()
    for _ in range(2):
        driver.find_element("tag name", "body").send_keys(Keys.ESCAPE)
    driver.find_element("tag name", "body").send_keys(Keys.ARROW_LEFT)
    assert done() == 0
    driver.find_element("id", "agree").click()
    driver.find_element("css selector", "dialog button").click()
    press(Keys.ARROW_LEFT, 1)
    press(Keys.ARROW_RIGHT, 2)
    press(Keys.BACKSPACE, 1)
    press(Keys.ARROW_DOWN, 2)
    driver.refresh()
    assert done() == 2
    for number in (3, 4, 5):
        time.sleep(0.1)
        press(Keys.ARROW_LEFT, number)
    driver.find_element("id", "save").click()
    answers = tmp_path / "answers-carla.json"
    wait_until(answers.exists)
    assert driver.get_log("browser") == []
    for said in ("5 answers of carla added", "0 answers of carla added, 5 were there already"):
        result = tripletkit("collect", "--db", database, "--import", answers, code=0)
        assert said in result.stderr
    given = read_answers_given(database)
    assert [answer.side for answer in given] == ["left", "neither", "left", "left", "left"]
    assert all(answer.response_ms > 0 for answer in given)
    saved = json.loads(answers.read_text())
    assert len(saved["answers"]) == 5 and len(saved["consent"]["text"]) == 16


@pytest.mark.parametrize("kind", ["question", "grid"])
def test_fits_the_screen(serve, browse, kind):
    """Wide, a phone, and 200% zoom: nothing is cut off at the side, all can be reached."""
    server, driver = serve("--judge", "anna", "-n", 10, "--screen", kind), browse()
    for width, height, scale, scheme in (
        (1280, 800, 1, "light"),
        (390, 844, 3, "dark"),
        (640, 400, 2, "light"),
    ):
        set_screen(driver, width, height, scale, scheme)
        page = Page(driver, server.links["anna"])
        check_fits(driver, width, scheme)
        if width != 640:
            assert page.run("return document.documentElement.scrollHeight") <= height
        names = page.run(
            "return [...document.querySelectorAll('img, button, input:not([type=hidden]), "
            "progress')].filter((e) => e.offsetParent).map((e) => e.alt || "
            "e.getAttribute('aria-labelledby') || e.textContent.trim() || "
            "(e.labels && e.labels[0] && e.labels[0].querySelector('img').alt))"
        )
        assert all(names)
        small = page.run(
            "return [...document.querySelectorAll('#answer button, .choice')].filter((e) => "
            "e.getBoundingClientRect().height < 40 || e.getBoundingClientRect().width < 40).length"
        )
        assert small == 0


def test_without_scripts_a_form_does_it(serve, browse):
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.expected_conditions import staleness_of
    from selenium.webdriver.support.ui import WebDriverWait

    server = serve("--judge", "anna", "-n", 3)
    driver = browse()
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(server.links["anna"])
    driver.find_element("id", "begin").click()
    for side in ("left", "neither", "right"):
        button = driver.find_element("id", side)
        button.click()
        # Between two pages the driver may not say whose the button is.
        waiting = WebDriverWait(driver, 60, ignored_exceptions=[WebDriverException])
        waiting.until(staleness_of(button))
    assert "Thank you" in driver.find_element("tag name", "h1").text
    answers = [row[3:5] for row in standing(server.database)]
    assert answers == [("left", "form"), ("neither", "form"), ("right", "form")]
