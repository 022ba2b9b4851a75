"""The web application: the pages of judges and of the owner, and who is asking."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from flask import Flask, abort, redirect, render_template, request, url_for
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
    parse_name,
)
from tripletkit.collecting.judges import report_judges
from tripletkit.collecting.serving import (
    MAX_BODY_BYTES,
    add_headers,
    form_token,
    is_same,
    scale_image,
)
from tripletkit.collecting.study import Study, render_markdown
from tripletkit.data.judgement_files import FIRST, GRID, LEFT, RIGHT, read_answers_given
from tripletkit.errors import ImageReadError, JudgementsError

logger = logging.getLogger("tripletkit")

# Methods and path of each page -> what answers it.
_Views = dict[str, Callable[..., Any]]
_FORM_TOKEN = "X-Form-Token"
# What a judge needs for a question before it is known, and between an answer and the next image.
_USUAL_RESPONSE_MS, _BETWEEN_MS = 4000, 300
_COOKIE_AGE_S, _IMAGE_AGE_S = 90 * 24 * 3600, 3600
# Longest side in pixels: of two beside each other on a phone, on a desk, and alone on a large
# screen of many pixels. So many are kept: of the largest, some 250 MB.
_SIZES_PX = {"small": 360, "medium": 720, "large": 1280}
_N_KEPT = 1500
# In the links of Prolific and of Mechanical Turk; the first of each is whose they are.
_URL_PARAMETERS = ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID", "workerId", "assignmentId", "hitId")
_PARAMETER = re.compile(r"[0-9A-Za-z_.-]{1,40}")
# What the buttons of a judge do.
_CHANGES: dict[str, dict[str, Any]] = {
    "pause": {"state": "paused"},
    "go-on": {"state": "active"},
    "revoke": {"state": "revoked"},
    "leave-out": {"is_left_out": True},
    "count": {"is_left_out": False},
}


@dataclass
class Site:
    """The pages of a collection; `status` is what is to be said of the training beside them."""

    database: JudgementDatabase
    asker: Asker
    paths: Mapping[int, Path]
    study: Study = field(default_factory=Study)
    status: dict[str, str] = field(default_factory=dict)

    def make_app(self, url: str = "") -> Flask:
        """Return the web application, which a proxy may serve at another address."""
        app = Flask("tripletkit.collecting", static_folder="static", template_folder="templates")
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY_BYTES
        # By itself Flask escapes nothing in a template whose name does not end with .html.
        app.jinja_env.autoescape = True
        app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
        say = self.study.say
        app.jinja_env.globals |= {"version": __version__, "study": self.study, "say": say}
        self._scaled = lru_cache(_N_KEPT)(lambda n, size: scale_image(self.paths[n], size))
        anybody: _Views = {
            "GET /j/<token>": self.enter,
            "GET,POST /join/<token>": self.join,
            "GET /owner/<token>": self.enter_owner,
            "GET /image/<int:number>/<size>": self.image,
        }
        of_judge: _Views = {
            "GET /": self.start,
            "POST /agree": self.agree,
            "GET /ask": self.ask,
            "GET /done": self.done,
            "POST /answer": self.answer,
            "POST /undo": self.undo,
        }
        of_owner: _Views = {
            "GET ": self.owner,
            "GET /answers.csv": self.download,
            "POST /judges": self.add_judge,
            "POST /judges/<int:judge>/<change>": self.change_judge,
            "POST /<change>": self.end,
        }
        for prefix, views, check in (
            ("", anybody, lambda view, **given: view(**given)),
            ("/judge/<int:number>", of_judge, self._as_judge),
            ("/owner", of_owner, self._as_owner),
        ):
            for rule, view in views.items():
                methods, _, path = rule.partition(" ")
                checked = partial(check, view)
                app.add_url_rule(prefix + path, view.__name__, checked, methods=methods.split(","))
        app.after_request(add_headers)
        app.register_error_handler(HTTPException, self._show_error)
        app.url_defaults(self._name_study)
        if url:
            app.wsgi_app = _publish(app.wsgi_app, url)  # type: ignore[method-assign]
        return app

    # Who is asking

    def _as_judge(self, view: Callable[[Judge], Any], number: int) -> Any:
        """Show a page to the judge whose it is; refuse what another page sends in their name."""
        known = self._known_judges(number)
        if not known:
            abort(403)
        judge = known[0]
        if judge.state == "paused":
            abort(403, self.study.say("paused"))
        if request.method == "POST":
            self._check_form(judge.token)
            if view != self.agree and not self._has_agreed(judge):
                abort(403, self.study.say("consent"))
        return view(judge)

    def _is_owner(self) -> bool:
        cookie = request.cookies.get(f"tripletkit-owner-{self.database.id}", "")
        return is_same(cookie, self.database.owner_token)

    def _as_owner(self, view: Callable[..., Any], **given: Any) -> Any:
        if not self._is_owner():
            abort(403)
        if request.method == "POST":
            problem = "This page is an old one. Open the owner's link again."
            self._check_form(self.database.owner_token, problem)
        return view(**given)

    def _judge_cookie(self, judge: int | str) -> str:
        """Return the name of a judge's cookie, so that two can share a browser, and two servers."""
        return f"tripletkit-{self.database.id}-{judge}"

    def _known_judges(self, number: int | None = None) -> list[Judge]:
        """Return the judges whose cookies come with the request; of a number, that one."""
        known = []
        for name, token in request.cookies.items():
            found = re.fullmatch(self._judge_cookie("([0-9]{1,9})"), name)
            if found is not None and number in (None, int(found[1])):
                judges = self.database.judges(int(found[1]))
                known += [j for j in judges if is_same(token, j.token) and j.state != "revoked"]
        return known

    def _check_form(self, token: str, problem: str = "") -> None:
        given = request.headers.get(_FORM_TOKEN) or request.form.get("form_token", "")
        if not is_same(given, form_token(self.database.key, token)):
            abort(403, problem or self.study.say("old_page"))

    def _has_agreed(self, judge: Judge) -> bool:
        agreed = judge.about.get("consent", {}).get("text")
        return not self.study.consent or agreed == self.study.consent_hash

    def _let_in(self, endpoint: str, cookie: str, secret: str, **values: Any) -> Response:
        """Take a secret out of the address and into a cookie."""
        response = redirect(url_for(endpoint, **values), 303)
        # Lax, so that a link in a mail works; what changes something needs the form token as well.
        response.set_cookie(
            cookie,
            secret,
            max_age=_COOKIE_AGE_S,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
            path=request.root_path or "/",
        )
        return response

    def _let_judge_in(self, judge: Judge) -> Response:
        if parameters := _read_parameters():
            self.database.change_judge(judge.id, about=judge.about | {"parameters": parameters})
        return self._let_in("start", self._judge_cookie(judge.id), judge.token, number=judge.id)

    # Pages of anybody

    def enter(self, token: str) -> Response:
        """Let the judge in whose secret it is."""
        # Every judge is compared, found or not.
        found = [judge for judge in self.database.judges() if is_same(token, judge.token)]
        if not found:
            abort(404, self.study.say("no_such_link"))
        if found[0].state == "revoked":
            abort(403, self.study.say("withdrawn"))
        return self._let_judge_in(found[0])

    def enter_owner(self, token: str) -> Response:
        """Let the owner in."""
        if not is_same(token, self.database.owner_token):
            abort(404, "No study has this link. Copy it whole from the terminal.")
        return self._let_in("owner", f"tripletkit-owner-{self.database.id}", token)

    def join(self, token: str) -> Any:
        """Ask for a name on everybody's link; Prolific and Mechanical Turk give one."""
        database, say = self.database, self.study.say
        if not is_same(token, database.open_token):
            abort(404, say("no_such_link"))
        problem, known = "", self._known_judges()
        parameters = _read_parameters()
        named = parameters.get("PROLIFIC_PID") or parameters.get("workerId", "")
        if request.method == "POST":
            self._check_form(database.open_token)
            if (name := parse_name(named or request.form.get("name", ""))) is None:
                problem = say("name_expected", most=MAX_NAME)
            else:
                for judge in [*known, *self._find_returning(parameters)]:
                    if judge.name == name:
                        return self._let_judge_in(judge)
                try:
                    return self._let_judge_in(database.add_judge(name, is_new=True))
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

    def _find_returning(self, parameters: dict[str, str]) -> list[Judge]:
        """Return judges of the very same session, whose number the participant alone knows."""
        if not parameters.keys() & {"SESSION_ID", "assignmentId"}:
            return []
        judges = [judge for judge in self.database.judges() if judge.state != "revoked"]
        return [judge for judge in judges if judge.about.get("parameters") == parameters]

    def image(self, number: int, size: str) -> Response:
        """Send an image in one of three sizes."""
        if not self._known_judges() and not self._is_owner():
            abort(403)
        if number not in self.paths or size not in _SIZES_PX:
            abort(404)
        try:
            data, kind = self._scaled(number, _SIZES_PX[size])
        except ImageReadError as error:
            logger.warning("%s", error)
            self.asker.leave_out(number)
            abort(404)
        response = Response(data, mimetype=kind)
        response.cache_control.private = True
        response.cache_control.max_age = _IMAGE_AGE_S
        response.cache_control.immutable = True
        return response

    def _name_study(self, endpoint: str, values: dict[str, Any]) -> None:
        """Give images an address of this study's own: another here has the same numbers."""
        if endpoint == "image":
            values["of"] = self.database.id

    def _show_error(self, error: HTTPException) -> tuple[Any, int]:
        code = error.code or 500
        # A description that is not Werkzeug's own was written for this page.
        is_ours = error.description != type(error).description
        message = error.description if is_ours or code != 403 else self.study.say("needs_link")
        if request.is_json or request.accept_mimetypes.best == "application/json":
            return {"error": message}, code
        return render_template("error.html.j2", message=message), code

    # Pages of a judge

    def start(self, judge: Judge) -> str:
        """Show the instructions, and the link that belongs to this judge."""
        return self._show(
            "start.html.j2",
            judge,
            self._make_state(judge),
            has_agreed=self._has_agreed(judge),
            consent=render_markdown(self.study.consent),
            link=url_for("enter", token=judge.token, _external=True),
        )

    def agree(self, judge: Judge) -> Response:
        """Keep that a judge has agreed to the study's text, and when."""
        if request.form.get("agree") != "yes":
            abort(400)
        self.database.agree(judge, self.study.consent_hash)
        return redirect(url_for("ask", number=judge.id), 303)

    def ask(self, judge: Judge) -> Any:
        """Show the screen that is to be answered."""
        if not self._has_agreed(judge):
            return redirect(url_for("start", number=judge.id))
        state = self._make_state(judge)
        if not state["screens"]:
            return redirect(url_for("done", number=judge.id))
        state["feedback"] = request.args.get("feedback") and self._feedback(judge)
        new_id, screen = secrets.token_hex(16), state["screens"][0]
        return self._show("ask.html.j2", judge, state, screen=screen, client_id=new_id)

    def done(self, judge: Judge) -> Any:
        """Say thank you."""
        state = self._make_state(judge)
        if state["screens"]:
            return redirect(url_for("ask", number=judge.id))
        link = self.study.link_of(judge.about.get("parameters", {}))
        thanks = render_markdown(self.study.thanks)
        return self._show("done.html.j2", judge, state, thanks=thanks, link=link)

    def answer(self, judge: Judge) -> Any:
        """Keep an answer; the reply is sent when it is on the disk."""
        given = _sent() if request.is_json else _form_answer()
        try:
            # With the next screens in one transaction there is one wait for the disk.
            with self.database.writing():
                outcome = self.database.add_answer(judge.id, given)
                state = self._make_state(judge)
        except JudgementsError as error:
            abort(400, str(error))
        state["feedback"] = feedback = self._feedback(judge, given["screen"])
        if not request.is_json:
            said = "yes" if feedback else None
            return redirect(url_for("ask", number=judge.id, feedback=said), 303)
        if outcome == "taken":
            return state | {"error": self.study.say("answered_already")}, 409
        return state | {"is_new": outcome == "new"}

    def undo(self, judge: Judge) -> Any:
        """Take the last answer back."""
        fields = _sent() if request.is_json else {"undo_id": request.form.get("undo_id")}
        if not isinstance(fields, dict) or set(fields) != {"undo_id"}:
            abort(400, "expected an undo_id")
        try:
            screen = self.database.undo(judge.id, fields["undo_id"])
        except JudgementsError as error:
            abort(400, str(error))
        if not request.is_json:
            return redirect(url_for("ask", number=judge.id), 303)
        return self._make_state(judge) | {"undone": screen is not None}

    def _show(self, template: str, judge: Judge, state: dict[str, Any], **more: Any) -> str:
        """Return a page of a judge, with a token in it that comes back with what it sends."""
        return render_template(
            template,
            judge=judge,
            state=state,
            form_token=form_token(self.database.key, judge.token),
            undo_id=secrets.token_hex(16),
            instructions=self.study.instruct(is_grid=self.asker.settings.screen == GRID),
            **more,
        )

    def _make_state(self, judge: Judge) -> dict[str, Any]:
        """Return what a page needs to know, as plain JSON values."""
        n_done = self.database.n_answers(judge.id)
        screens = [] if self.database.is_ended else self.asker.screens(judge.id)
        usual_ms = self.database.usual_response_ms(judge.id)
        total = max(self.asker.settings.n_questions, n_done + len(screens))
        if n_practice := sum(screen.purpose == "practice" for screen in screens):
            n_of = len(self.asker.practice)
            progress = self.study.say("practice", done=n_of - n_practice + 1, total=n_of)
        else:
            each_ms = (_USUAL_RESPONSE_MS if usual_ms is None else usual_ms) + _BETWEEN_MS
            minutes = round((total - n_done) * each_ms / 60_000)
            key = "progress" if minutes else "progress_soon"
            progress = self.study.say(key, done=n_done, total=total, minutes=minutes)
        return {
            "done": n_done,
            "total": total,
            "progress": progress,
            "can_undo": usual_ms is not None,
            "pause_due": n_done > 0 and n_done % self.study.pause_every == 0 and bool(screens),
            "screens": [screen.to_dict() for screen in screens],
        }

    def _feedback(self, judge: Judge, screen: int | None = None) -> str:
        """Return what is said of an answer to a practice question, the last if none is named."""
        row = self.database.practised(judge.id, screen) if self.study.practice else None
        if row is None:
            return ""
        if row["choice"] == FIRST:
            said = self.study.say("practice_right")
        else:
            side = LEFT if row["is_first_left"] else RIGHT
            said = self.study.say("practice_wrong", side=self.study.say(side))
        return f"{said} {self.asker.practice.get(row['question'], '')}".strip()

    # Pages of the owner

    def owner(self) -> str:
        """Show how the collection stands."""
        database = self.database
        answers = read_answers_given(database.path, with_left_out=True)
        judges = database.judges()
        model = database.last_model()
        about = {} if model is None else json.loads(model["about"])
        return render_template(
            "owner.html.j2",
            report=report_judges(answers),
            judges=judges,
            is_enough=self.study.is_enough(about),
            progress={judge.name: database.n_answers(judge.id) for judge in judges},
            qr_code=_draw_qr_code,
            form_token=form_token(database.key, database.owner_token),
            open_link=url_for("join", token=database.open_token, _external=True),
            is_ended=database.is_ended,
            total=self.asker.settings.n_questions,
            n_answers=database.n_answers(),
            n_random=len({a.question for a in answers if a.how in ("random", "grid")}),
            about=about,
            status=self.status.get("text", ""),
        )

    def add_judge(self) -> Response:
        """Add a judge, whose link the page then shows."""
        if (name := parse_name(request.form.get("name", ""))) is None:
            abort(400, f"Expected a name of 1 to {MAX_NAME} letters.")
        try:
            self.database.add_judge(name, is_new=True)
        except JudgementsError as error:
            abort(400, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        return redirect(url_for("owner"), 303)

    def change_judge(self, judge: int, change: str) -> Response:
        """Pause a judge or go on, revoke the link, leave the answers out or count them."""
        if change not in _CHANGES:
            abort(404)
        self.database.change_judge(judge, **_CHANGES[change])
        return redirect(url_for("owner"), 303)

    def end(self, change: str) -> Response:
        """End the study, or go on with it."""
        if change not in ("end", "go-on"):
            abort(404)
        self.database.end(is_ended=change == "end")
        return redirect(url_for("owner"), 303)

    def download(self) -> Response:
        """Send all answers, as `export-judgements` writes them."""
        answers = read_answers_given(self.database.path, with_left_out=True)
        table = pd.DataFrame([answer.to_dict() for answer in answers]).to_csv(index=False)
        response = Response(table, mimetype="text/csv")
        response.headers["Content-Disposition"] = "attachment; filename=answers.csv"
        return response


def _publish(app: Callable, url: str) -> Callable:
    """Return a WSGI application as it is seen at an address that a proxy serves it under.

    No header that a visitor could send as well (`X-Forwarded-For` and its like) is believed. The
    proxy may leave the prefix in the path or take it out.
    """
    parts = urlsplit(url)
    prefix = parts.path.rstrip("/")

    def call(environ: dict[str, Any], start_response: Callable) -> Any:
        environ |= {"wsgi.url_scheme": parts.scheme, "HTTP_HOST": parts.netloc}
        if prefix:
            environ |= {
                "SCRIPT_NAME": prefix,
                "PATH_INFO": "/" + environ["PATH_INFO"].removeprefix(prefix).lstrip("/"),
            }
        return app(environ, start_response)

    return call


def _read_parameters() -> dict[str, str]:
    """Return what a link says of a participant, the names and values that are of their kind."""
    found = {name: request.args.get(name, "") for name in _URL_PARAMETERS}
    return {name: value for name, value in found.items() if _PARAMETER.fullmatch(value)}


def _sent() -> Any:
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


def _draw_qr_code(link: str) -> Markup:
    """Return a link as a picture that phones read, an SVG."""
    import segno

    return Markup(segno.make(link, micro=False).svg_inline(scale=3, border=2, light="white"))
