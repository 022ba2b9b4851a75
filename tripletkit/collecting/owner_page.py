"""The page of the owner: who has answered how much and how well, and what more would bring."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from flask import Blueprint, abort, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug import Response

from tripletkit.collecting.answer_forms import MAX_NAME, parse_name
from tripletkit.collecting.database import now
from tripletkit.collecting.judges import Share, report_judges
from tripletkit.collecting.serving import form_token, is_same, let_in
from tripletkit.collecting.site import is_owner, site
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
    return let_in(url_for("owner.show"), site().owner_cookie, token)


@owner_page.get("/owner")
def show() -> Any:
    """Show how the collection stands."""
    if not is_owner():
        abort(403)
    here = site()
    answers = read_answers_given(here.database.path, with_left_out=True)
    judges = here.database.judges()
    model = here.database.last_model()
    about = json.loads(model["about"]) if model is not None else {}
    return render_template(
        "owner.html.j2",
        report=report_judges(answers),
        judges=judges,
        is_enough=here.study.is_enough(about),
        progress={judge.name: here.database.n_answers(judge.id) for judge in judges},
        qr_code=_draw_qr_code,
        form_token=form_token(here.database.key, here.database.owner_token),
        open_link=url_for("judge.join", token=here.database.open_token, _external=True),
        is_ended=here.is_ended,
        total=here.asker.settings.n_questions,
        n_answers=here.database.n_answers(),
        n_random=len({a.question for a in answers if a.how in ("random", "grid")}),
        model=model,
        about=about,
        drawing=_draw_curve(about) if about.get("curve") else None,
        status=here.status.get("text", ""),
    )


@owner_page.post("/owner/judges")
def add_judge() -> Response:
    """Add a judge, whose link the page then shows."""
    _check_sent()
    if (name := parse_name(request.form.get("name", ""))) is None:
        abort(400, f"Expected a name of 1 to {MAX_NAME} letters.")
    try:
        site().database.add_judge(name, is_new=True)
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
    site().database.keep_fact("ended", now() if change == "end" else None)
    return redirect(url_for("owner.show"), 303)


@owner_page.get("/owner/answers.csv")
def download() -> Response:
    """Send all answers, as `export-judgements` writes them."""
    if not is_owner():
        abort(403)
    answers = read_answers_given(site().database.path, with_left_out=True)
    table = pd.DataFrame([answer.to_dict() for answer in answers]).to_csv(index=False)
    response = Response(table, mimetype="text/csv")
    response.headers["Content-Disposition"] = "attachment; filename=answers.csv"
    return response


def _check_sent() -> None:
    """Refuse what another site sends in the owner's name."""
    database = site().database
    given = request.form.get("form_token", "")
    if not is_owner() or not is_same(given, form_token(database.key, database.owner_token)):
        abort(403, "This page is an old one. Open the owner's link again.")


def _draw_qr_code(link: str) -> Markup:
    """Return a link as a picture that phones read, an SVG."""
    import segno

    return Markup(segno.make(link, micro=False).svg_inline(scale=3, border=2, light="white"))


def _draw_curve(about: dict[str, Any]) -> dict[str, Any]:
    """Return where a learning curve is drawn, in pixels, and the texts beside it."""
    curve, after, more = about["curve"], about.get("after_more"), about["more"]
    last = curve[-1]["n_questions"]
    bottom = int(min(0.95, *(point["low"] for point in curve)) * 20) / 20
    top = min(1.0, (int(max(after or 0, *(point["high"] for point in curve)) * 20) + 1) / 20)
    n_most = last + (more if after is not None else 0)

    def y(accuracy: float) -> float:
        share = (accuracy - bottom) / (top - bottom)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def place(n: float, accuracy: float) -> dict[str, Any]:
        x = round(_LEFT + n / n_most * (_WIDTH - _LEFT - _RIGHT), 1)
        return {"x": x, "y": y(accuracy), "n": f"{n:,}", "accuracy": f"{accuracy:.1%}"}

    points = [
        place(point["n_questions"], point["accuracy"])
        | {"low": y(point["low"]), "high": y(point["high"])}
        for point in curve
    ]
    step = 0.05 * max(1, -(-round((top - bottom) * 20) // 6))
    levels = np.arange(bottom, top + 1e-9, step)
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "points": points,
        "expected": None if after is None else place(last + more, after),
        "ticks": [(y(level), f"{level:.0%}") for level in levels],
    }


def _describe_share(share: Share) -> str:
    return "–" if share.value is None else f"{share.value:.0%} ({share})"


owner_page.add_app_template_filter(_describe_share, "share")
