"""The web application: the pages of judges and of the owner, and who is asking."""

from __future__ import annotations

import json
import logging
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    redirect,
    render_template,
    request,
    url_for,
)
from markupsafe import Markup
from werkzeug import Response
from werkzeug.exceptions import HTTPException

from tripletkit import __version__
from tripletkit.collecting.asking import Asker
from tripletkit.collecting.database import (
    MAX_JUDGES,
    MAX_NAME,
    Judge,
    JudgementDatabase,
    now,
    parse_answer,
    parse_id,
    parse_name,
)
from tripletkit.collecting.judges import report_judges
from tripletkit.collecting.serving import (
    MAX_BODY_BYTES,
    SIZES_PX,
    ScaledImages,
    add_headers,
    form_token,
    is_same,
    let_in,
    media_type,
    publish,
)
from tripletkit.collecting.study import Study, read_parameters, render_markdown
from tripletkit.data.judgement_files import FIRST, GRID, LEFT, RIGHT, read_answers_given
from tripletkit.errors import ImageReadError, JudgementsError

logger = logging.getLogger("tripletkit")
_judge_pages, _owner_page = Blueprint("judge", __name__), Blueprint("owner", __name__)

_FORM_TOKEN = "X-Form-Token"
# What a judge needs for a question before it is known, and between an answer and the next image.
_USUAL_RESPONSE_MS, _BETWEEN_MS = 4000, 300
_IMAGE_AGE_S = 3600
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
_LEFT, _RIGHT, _TOP, _BOTTOM, _ROOM = 56, 20, 20, 44, 40


@dataclass
class Site:
    """What the pages need; `status` is what is to be said of the training in the background."""

    database: JudgementDatabase
    asker: Asker
    images: ScaledImages
    study: Study = field(default_factory=Study)
    status: dict[str, Any] = field(default_factory=dict)

    def judge_cookie(self, judge: int | str) -> str:
        """Return the name of a judge's cookie, so that two can share a browser, and two servers."""
        return f"tripletkit-{self.database.id}-{judge}"

    @property
    def owner_cookie(self) -> str:
        return f"tripletkit-owner-{self.database.id}"

    @property
    def is_ended(self) -> bool:
        return self.database.fact("ended") is not None


def _site() -> Site:
    """Return what belongs to the application that answers this request."""
    return current_app.extensions["tripletkit"]


def _is_owner() -> bool:
    """Return whether the request comes with the owner's secret."""
    return is_same(request.cookies.get(_site().owner_cookie, ""), _site().database.owner_token)


def _known_judges(number: int | None = None) -> list[Judge]:
    """Return the judges whose cookies come with the request; of a number, that one."""
    here = _site()
    known = []
    for name, token in request.cookies.items():
        found = re.fullmatch(here.judge_cookie("([0-9]{1,9})"), name)
        if found is not None and number in (None, int(found[1])):
            judges = here.database.judges(int(found[1]))
            known += [j for j in judges if is_same(token, j.token) and j.state != "revoked"]
    return known


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
    app.register_blueprint(_judge_pages)
    app.register_blueprint(_owner_page)
    app.after_request(add_headers)
    app.register_error_handler(HTTPException, _show_error)
    app.add_url_rule("/image/<int:number>/<size>", "image", _send_image)
    app.url_defaults(_name_study)
    if url:
        app.wsgi_app = publish(app.wsgi_app, url)  # type: ignore[method-assign]
    return app


def _name_study(endpoint: str, values: dict[str, Any]) -> None:
    """Give images an address of this study's own: another at this port has the same numbers."""
    if endpoint == "image":
        values["of"] = _site().database.id


def _send_image(number: int, size: str) -> Response:
    here = _site()
    if not _known_judges() and not _is_owner():
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
    response.cache_control.immutable = True
    return response


def _show_error(error: HTTPException) -> tuple[Any, int]:
    code = error.code or 500
    # A description that is not Werkzeug's own was written for this page.
    is_ours = error.description != type(error).description
    message = error.description if is_ours or code != 403 else _site().study.say("needs_link")
    if request.is_json or request.accept_mimetypes.best == "application/json":
        return {"error": message}, code
    return render_template("error.html.j2", message=message), code


@_judge_pages.get("/j/<token>")
def enter(token: str) -> Response:
    """Take the secret out of the address and into a cookie."""
    # Every judge is compared, found or not.
    found = [judge for judge in _site().database.judges() if is_same(token, judge.token)]
    if not found:
        abort(404, _site().study.say("no_such_link"))
    if found[0].state == "revoked":
        abort(403, _site().study.say("withdrawn"))
    return _let_in(found[0])


@_judge_pages.route("/join/<token>", methods=["GET", "POST"])
def join(token: str) -> Any:
    """Ask for a name, where a link is for everybody; who has been here before goes on.

    Who comes from Prolific or Mechanical Turk is known by the parameters of the link instead.
    """
    database, say = _site().database, _site().study.say
    if not is_same(token, database.open_token):
        abort(404, say("no_such_link"))
    problem, known = "", _known_judges()
    parameters = read_parameters(request.args)
    named = parameters.get("PROLIFIC_PID") or parameters.get("workerId", "")
    if request.method == "POST":
        _check_form(database.open_token)
        if (name := parse_name(named or request.form.get("name", ""))) is None:
            problem = say("name_expected", most=MAX_NAME)
        else:
            returning = [judge for judge in known if judge.name == name]
            returning += _find_returning(parameters, name)
            if returning:
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


def _show(template: str, judge: Judge, state: dict[str, Any], **more: Any) -> str:
    """Return a page of a judge, with a token in it that comes back with what it sends."""
    here = _site()
    return render_template(
        template,
        judge=judge,
        state=state,
        form_token=form_token(here.database.key, judge.token),
        undo_id=secrets.token_hex(16),
        instructions=here.study.instruct(is_grid=here.asker.settings.screen == GRID),
        **more,
    )


@_judge_pages.get("/judge/<int:number>/")
def start(number: int) -> Any:
    """Show the instructions, and the link that belongs to this judge."""
    judge = _judge(number)
    return _show(
        "start.html.j2",
        judge,
        _make_state(judge),
        has_agreed=_has_agreed(judge),
        consent=render_markdown(_site().study.consent),
        link=url_for("judge.enter", token=judge.token, _external=True),
    )


@_judge_pages.post("/judge/<int:number>/agree")
def agree(number: int) -> Any:
    """Keep that a judge has agreed to the study's text, and when."""
    judge = _sending_judge(number)
    if request.form.get("agree") != "yes":
        abort(400)
    consent = {"text": _site().study.consent_hash, "at": now()}
    _site().database.change_judge(judge.id, about=judge.about | {"consent": consent})
    return redirect(url_for("judge.ask", number=number), 303)


@_judge_pages.get("/judge/<int:number>/ask")
def ask(number: int) -> Any:
    """Show the screen that is to be answered."""
    judge = _judge(number)
    if not _has_agreed(judge):
        return redirect(url_for("judge.start", number=number))
    state = _make_state(judge)
    if not state["screens"]:
        return redirect(url_for("judge.done", number=number))
    state["feedback"] = request.args.get("feedback") and _feedback(judge)
    new_id = secrets.token_hex(16)
    return _show("ask.html.j2", judge, state, screen=state["screens"][0], client_id=new_id)


@_judge_pages.get("/judge/<int:number>/done")
def done(number: int) -> Any:
    """Say thank you."""
    judge, study = _judge(number), _site().study
    state = _make_state(judge)
    if state["screens"]:
        return redirect(url_for("judge.ask", number=number))
    link = study.link_of(judge.about.get("parameters", {}))
    return _show("done.html.j2", judge, state, thanks=render_markdown(study.thanks), link=link)


@_judge_pages.post("/judge/<int:number>/answer")
def answer(number: int) -> Any:
    """Keep an answer; the reply is sent when it is on the disk."""
    judge = _sending_judge(number)
    here = _site()
    try:
        given = parse_answer(_sent() if request.is_json else _form_answer())
        # With the next screens in one transaction there is one wait for the disk.
        with here.database.writing():
            outcome = here.database.add_answer(judge.id, given)
            state = _make_state(judge)
    except JudgementsError as error:
        abort(400, str(error))
    feedback = _feedback(judge, given.screen)
    if not request.is_json:
        place = url_for("judge.ask", number=number, feedback="yes" if feedback else None)
        return redirect(place, 303)
    state["feedback"] = feedback
    if outcome == "taken":
        return state | {"error": here.study.say("answered_already")}, 409
    return state | {"is_new": outcome == "new"}


@_judge_pages.post("/judge/<int:number>/undo")
def undo(number: int) -> Any:
    """Take the last answer back."""
    judge = _sending_judge(number)
    fields = _sent() if request.is_json else {"undo_id": request.form.get("undo_id")}
    try:
        if not isinstance(fields, dict) or set(fields) != {"undo_id"}:
            raise JudgementsError("expected an undo_id")
        undo_id = parse_id(fields["undo_id"], "undo_id")
    except JudgementsError as error:
        abort(400, str(error))
    screen = _site().database.undo(judge.id, undo_id)
    if not request.is_json:
        return redirect(url_for("judge.ask", number=number), 303)
    return _make_state(judge) | {"undone": screen is not None}


def _make_state(judge: Judge) -> dict[str, Any]:
    """Return what a page needs to know, as plain JSON values."""
    here = _site()
    total = here.asker.settings.n_questions
    n_done = here.database.n_answers(judge.id)
    screens = [] if here.is_ended else here.asker.screens(judge.id)
    usual_ms = here.database.usual_response_ms(judge.id)
    total = max(total, n_done + len(screens))
    if n_practice := sum(screen.purpose == "practice" for screen in screens):
        n_of = len(here.asker.practice)
        progress = here.study.say("practice", done=n_of - n_practice + 1, total=n_of)
    else:
        each_ms = (_USUAL_RESPONSE_MS if usual_ms is None else usual_ms) + _BETWEEN_MS
        minutes = round((total - n_done) * each_ms / 60_000)
        key = "progress" if minutes else "progress_soon"
        progress = here.study.say(key, done=n_done, total=total, minutes=minutes)
    return {
        "done": n_done,
        "total": total,
        "progress": progress,
        "can_undo": usual_ms is not None,
        "pause_due": n_done > 0 and n_done % here.study.pause_every == 0 and bool(screens),
        "screens": [screen.to_dict() for screen in screens],
    }


def _feedback(judge: Judge, screen: int | None = None) -> str:
    """Return what is said of an answer to a practice question, the last one if none is named."""
    study = _site().study
    row = _site().database.practised(judge.id, screen) if study.practice else None
    if row is None:
        return ""
    if row["choice"] == FIRST:
        said = study.say("practice_right")
    else:
        side = LEFT if row["is_first_left"] else RIGHT
        said = study.say("practice_wrong", side=study.say(side))
    why = _site().asker.practice.get(row["question"], "")
    return f"{said} {why}".strip()


def _has_agreed(judge: Judge) -> bool:
    study = _site().study
    return not study.consent or judge.about.get("consent", {}).get("text") == study.consent_hash


def _judge(number: int) -> Judge:
    """Return the judge whose pages these are, if the browser has the cookie."""
    judges = _known_judges(number)
    if not judges:
        abort(403)
    if judges[0].state == "paused":
        abort(403, _site().study.say("paused"))
    return judges[0]


def _sending_judge(number: int) -> Judge:
    """Refuse what another site, or the page of another judge, sends in this judge's name."""
    judge = _judge(number)
    _check_form(judge.token)
    if request.endpoint != "judge.agree" and not _has_agreed(judge):
        abort(403, _site().study.say("consent"))
    return judge


def _check_form(token: str, problem: str = "") -> None:
    given = request.headers.get(_FORM_TOKEN) or request.form.get("form_token", "")
    if not is_same(given, form_token(_site().database.key, token)):
        abort(403, problem or _site().study.say("old_page"))


def _sent() -> Any:
    """Return what the page sent as JSON."""
    try:
        return request.get_json()
    except RecursionError:
        abort(400, "expected JSON")


def _form_answer() -> dict[str, Any]:
    """Return the answer of a page without JavaScript, which measures no time."""
    form = request.form
    return {
        "client_id": form.get("client_id"),
        "screen": form.get("screen", type=int),
        "side": form.get("side"),
        "places": form.getlist("place", type=int) if form.get("side") == GRID else [],
        "response_ms": 0.0,
        "method": "form",
    }


def _find_returning(parameters: dict[str, str], name: str) -> list[Judge]:
    """Return the judge of this name who came with the very same parameters, a session among them.

    The number of a session is known to the participant alone, the name may be known to others.
    """
    if "SESSION_ID" not in parameters and "assignmentId" not in parameters:
        return []
    return [
        judge
        for judge in _site().database.judges()
        if judge.name == name
        and judge.about.get("parameters") == parameters
        and judge.state != "revoked"
    ]


def _let_in(judge: Judge) -> Response:
    if parameters := read_parameters(request.args):
        about = judge.about | {"parameters": parameters}
        _site().database.change_judge(judge.id, about=about)
    place = url_for("judge.start", number=judge.id)
    return let_in(place, _site().judge_cookie(judge.id), judge.token)


@_owner_page.get("/owner/<token>", endpoint="enter")
def enter_owner(token: str) -> Response:
    """Take the secret out of the address and into a cookie."""
    if not is_same(token, _site().database.owner_token):
        abort(404, "No study has this link. Copy it whole from the terminal.")
    return let_in(url_for("owner.show"), _site().owner_cookie, token)


@_owner_page.get("/owner")
def show() -> Any:
    """Show how the collection stands."""
    if not _is_owner():
        abort(403)
    here = _site()
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


@_owner_page.post("/owner/judges")
def add_judge() -> Response:
    """Add a judge, whose link the page then shows."""
    _check_sent()
    if (name := parse_name(request.form.get("name", ""))) is None:
        abort(400, f"Expected a name of 1 to {MAX_NAME} letters.")
    try:
        _site().database.add_judge(name, is_new=True)
    except JudgementsError as error:
        abort(400, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return redirect(url_for("owner.show"), 303)


@_owner_page.post("/owner/judges/<int:judge>/<change>")
def change_judge(judge: int, change: str) -> Response:
    """Pause a judge or go on, revoke the link, leave the answers out or count them."""
    _check_sent()
    if change not in _CHANGES:
        abort(404)
    _site().database.change_judge(judge, **_CHANGES[change])
    return redirect(url_for("owner.show"), 303)


@_owner_page.post("/owner/<change>")
def end(change: str) -> Response:
    """End the study, or go on with it."""
    _check_sent()
    if change not in ("end", "go-on"):
        abort(404)
    _site().database.keep_fact("ended", now() if change == "end" else None)
    return redirect(url_for("owner.show"), 303)


@_owner_page.get("/owner/answers.csv")
def download() -> Response:
    """Send all answers, as `export-judgements` writes them."""
    if not _is_owner():
        abort(403)
    answers = read_answers_given(_site().database.path, with_left_out=True)
    table = pd.DataFrame([answer.to_dict() for answer in answers]).to_csv(index=False)
    response = Response(table, mimetype="text/csv")
    response.headers["Content-Disposition"] = "attachment; filename=answers.csv"
    return response


def _check_sent() -> None:
    """Refuse what another site sends in the owner's name."""
    if not _is_owner():
        abort(403)
    _check_form(
        _site().database.owner_token, "This page is an old one. Open the owner's link again."
    )


def _draw_qr_code(link: str) -> Markup:
    """Return a link as a picture that phones read, an SVG."""
    import segno

    return Markup(segno.make(link, micro=False).svg_inline(scale=3, border=2, light="white"))


def _draw_curve(about: dict[str, Any]) -> dict[str, Any]:
    """Return where a learning curve is drawn, in pixels, and the texts beside it."""
    curve, after = about["curve"], about.get("after_more")
    last = curve[-1]["n_questions"]
    n_most = last + (0 if after is None else about["more"])
    bottom = int(min(0.95, *(point["low"] for point in curve)) * 20) / 20
    top = min(1.0, (int(max(after or 0, *(point["high"] for point in curve)) * 20) + 1) / 20)

    def y(accuracy: float) -> float:
        share = (accuracy - bottom) / (top - bottom)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def place(n: float, accuracy: float, **ends: float) -> dict[str, Any]:
        x = round(_LEFT + n / n_most * (_WIDTH - _LEFT - _RIGHT), 1)
        texts = {"n": f"{n:,}", "accuracy": f"{accuracy:.1%}"}
        return {"x": x, "y": y(accuracy), **texts, **{key: y(end) for key, end in ends.items()}}

    points = [
        place(point["n_questions"], point["accuracy"], low=point["low"], high=point["high"])
        for point in curve
    ]
    # Numbers that would stand on one another are left out, but for the last.
    for point, after_it in zip(points, [*points[1:], {"x": 2 * _WIDTH}], strict=True):
        point["has_room"] = after_it["x"] - point["x"] >= _ROOM
    step = 0.05 * max(1, -(-round((top - bottom) * 20) // 6))
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "points": points,
        "expected": None if after is None else place(n_most, after),
        "ticks": [(y(level), f"{level:.0%}") for level in np.arange(bottom, top + 1e-9, step)],
    }
