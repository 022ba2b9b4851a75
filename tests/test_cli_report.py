"""`tripletkit report` as a file, and in a real browser.

Names are hostile on purpose: a report is made of other people's file names.
"""

import base64
import gzip
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from browsers import check_fits, download_to, opened_browsers, set_screen, wait_until
from conftest import read_record
from opened import read_triplets

from tripletkit import defaults


def write_triplets(path, names, rows):
    named = np.array(names, dtype=object)[np.asarray(rows)]
    pd.DataFrame(named, columns=["a", "b", "c"]).to_csv(path, index=False)


# What the images p42.png and so on are called here, so that every row has one of these.
HOSTILE = [
    "<script>document.title='owned'<!--.png",
    """a "quote" and an 'other'.png""",
    "R&D &lt;b&gt;.png",
    "寿司 über é.png",
    "x onerror=alert(1) .png",
    "{{ 7 * 7 }}{% raw %}.png",
]
LABELS = ["</script><script>document.title='owned'</script>", "R&D", "寿司", "<b>", "'", "0"]


class Reported(NamedTuple):
    """A report and what it was made from."""

    path: Path
    triplets: Path
    truth: Path
    images: Path


@pytest.fixture(scope="module")
def reported(tripletkit, toy_competition, toy_model, tiny_weights, tmp_path_factory) -> Reported:
    import tiny_backbone as tiny

    folder = tmp_path_factory.mktemp("report")
    images = Path(shutil.copytree(toy_competition.images, folder / "images"))
    renamed = {f"p{42 + number}.png": name for number, name in enumerate(HOSTILE)}
    for old, new in renamed.items():
        (images / old).rename(images / new)
    queries = read_triplets(toy_competition.test)
    triplets = folder / "queries.csv"
    write_triplets(triplets, [renamed.get(name, name) for name in queries.names], queries.rows)
    labels = folder / "labels.csv"
    pd.DataFrame(
        {
            "name": [renamed.get(f"p{n:02}.png", f"p{n:02}.png") for n in range(60)],
            "label": [LABELS[label] for label in toy_competition.labels],
        }
    ).to_csv(labels, index=False)
    # Every seventh truth is turned round, so that there are mistakes to show.
    truth = folder / "truth.csv"
    told = pd.read_csv(toy_competition.truth)
    told.loc[::7, "label"] ^= 1
    told.to_csv(truth, index=False)
    path = folder / "report.html"
    arguments = ["report", toy_model, "--triplets", triplets, "--truth", truth]
    arguments += ["--images", images, "--labels", labels, "-o", path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tiny.WEIGHTS_VARIABLE, str(tiny_weights))
        patch.setenv(defaults.CACHE_VARIABLE, str(folder / "cache"))
        tiny.register()
        result = tripletkit(*arguments)
        tiny.unregister()
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    return Reported(path, triplets, truth, images)


@pytest.fixture(scope="module")
def text(reported) -> str:
    return reported.path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tags(text) -> list[tuple[str, dict]]:
    """The tags of the page, each with its attributes."""
    parser, found = HTMLParser(), []
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    parser.feed(text)
    return found


def embedded(text, key):
    return json.loads(re.search(rf'id="{key}">(.*?)</script>', text, re.S).group(1))


def embedded_table(text):
    packed = embedded(text, "rows").partition(",")[2]
    return gzip.decompress(base64.b64decode(packed)).decode()


@pytest.mark.slow
def test_asks_the_network_for_nothing(text, tags):
    assert len(text.encode()) < 5e6
    for tag, attributes in tags:
        for name in ("src", "srcset", "href", "action", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, value[:80])
    assert "url(" not in text and "@import" not in text
    policy = next(a["content"] for t, a in tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy
    # A file offers no place to drop an image.
    assert "connect-src" not in policy and 'id="drop"' not in text


def test_every_image_has_a_text_and_every_number_a_image(text, tags):
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) > 100
    assert all(attributes["alt"].strip() for attributes in images)
    embedded_images = embedded(text, "images")
    numbers = {int(a["data-image"]) for a in images if "data-image" in a}
    assert numbers == set(range(len(embedded_images)))
    assert all(source.startswith("data:image/jpeg;base64,") for source in embedded_images)


def test_names_inject_nothing(tags):
    """Each tag that begins a script is one of ours, and each name is there as a text."""
    kinds = [attributes.get("type") for tag, attributes in tags if tag == "script"]
    assert kinds == ["application/json", "application/json", None]
    alts = " ".join(attributes["alt"] for tag, attributes in tags if tag == "img")
    for name in HOSTILE:
        assert name in alts
    assert not any(key.startswith("on") for _, attributes in tags for key in attributes)


def test_csv_has_every_row(reported, text):
    table = pd.read_csv(io.StringIO(embedded_table(text)), dtype={"anchor": str})
    queries = read_triplets(reported.triplets)
    assert table["line"].tolist() == queries.lines.tolist()
    assert table["anchor"].tolist() == [queries.names[row] for row in queries.rows[:, 0]]
    truth = pd.read_csv(reported.truth)["label"]
    slots = truth.map({1: 1, 0: 2}).to_numpy()
    positives = [queries.names[row[slot]] for row, slot in zip(queries.rows, slots, strict=True)]
    assert table["positive"].tolist() == positives
    measured = (table["d_negative"] - table["d_positive"] - table["margin"]).abs().max()
    assert measured < 1e-4
    assert (table["right"] == (table["margin"] > 0)).all()


@pytest.fixture
def report(tripletkit, tiny_backbone, tmp_path):
    """Write a report; return the page and what was said."""

    def write(*words):
        path = tmp_path / "r.html"
        result = tripletkit("report", *words, "-o", path, code=0)
        return path.read_text(encoding="utf-8"), result.stderr

    return write


def lead(text):
    return re.search(r'<p class="lead">(.*?)</p>', text, re.S).group(1)


@pytest.mark.slow
def test_rows_that_do_not_fit_are_left_to_predict(report, toy_model, reported, monkeypatch):
    monkeypatch.setattr("tripletkit.reporting.page._PAGE_BYTES", 500_000)
    known = ["--triplets", reported.triplets, "--images", reported.images]
    text, _ = report(toy_model, *known)
    assert "All rows are too many for this page" in text and 'id="download"' not in text


def test_accuracy_is_that_of_predict_and_score(
    tripletkit, tiny_backbone, toy_model, reported, text
):
    known = ["--images", reported.images, "--model", toy_model]
    answers = reported.path.with_name("answers.csv")
    tripletkit("predict", reported.triplets, *known, "-o", answers, code=0)
    result = tripletkit("score", answers, reported.truth, "--json", code=0)
    accuracy = json.loads(result.stdout)["accuracy"]
    assert f"Right on <strong>{accuracy:.1%}</strong> of 200 triplets" in lead(text)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_without_triplets_it_says_so_first(report, toy_model):
    text, _ = report(toy_model)
    first = re.search(r'<ul class="warnings">\s*<li>(.*?)</li>', text, re.S).group(1)
    assert "learned from" in first
    # The first accuracy is that of held-out images, never of what the model learned from.
    pooled = read_record(toy_model)["pooled"]["trained"]
    said = f"<strong>{pooled['accuracy']:.1%}</strong> of {pooled['n_triplets']:,} triplets held"
    assert said in lead(text)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_the_headline_leaves_out_what_was_learned_from(
    report, toy_model, toy_competition, tmp_path
):
    """Also where it comes back among others, the other way round."""
    trained_on, others = map(read_triplets, (toy_competition.train, toy_competition.test))
    shared = trained_on.rows[:30, [0, 2, 1]]
    names = [*others.names, *trained_on.names]
    write_triplets(tmp_path / "t.csv", names, [*others.rows, *(shared + len(others.names))])
    text, _ = report(toy_model, "--triplets", tmp_path / "t.csv")
    n_all = len(others) + 30
    assert f"The model learned from 30 of these {n_all:,} triplets" in text
    assert f"</strong> of {len(others):,} triplets of t.csv" in lead(text)


@pytest.fixture
def models(toy_model, tmp_path):
    """The same model twice: nothing differs, and nothing may be said to."""
    return [Path(shutil.copytree(toy_model, tmp_path / name)) for name in ("m", "n")]


@pytest.mark.slow
def test_several_models_stand_side_by_side(report, models, reported):
    known = ["--triplets", reported.triplets, "--truth", reported.truth]
    text, _ = report(*models, *known, "--images", reported.images)
    assert "<title>tripletkit: m, n</title>" in text
    assert text.count('class="plane"') == 2
    assert re.search(r"margin of m\s*</th>\s*<th.*?>margin of n", text)
    pair = text.partition('id="pairs"')[2].partition("</tbody>")[0]
    assert "+0.0" in pair and "1.0000" in pair
    assert text.partition("</table>")[0].count("frozen features, cosine, of") == 1
    assert 'data-kind="models differ"' not in text
    assert len(text.encode()) < 5e6
    assert "m: margin,m: right,n: d_positive" in embedded_table(text)


def test_models_that_cannot_be_compared_are_refused_first(tripletkit, models, tmp_path):
    result = tripletkit("report", *models, "-o", tmp_path / "r.html", code=2)
    assert "Say which to take with --triplets" in result.stderr
    result = tripletkit("report", *(tmp_path / f"no{n}" for n in range(7)), code=2)
    assert "expected at most 6 models on a page, got 7" in result.stderr


@pytest.mark.slow
def test_held_out_draws_of_the_training_are_shown(report, tripletkit, toy_competition, tmp_path):
    model = tmp_path / "m"
    train = ["train", toy_competition.train, toy_competition.images, "-o", model]
    tripletkit(*train, "--backbone", "tiny", "--epochs", 2, "--learning-curve", code=0)
    text, _ = report(model, "--triplets", toy_competition.test)
    assert "held-out draws of its training</th>" in text
    assert f"{read_record(model)['pooled']['trained']['accuracy']:.1%}" in text
    assert "No triplets were held out" not in text
    curve = text.partition('<section id="learning-curve"')[2].partition("</section>")[0]
    assert "Another 500 judgements beside the" in curve
    assert curve.count("data:image/svg+xml") == 2


def test_a_broken_run_leaves_the_old_report(
    tripletkit, tiny_backbone, toy_model, reported, tmp_path
):
    path = tmp_path / "r.html"
    old = '<meta name="generator" content="tripletkit">'
    path.write_text(old)
    words = ["report", toy_model, "--triplets", reported.triplets, "-o", path, "--force"]
    assert "there is no image" in tripletkit(*words, code=1).stderr
    assert path.read_text() == old


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with opened_browsers(tmp_path_factory) as browse:
        yield browse()


class TestInABrowser:
    @pytest.fixture
    def opened(self, browser, reported):
        """The page as it is when opened."""
        browser.set_window_size(1280, 900)
        browser.get(reported.path.as_uri())
        return browser

    def rows(self, browser):
        script = """return [...document.querySelectorAll("#triplet-table tbody tr")]
            .filter((row) => !row.hidden)
            .map((row) => [row.dataset.kind, row.querySelector(".margin").dataset.value])"""
        return [(kind, float(margin)) for kind, margin in browser.execute_script(script)]

    def click(self, browser, selector):
        browser.execute_script("document.querySelector(arguments[0]).click()", selector)

    def test_no_error_and_every_image_loads(self, opened):
        broken = """return [...document.images]
            .filter((image) => !image.complete || !image.naturalWidth).map((image) => image.alt)"""
        assert opened.execute_script(broken) == []
        assert opened.get_log("browser") == []
        assert opened.title == "tripletkit: m"

    def test_hostile_names_are_shown_as_they_are(self, opened):
        self.click(opened, "#show-more")
        text = opened.find_element("tag name", "body").text
        shown = [name for name in HOSTILE if " ".join(name.split()) in text]
        assert shown == HOSTILE
        assert "R&D" in text

    def test_the_filter_finds_words_kinds_and_shared_images(self, opened):
        said = opened.find_element("id", "filter-said")
        n_all = int(said.text.split()[0])
        field = opened.find_element("id", "filter-text")
        field.send_keys("寿司 ÜBER")
        n_found = int(said.text.split()[0])
        assert 0 < n_found < n_all
        field.clear()
        field.send_keys("nobody")
        assert said.text == f"0 of {n_all} found"
        assert self.rows(opened) == []
        self.click(opened, "#filter-clear")
        opened.execute_script("""const kind = document.getElementById("filter-kind");
            kind.value = "close call"; kind.dispatchEvent(new Event("change"))""")
        assert {kind for kind, _ in self.rows(opened)} == {"close call"}
        self.click(opened, "#filter-clear")
        self.click(opened, "[data-show-image]")
        assert 0 < int(said.text.split()[0]) < n_all
        assert " with " in said.text

    def test_the_table_sorts_both_ways(self, opened):
        self.click(opened, "#show-more")
        heading = "#triplet-table th:nth-child(4)"
        margins = {}
        for direction in ("ascending", "descending"):
            # As the keyboard does it.
            opened.execute_script(f"document.querySelector('{heading} button').focus()")
            opened.switch_to.active_element.send_keys("\n")
            cell = opened.find_element("css selector", heading)
            assert cell.get_attribute("aria-sort") == direction
            margins[direction] = [margin for _, margin in self.rows(opened)]
        assert margins["ascending"] == sorted(margins["ascending"])
        assert margins["descending"] == sorted(margins["ascending"], reverse=True)
        assert len(margins["ascending"]) > 12

    def test_the_download_holds_all_rows(self, opened, tmp_path, reported):
        download_to(opened, tmp_path)
        self.click(opened, "#download")
        path = tmp_path / "m-triplets.csv"
        wait_until(lambda: path.exists() and path.stat().st_size)
        assert len(pd.read_csv(path)) == len(read_triplets(reported.triplets))

    @pytest.mark.parametrize("width", [1280, 390])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_fits_the_screen_in_both_schemes(self, opened, width, scheme):
        set_screen(opened, width, 900, 1, scheme)
        check_fits(opened, width, scheme)
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
