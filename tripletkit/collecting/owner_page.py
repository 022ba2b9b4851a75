"""The page of the owner: who has answered how much and how well, and what more would bring."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, url_for

from tripletkit.collecting.judges import Share, report_judges
from tripletkit.collecting.serving import is_same
from tripletkit.collecting.site import Site, is_owner, site
from tripletkit.data.judgement_files import read_answers_given

owner_page = Blueprint("owner", __name__)

# The drawing of the curve, pixels.
_WIDTH, _HEIGHT = 620, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 20, 44


@owner_page.get("/owner/<token>")
def enter(token: str) -> Response:
    """Take the secret out of the address and into a cookie."""
    if not is_same(token, site().database.owner_token):
        abort(404)
    response = redirect(url_for("owner.show"), 303)
    response.set_cookie(
        site().owner_cookie, token, max_age=90 * 24 * 3600, httponly=True, samesite="Lax"
    )
    return response


@owner_page.get("/owner")
def show() -> Any:
    """Show how the collection stands."""
    if not is_owner():
        abort(403)
    here = site()
    answers = read_answers_given(here.database.path)
    model = here.database.last_model()
    about = json.loads(model["about"]) if model is not None else {}
    return render_template(
        "owner.html.j2",
        report=report_judges(answers),
        progress=count_progress(here),
        total=here.asker.settings.n_questions,
        n_answers=here.database.n_answers(),
        n_random=len({a.question for a in answers if a.how in ("random", "grid")}),
        model=model,
        about=about,
        drawing=draw_curve(about) if about.get("curve") else None,
        status=here.status.get("text", ""),
    )


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
    """Return where a learning curve is drawn.

    Args:
        about: what `describe_curve` returns.
    """
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
