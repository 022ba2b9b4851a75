"""The page of the owner: who has answered how much and how well, and what more would bring."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from markupsafe import Markup

from tripletkit.collecting.answer_forms import parse_name
from tripletkit.collecting.judges import Share, report_judges
from tripletkit.collecting.serving import form_token, is_same
from tripletkit.collecting.site import Site, is_owner, site
from tripletkit.data.judgement_files import read_answers_given
from tripletkit.errors import JudgementsError

owner_page = Blueprint("owner", __name__)

# What the buttons of a judge do.
_CHANGES: dict[str, dict[str, Any]] = {
    "pause": {"state": "paused"},
    "go-on": {"state": "active"},
    "revoke": {"state": "revoked"},
    "leave-out": {"is_left_out": True},
    "count": {"is_left_out": False},
}
# The drawing of the curve, pixels.
_WIDTH, _HEIGHT = 620, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 20, 44


@owner_page.get("/owner/<token>")
def enter(token: str) -> Response:
    """Take the secret out of the address and into a cookie."""
    if not is_same(token, site().database.owner_token):
        abort(404, "No study has this link. Copy it whole from the terminal.")
    response = redirect(url_for("owner.show"), 303)
    response.set_cookie(
        site().owner_cookie,
        token,
        max_age=90 * 24 * 3600,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
        path=request.root_path or "/",
    )
    return response


@owner_page.get("/owner")
def show() -> Any:
    """Show how the collection stands."""
    if not is_owner():
        abort(403)
    here = site()
    answers = read_answers_given(here.database.path, with_left_out=True)
    model = here.database.last_model()
    about = json.loads(model["about"]) if model is not None else {}
    return render_template(
        "owner.html.j2",
        report=report_judges(answers),
        judges=here.database.judges(),
        progress=count_progress(here),
        qr_code=draw_qr_code,
        form_token=form_token(here.database.key, here.database.owner_token),
        open_link=url_for("judge.join", token=here.database.open_token, _external=True),
        is_ended=here.database.is_ended,
        total=here.asker.settings.n_questions,
        n_answers=here.database.n_answers(),
        n_random=len({a.question for a in answers if a.how in ("random", "grid")}),
        model=model,
        about=about,
        drawing=draw_curve(about) if about.get("curve") else None,
        status=here.status.get("text", ""),
    )


@owner_page.post("/owner/judges")
def add_judge() -> Response:
    """Add a judge, whose link the page then shows."""
    _check_sent()
    try:
        site().database.add_new_judge(parse_name(request.form.get("name", "")))
    except JudgementsError as error:
        abort(400, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return redirect(url_for("owner.show"), 303)


@owner_page.post("/owner/judges/<int:judge>/<change>")
def change_judge(judge: int, change: str) -> Response:
    """Pause a judge or go on, revoke the link, leave the answers out or count them."""
    _check_sent()
    if change not in _CHANGES:
        abort(404)
    site().database.change_judge(judge, **_CHANGES[change])
    return redirect(url_for("owner.show"), 303)


@owner_page.post("/owner/<change>")
def end(change: str) -> Response:
    """End the study, or go on with it."""
    _check_sent()
    if change not in ("end", "go-on"):
        abort(404)
    site().database.end(change == "end")
    return redirect(url_for("owner.show"), 303)


@owner_page.get("/owner/answers.csv")
def download() -> Response:
    """Send all answers, as `export-judgements` writes them."""
    if not is_owner():
        abort(403)
    answers = read_answers_given(site().database.path, with_left_out=True)
    text = io.StringIO()
    if answers:
        writer = csv.DictWriter(text, answers[0].to_dict(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(answer.to_dict() for answer in answers)
    response = Response(text.getvalue(), mimetype="text/csv")
    response.headers["Content-Disposition"] = "attachment; filename=answers.csv"
    return response


def _check_sent() -> None:
    """Refuse what another site sends in the owner's name."""
    database = site().database
    given = request.form.get("form_token", "")
    if not is_owner() or not is_same(given, form_token(database.key, database.owner_token)):
        abort(403, "This page is an old one. Open the owner's link again.")


def draw_qr_code(link: str) -> Markup:
    """Return a link as a picture that phones read, an SVG."""
    import segno

    return Markup(segno.make(link, micro=False).svg_inline(scale=3, border=2, light="white"))


def count_progress(here: Site) -> dict[str, int]:
    """Return how many answers each judge has given, in the order in which the judges came."""
    return {judge.name: here.database.n_answers(judge.id) for judge in here.database.judges()}


@dataclass(frozen=True)
class Drawing:
    """A learning curve in pixels.

    Attributes:
        width, height: of the whole.
        points: x, y, and the ends of the interval on y, with texts of number and accuracy.
        line: the points as SVG writes them.
        ahead: the same of the last point and the one to expect; empty without one.
        expected: the point to expect, like the others; None without one.
        ticks: y and text of each line across.
    """

    width: int
    height: int
    points: list[dict[str, Any]]
    line: str
    ahead: str
    expected: dict[str, Any] | None
    ticks: list[tuple[float, str]]


def draw_curve(about: dict[str, Any]) -> Drawing:
    """Return where a learning curve is drawn."""
    points = about["curve"]
    after, more = about.get("after_more"), about["more"]
    last = points[-1]["n_questions"]
    lowest = min(min(p["low"] for p in points), 0.95)
    highest = max(*(p["high"] for p in points), after or 0)
    bottom, top = int(lowest * 20) / 20, min(1.0, (int(highest * 20) + 1) / 20)
    n_most = last + (more if after is not None else 0)

    def x(n: float) -> float:
        return round(_LEFT + n / n_most * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(accuracy: float) -> float:
        share = (accuracy - bottom) / (top - bottom)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def place(n: int, accuracy: float, low: float | None = None, high: float | None = None):
        return {
            "x": x(n),
            "y": y(accuracy),
            "low": None if low is None else y(low),
            "high": None if high is None else y(high),
            "n": f"{n:,}",
            "accuracy": f"{accuracy:.1%}",
        }

    drawn = [place(p["n_questions"], p["accuracy"], p["low"], p["high"]) for p in points]
    expected = None if after is None else place(last + more, after)
    ends = [] if expected is None else [drawn[-1], expected]
    n_steps = round((top - bottom) * 20)
    step = 0.05 * max(1, -(-n_steps // 6))
    levels = [bottom + step * k for k in range(20) if bottom + step * k <= top + 1e-9]
    return Drawing(
        _WIDTH,
        _HEIGHT,
        drawn,
        " ".join(f"{p['x']},{p['y']}" for p in drawn),
        " ".join(f"{p['x']},{p['y']}" for p in ends),
        expected,
        [(y(level), f"{level:.0%}") for level in levels],
    )


def describe_share(share: Share) -> str:
    """Return a share for a table: percent and numbers, or a dash.

    Example:
        >>> describe_share(Share(9, 12)), describe_share(Share(0, 0))
        ('75% (9 of 12)', '–')
    """
    return "–" if share.value is None else f"{share.value:.0%} ({share})"


owner_page.add_app_template_filter(describe_share, "share")
