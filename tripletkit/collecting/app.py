"""The web application: what all pages have in common."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, abort, render_template, request
from werkzeug.exceptions import HTTPException

from tripletkit import __version__
from tripletkit.collecting.judge_pages import judge_pages
from tripletkit.collecting.owner_page import owner_page
from tripletkit.collecting.scaled_images import SIZES_PX, media_type
from tripletkit.collecting.serving import HEADERS, MAX_BODY_BYTES
from tripletkit.collecting.site import Site, is_owner, known_judges, site
from tripletkit.errors import ImageReadError

logger = logging.getLogger("tripletkit")

_IMAGE_AGE_S = 3600


def make_app(site: Site) -> Flask:
    """Return the web application of a collection."""
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


def _add_headers(response: Response) -> Response:
    response.headers.extend(HEADERS)
    if request.endpoint not in ("image", "static"):
        response.cache_control.no_store = True
    return response


def _show_error(error: HTTPException) -> tuple[Any, int]:
    code = error.code or 500
    if request.is_json or request.accept_mimetypes.best == "application/json":
        return {"error": error.description}, code
    # A description that is not Werkzeug's own was written for this page.
    is_ours = error.description != type(error).description
    message = error.description if is_ours else _ERRORS.get(code)
    return render_template("error.html.j2", code=code, message=message), code


_ERRORS = {
    400: "The page sent something that was not expected. Go back and load it again.",
    403: "This needs the link that you were given. Open that link again.",
    404: "There is nothing here.",
    413: "That is too long.",
}
