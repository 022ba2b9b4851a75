"""The web application, and the pages of judges: joining, instructions, questions, thanks."""

from __future__ import annotations

import logging
import secrets
import statistics
from typing import Any

from flask import Blueprint, Flask, abort, redirect, render_template, request, url_for
from werkzeug import Response
from werkzeug.exceptions import HTTPException

from tripletkit import __version__
from tripletkit.collecting.answer_forms import (
    MAX_NAME,
    parse_answer,
    parse_id,
    parse_name,
    parse_parameters,
)
from tripletkit.collecting.database import MAX_JUDGES, GivenAnswer, Judge, now
from tripletkit.collecting.owner_page import owner_page
from tripletkit.collecting.scaled_images import SIZES_PX, media_type
from tripletkit.collecting.serving import (
    MAX_BODY_BYTES,
    add_headers,
    form_token,
    is_same,
    let_in,
    publish,
)
from tripletkit.collecting.site import Site, find_judge, is_owner, known_judges, site
from tripletkit.collecting.study import render_markdown
from tripletkit.data.judgement_files import FIRST, GRID, LEFT, RIGHT
from tripletkit.errors import ImageReadError, JudgementsError

logger = logging.getLogger("tripletkit")
judge_pages = Blueprint("judge", __name__)

_FORM_TOKEN = "X-Form-Token"
# What a judge needs for a question before it is known, and between an answer and the next image.
_USUAL_RESPONSE_MS, _BETWEEN_MS = 4000, 300
_IMAGE_AGE_S = 3600


def make_app(here: Site, url: str = "") -> Flask:
    """Return the web application of a collection, which a proxy may serve at another address."""
    app = Flask("tripletkit.collecting", static_folder="static", template_folder="templates")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY_BYTES
    app.extensions["tripletkit"] = here
    # By itself Flask escapes nothing in a template whose name does not end with .html.
    app.jinja_env.autoescape = True
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals |= {"version": __version__, "study": here.study, "say": here.study.say}
    app.register_blueprint(judge_pages)
    app.register_blueprint(owner_page)
    app.after_request(add_headers)
    app.register_error_handler(HTTPException, _show_error)
    app.add_url_rule("/image/<int:number>/<size>", "image", _send_image)
    if url:
        app.wsgi_app = publish(app.wsgi_app, url)  # type: ignore[method-assign]
    return app


def _send_image(number: int, size: str) -> Response:
    here = site()
    if not known_judges() and not is_owner():
        abort(403)
    if number not in here.images or size not in SIZES_PX:
        abort(404)
    try:
        data = here.images.get(number, size)
    except ImageReadError as error:
        logger.warning("%s", error)
        here.asker.leave_out(number)
        abort(404)
    response = Response(data, mimetype=media_type(data))
    response.cache_control.private = True
    response.cache_control.max_age = _IMAGE_AGE_S
    return response


def _show_error(error: HTTPException) -> tuple[Any, int]:
    code = error.code or 500
    # A description that is not Werkzeug's own was written for this page.
    is_ours = error.description != type(error).description
    message = error.description if is_ours or code != 403 else site().study.say("needs_link")
    if request.is_json or request.accept_mimetypes.best == "application/json":
        return {"error": message}, code
    return render_template("error.html.j2", message=message), code


@judge_pages.get("/j/<token>")
def enter(token: str) -> Response:
    """Take the secret out of the address and into a cookie."""
    judge = find_judge(token, site().database.judges())
    if judge is None:
        abort(404, site().study.say("no_such_link"))
    if judge.state == "revoked":
        abort(403, site().study.say("withdrawn"))
    return _let_in(judge)


@judge_pages.route("/join/<token>", methods=["GET", "POST"])
def join(token: str) -> Any:
    """Ask for a name, where a link is for everybody; who has been here before goes on.

    Who comes from Prolific or Mechanical Turk is known by the parameters of the link instead.
    """
    database, say = site().database, site().study.say
    if not is_same(token, database.open_token):
        abort(404, say("no_such_link"))
    problem = ""
    known = known_judges()
    parameters = parse_parameters(request.args)
    named = parameters.get("PROLIFIC_PID") or parameters.get("workerId", "")
    if request.method == "POST":
        _check_form(database.open_token)
        if (name := parse_name(named or request.form.get("name", ""))) is None:
            problem = say("name_expected", most=MAX_NAME)
        else:
            returning = [judge for judge in known if judge.name == name]
            if returning := returning or _find_returning(parameters, name):
                return _let_in(returning[0])
            try:
                return _let_in(database.add_judge(name, is_new=True))
            except JudgementsError:
                is_full = len(database.judges()) >= MAX_JUDGES
                problem = say("full") if is_full else say("name_taken", name=name)
    return render_template(
        "join.html.j2",
        problem=problem,
        known=[judge for judge in known if judge.name == named] if named else known,
        named=named,
        max_name=MAX_NAME,
        form_token=form_token(database.key, database.open_token),
    )


@judge_pages.get("/judge/<int:number>/")
def start(number: int) -> Any:
    """Show the instructions, and the link that belongs to this judge."""
    judge = _judge(number)
    here = site()
    return render_template(
        "start.html.j2",
        judge=judge,
        state=make_state(here, judge),
        has_agreed=_has_agreed(judge),
        consent=render_markdown(here.study.consent),
        form_token=form_token(here.database.key, judge.token),
        instructions=here.study.instruct(is_grid=here.asker.settings.screen == GRID),
        link=url_for("judge.enter", token=judge.token, _external=True),
    )


@judge_pages.post("/judge/<int:number>/agree")
def agree(number: int) -> Any:
    """Keep that a judge has agreed to the study's text, and when."""
    judge = _sending_judge(number)
    if request.form.get("agree") != "yes":
        abort(400)
    consent = {"text": site().study.consent_hash, "at": now()}
    site().database.change_judge(judge.id, about=judge.about | {"consent": consent})
    return redirect(url_for("judge.ask", number=number), 303)


@judge_pages.get("/judge/<int:number>/ask")
def ask(number: int) -> Any:
    """Show the screen that is to be answered."""
    judge = _judge(number)
    if not _has_agreed(judge):
        return redirect(url_for("judge.start", number=number))
    here = site()
    state = make_state(here, judge)
    if not state["screens"]:
        return redirect(url_for("judge.done", number=number))
    return render_template(
        "ask.html.j2",
        judge=judge,
        state=state | {"feedback": request.args.get("feedback") and _feedback(judge)},
        screen=state["screens"][0],
        instructions=here.study.instruct(is_grid=here.asker.settings.screen == GRID),
        form_token=form_token(here.database.key, judge.token),
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
        thanks=render_markdown(site().study.thanks),
        link=site().study.link_of(judge.about.get("parameters", {})),
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
    here = site()
    try:
        given = parse_answer(_json()) if request.is_json else _form_answer()
        outcome = here.database.add_answer(judge.id, given)
    except JudgementsError as error:
        abort(400, str(error))
    feedback = _feedback(judge, given.screen)
    if not request.is_json:
        place = url_for("judge.ask", number=number, feedback="yes" if feedback else None)
        return redirect(place, 303)
    state = make_state(here, judge) | {"feedback": feedback}
    if outcome == "taken":
        return state | {"error": here.study.say("answered_already")}, 409
    return state | {"is_new": outcome == "new"}


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
    screens = [] if here.is_ended else here.asker.screens(judge.id)
    times = here.database.recent_response_ms(judge.id)
    each_ms = (statistics.median(times) if times else _USUAL_RESPONSE_MS) + _BETWEEN_MS
    total = max(total, n_done + len(screens))
    minutes = round((total - n_done) * each_ms / 60_000)
    key = "progress" if minutes else "progress_soon"
    n_practice = sum(screen.purpose == "practice" for screen in screens)
    if n_practice:
        n_of = len(here.asker.practice)
        progress = here.study.say("practice", done=n_of - n_practice + 1, total=n_of)
    else:
        progress = here.study.say(key, done=n_done, total=total, minutes=minutes)
    return {
        "done": n_done,
        "total": total,
        "progress": progress,
        "can_undo": bool(times),
        "pause_due": n_done > 0 and n_done % here.study.pause_every == 0 and bool(screens),
        "screens": [screen.to_dict() for screen in screens],
    }


def _feedback(judge: Judge, screen: int | None = None) -> str:
    """Return what is said of an answer to a practice question, the last one if none is named."""
    study = site().study
    row = site().database.practised(judge.id, screen)
    if row is None or not study.practice:
        return ""
    if row["choice"] == FIRST:
        said = study.say("practice_right")
    else:
        side = LEFT if row["is_first_left"] else RIGHT
        said = study.say("practice_wrong", side=study.say(side))
    why = site().asker.practice.get(row["question"], "")
    return f"{said} {why}".strip()


def _has_agreed(judge: Judge) -> bool:
    study = site().study
    return not study.consent or judge.about.get("consent", {}).get("text") == study.consent_hash


def _judge(number: int) -> Judge:
    """Return the judge whose pages these are, if the browser has the cookie."""
    judge = next((judge for judge in known_judges() if judge.id == number), None)
    if judge is None:
        abort(403)
    if judge.state == "paused":
        abort(403, site().study.say("paused"))
    return judge


def _sending_judge(number: int) -> Judge:
    """Refuse what another site, or the page of another judge, sends in this judge's name."""
    judge = _judge(number)
    _check_form(judge.token)
    if request.endpoint != "judge.agree" and not _has_agreed(judge):
        abort(403, site().study.say("consent"))
    return judge


def _check_form(token: str) -> None:
    given = request.headers.get(_FORM_TOKEN) or request.form.get("form_token", "")
    if not is_same(given, form_token(site().database.key, token)):
        abort(403, site().study.say("old_page"))


def _json() -> Any:
    """Return what the page sent as JSON."""
    try:
        return request.get_json()
    except RecursionError:
        abort(400, "expected JSON")


def _form_answer() -> GivenAnswer:
    """Return the answer of a page without JavaScript, which measures no time."""
    form = request.form
    places = form.getlist("place", type=int) if form.get("side") == GRID else []
    fields = {
        "client_id": form.get("client_id"),
        "screen": form.get("screen", type=int),
        "side": form.get("side"),
        "places": places,
        "response_ms": 0.0,
        "method": "form",
    }
    return parse_answer(fields)


def _find_returning(parameters: dict[str, str], name: str) -> list[Judge]:
    """Return the judge of this name who came with the very same parameters, a session among them.

    The number of a session is known to the participant alone, the name may be known to others.
    """
    if "SESSION_ID" not in parameters and "assignmentId" not in parameters:
        return []
    return [
        judge
        for judge in site().database.judges()
        if judge.name == name
        and judge.about.get("parameters") == parameters
        and judge.state != "revoked"
    ]


def _let_in(judge: Judge) -> Response:
    if parameters := parse_parameters(request.args):
        about = judge.about | {"parameters": parameters}
        site().database.change_judge(judge.id, about=about)
    place = url_for("judge.start", number=judge.id)
    return let_in(place, site().judge_cookie(judge.id), judge.token)
