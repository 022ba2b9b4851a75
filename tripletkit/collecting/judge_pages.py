"""The pages of judges: joining, instructions, questions, thanks."""

from __future__ import annotations

import secrets
import statistics
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for

from tripletkit.collecting.answer_forms import (
    MAX_NAME,
    parse_answer,
    parse_id,
    parse_name,
    parse_number,
)
from tripletkit.collecting.database import GivenAnswer, Judge
from tripletkit.collecting.serving import form_token, is_same
from tripletkit.collecting.site import Site, find_judge, known_judges, site
from tripletkit.data.judgement_files import GRID
from tripletkit.errors import JudgementsError

judge_pages = Blueprint("judge", __name__)

FORM_TOKEN = "X-Form-Token"
# What a judge needs for a question before it is known, and between an answer and the next image.
_USUAL_RESPONSE_MS, _BETWEEN_MS = 4000, 300
_COOKIE_AGE_S = 90 * 24 * 3600
_NO_SUCH_LINK = (
    "No study has this link. It may be mistyped or cut off at its end, or belong to another study: "
    "copy it whole, or ask the person who sent it."
)


@judge_pages.get("/j/<token>")
def enter(token: str) -> Response:
    """Take the secret out of the address and into a cookie."""
    judge = find_judge(token, site().database.judges())
    if judge is None:
        abort(404, _NO_SUCH_LINK)
    if judge.state == "revoked":
        abort(403, "This link was withdrawn by the person who sent it.")
    return _let_in(judge)


@judge_pages.route("/join/<token>", methods=["GET", "POST"])
def join(token: str) -> Any:
    """Ask for a name, where a link is for everybody; who has been here before goes on."""
    database = site().database
    if not is_same(token, database.open_token):
        abort(404, _NO_SUCH_LINK)
    problem = ""
    known = known_judges()
    if request.method == "POST":
        given = request.form.get("form_token", "")
        if not is_same(given, form_token(database.key, database.open_token)):
            abort(403)
        try:
            name = parse_name(request.form.get("name", ""))
            if (judge := next((j for j in known if j.name == name), None)) is not None:
                return _let_in(judge)
            return _let_in(database.add_new_judge(name))
        except JudgementsError as error:
            problem = f"{str(error)[:1].upper()}{str(error)[1:]}."
    return render_template(
        "join.html.j2",
        problem=problem,
        known=known,
        max_name=MAX_NAME,
        form_token=form_token(database.key, database.open_token),
    )


@judge_pages.get("/judge/<int:number>/")
def start(number: int) -> Any:
    """Show the instructions, and the link that belongs to this judge."""
    judge = _judge(number)
    return render_template(
        "start.html.j2",
        judge=judge,
        state=make_state(site(), judge),
        instructions=site().instructions_html,
        link=url_for("judge.enter", token=judge.token, _external=True),
    )


@judge_pages.get("/judge/<int:number>/ask")
def ask(number: int) -> Any:
    """Show the screen that is to be answered."""
    judge = _judge(number)
    state = make_state(site(), judge)
    if not state["screens"]:
        return redirect(url_for("judge.done", number=number))
    return render_template(
        "ask.html.j2",
        judge=judge,
        state=state,
        screen=state["screens"][0],
        instructions=site().instructions_html,
        form_token=form_token(site().database.key, judge.token),
        client_id=secrets.token_hex(16),
        undo_id=secrets.token_hex(16),
    )


@judge_pages.get("/judge/<int:number>/done")
def done(number: int) -> Any:
    """Say thank you."""
    judge = _judge(number)
    state = make_state(site(), judge)
    if state["screens"]:
        return redirect(url_for("judge.ask", number=number))
    return render_template(
        "done.html.j2",
        judge=judge,
        state=state,
        form_token=form_token(site().database.key, judge.token),
        undo_id=secrets.token_hex(16),
    )


@judge_pages.get("/judge/<int:number>/state")
def state(number: int) -> dict[str, Any]:
    """Return what is to be answered."""
    return make_state(site(), _judge(number))


@judge_pages.post("/judge/<int:number>/answer")
def answer(number: int) -> Any:
    """Keep an answer; the reply is sent when it is on the disk."""
    judge = _sending_judge(number)
    try:
        given = parse_answer(_json()) if request.is_json else _form_answer()
    except JudgementsError as error:
        abort(400, str(error))
    try:
        is_new = site().database.add_answer(judge.id, given)
    except JudgementsError as error:
        if not request.is_json:
            return redirect(url_for("judge.ask", number=number), 303)
        return make_state(site(), judge) | {"error": str(error)}, 409
    if not request.is_json:
        return redirect(url_for("judge.ask", number=number), 303)
    return make_state(site(), judge) | {"is_new": is_new}


@judge_pages.post("/judge/<int:number>/undo")
def undo(number: int) -> Any:
    """Take the last answer back."""
    judge = _sending_judge(number)
    fields = _json() if request.is_json else {"undo_id": request.form.get("undo_id")}
    try:
        if not isinstance(fields, dict) or set(fields) != {"undo_id"}:
            raise JudgementsError("expected an undo_id")
        undo_id = parse_id(fields["undo_id"], "undo_id")
    except JudgementsError as error:
        abort(400, str(error))
    screen = site().database.undo(judge.id, undo_id)
    if not request.is_json:
        return redirect(url_for("judge.ask", number=number), 303)
    return make_state(site(), judge) | {"undone": screen is not None}


def make_state(here: Site, judge: Judge) -> dict[str, Any]:
    """Return what a page needs to know, as plain JSON values."""
    total = here.asker.settings.n_questions
    n_done = here.database.n_answers(judge.id)
    screens = [] if here.database.is_ended else here.asker.screens(judge.id)
    times = here.database.recent_response_ms(judge.id)
    each_ms = (statistics.median(times) if times else _USUAL_RESPONSE_MS) + _BETWEEN_MS
    n_left = max(total - n_done, 0)
    return {
        "done": n_done,
        "total": max(total, n_done + len(screens)),
        "minutes": round(n_left * each_ms / 60_000),
        "can_undo": n_done > 0,
        "pause_due": n_done > 0 and n_done % here.pause_every == 0 and bool(screens),
        "screens": [screen.to_dict() for screen in screens],
    }


def describe_progress(state: dict[str, Any]) -> str:
    """Return how far a judge is, in words.

    Example:
        >>> describe_progress({"done": 37, "total": 200, "minutes": 8})
        '37 of 200, about 8 minutes left'
    """
    minutes = state["minutes"]
    left = "less than a minute" if minutes < 1 else f"about {minutes} minute{'s' * (minutes > 1)}"
    return f"{state['done']} of {state['total']}, {left} left"


judge_pages.add_app_template_filter(describe_progress, "progress")


def _judge(number: int) -> Judge:
    """Return the judge whose pages these are, if the browser has the cookie."""
    judge = next((judge for judge in known_judges() if judge.id == number), None)
    if judge is None:
        abort(403)
    if judge.state == "paused":
        abort(403, "This study is paused for you. Open your link again later.")
    return judge


def _sending_judge(number: int) -> Judge:
    """Refuse what another site, or the page of another judge, sends in this judge's name."""
    judge = _judge(number)
    given = request.headers.get(FORM_TOKEN) or request.form.get("form_token", "")
    if not is_same(given, form_token(site().database.key, judge.token)):
        abort(403, "This page is another judge's or an old one. Load it again.")
    return judge


def _json() -> Any:
    """Return what the page sent as JSON."""
    try:
        return request.get_json()
    except RecursionError:
        abort(400, "expected JSON")


def _form_answer() -> GivenAnswer:
    """Return the answer of a page without JavaScript, which measures no time."""
    form = request.form
    is_grid = form.get("side") == GRID
    places = [int(p) for p in form.getlist("place") if p.isascii() and p.isdigit() and len(p) < 4]
    number = form.get("screen", "")
    return GivenAnswer(
        parse_id(form.get("client_id"), "client_id"),
        parse_number(
            int(number) if number.isascii() and number.isdigit() and len(number) < 16 else None,
            "screen",
        ),
        form.get("side", ""),
        tuple(places) if is_grid else (),
        0.0,
        "form",
    )


def _let_in(judge: Judge) -> Response:
    response = redirect(url_for("judge.start", number=judge.id), 303)
    # Lax, so that a link in a mail works; what changes something needs the form token as well.
    response.set_cookie(
        site().judge_cookie(judge.id),
        judge.token,
        max_age=_COOKIE_AGE_S,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
        path=request.root_path or "/",
    )
    return response
