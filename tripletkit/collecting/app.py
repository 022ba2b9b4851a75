"""The web application: what all pages have in common."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, abort, current_app, request
from werkzeug.exceptions import HTTPException

from tripletkit import __version__, defaults
from tripletkit.collecting.asking import Asker
from tripletkit.collecting.database import JudgementDatabase
from tripletkit.collecting.instructions import DEFAULT, DEFAULT_GRID, render_markdown
from tripletkit.collecting.scaled_images import SIZES_PX, ScaledImages, media_type
from tripletkit.collecting.tokens import find_judge, is_same
from tripletkit.data.judgement_files import GRID
from tripletkit.errors import ImageReadError

logger = logging.getLogger("tripletkit")

# An answer is some two hundred bytes; nothing that is sent to this server is longer than that of
# a large grid.
MAX_BODY_BYTES = 16_384
_IMAGE_AGE_S = 3600

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass
class Site:
    """What the pages need.

    Attributes:
        database: where judgements are kept.
        asker: decides what is asked next.
        images: by number.
        instructions: Markdown; None for the usual ones.
        pause_every: answers after which a pause is offered.
        status: what is to be said of the training in the background.
    """

    database: JudgementDatabase
    asker: Asker
    images: ScaledImages
    instructions: str | None = None
    pause_every: int = defaults.PAUSE_EVERY
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def judge_cookie(self) -> str:
        """Name of the cookie; cookies of several servers on one machine must not mix."""
        return f"tripletkit-{self.database.id}"

    @property
    def owner_cookie(self) -> str:
        return f"tripletkit-owner-{self.database.id}"

    @property
    def instructions_html(self) -> str:
        usual = DEFAULT_GRID if self.asker.settings.screen == GRID else DEFAULT
        return render_markdown(self.instructions or usual)


def make_app(site: Site) -> Flask:
    """Return the web application of a collection."""
    from tripletkit.collecting.judge_pages import judge_pages
    from tripletkit.collecting.owner_page import owner_page

    app = Flask("tripletkit.collecting", static_folder="static", template_folder="templates")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY_BYTES
    app.extensions["tripletkit"] = site
    # By itself Flask escapes nothing in a template whose name does not end with .html.
    app.jinja_env.autoescape = True
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals["version"] = __version__
    app.register_blueprint(judge_pages)
    app.register_blueprint(owner_page)
    app.after_request(_add_headers)
    app.register_error_handler(HTTPException, _show_error)
    app.add_url_rule("/image/<int:number>/<size>", "image", _send_image)
    return app


def site() -> Site:
    """Return what belongs to the application that answers this request."""
    return current_app.extensions["tripletkit"]


def is_owner() -> bool:
    """Return whether the request comes with the owner's secret."""
    return is_same(request.cookies.get(site().owner_cookie, ""), site().database.owner_token)


def _send_image(number: int, size: str) -> Response:
    here = site()
    judge = find_judge(request.cookies.get(here.judge_cookie, ""), here.database.judges())
    if judge is None and not is_owner():
        abort(403)
    if number not in here.images or size not in SIZES_PX:
        abort(404)
    try:
        data = here.images.get(number, size)
    except ImageReadError as error:
        logger.warning("%s", error)
        abort(404)
    response = Response(data, mimetype=media_type(data))
    response.cache_control.private = True
    response.cache_control.max_age = _IMAGE_AGE_S
    return response


def _add_headers(response: Response) -> Response:
    response.headers.extend(HEADERS)
    if request.endpoint not in ("image", "static"):
        response.cache_control.no_store = True
    return response


def _show_error(error: HTTPException) -> tuple[Any, int]:
    from flask import render_template

    code = error.code or 500
    if request.is_json or request.accept_mimetypes.best == "application/json":
        return {"error": error.description}, code
    return render_template("error.html.j2", code=code, message=_ERRORS.get(code)), code


_ERRORS = {
    400: "The page sent something that was not expected. Go back and load it again.",
    403: "This needs the link that you were given. Open that link again.",
    404: "There is nothing here.",
    413: "That is too long.",
}
