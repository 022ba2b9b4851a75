"""The report served to this computer alone, where an image of one's own can be dropped on it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, redirect, request
from werkzeug.exceptions import HTTPException

from tripletkit.collecting.app import HEADERS
from tripletkit.collecting.server import bound_server
from tripletkit.collecting.tokens import form_token, is_same
from tripletkit.errors import ImageReadError
from tripletkit.reporting.page import QueryZone, make_page
from tripletkit.reporting.query import QuerySearch
from tripletkit.reporting.reported import Reported

HOST = "127.0.0.1"
# Photos of a telephone have some 10 MB.
MAX_IMAGE_BYTES = 32 << 20
_BODY_TYPE = "application/octet-stream"


@contextmanager
def report_server(
    models: Sequence[Reported], port: int, projection: str = "pca", cache: Path | None = None
) -> Iterator[tuple[Any, str]]:
    """Bind a port of this computer, and give a server with the link to its page.

    Args:
        models, projection: see `write_report`.
        port: 0 for any that is free.
        cache: folder of the feature store; None for the user's.
    Raises:
        SettingsError: see `QuerySearch`.
        JudgementsError: if the port cannot be bound.
    """
    token = secrets.token_urlsafe(32)
    app = make_app(models, token, projection, cache)
    # A little more than the application takes, so that its own words say what is too long.
    with bound_server(app, HOST, port, max_body_bytes=2 * MAX_IMAGE_BYTES) as server:
        yield server, f"http://{HOST}:{server.effective_port}/open/{token}"


def make_app(
    models: Sequence[Reported], token: str, projection: str = "pca", cache: Path | None = None
) -> Flask:
    """Return the web application of a report.

    Args:
        models, projection, cache: see `report_server`.
        token: whoever opens the page knows it.
    """
    search = QuerySearch(models, cache)
    key = secrets.token_bytes(32)
    page = make_page(models, projection, QueryZone(form_token(key, token), MAX_IMAGE_BYTES))
    app = Flask("tripletkit.reporting", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_IMAGE_BYTES
    # A name that another site made point at this computer is not answered.
    app.config["TRUSTED_HOSTS"] = [HOST]
    # Cookies of several reports on one computer must not mix.
    cookie = f"tripletkit-report-{secrets.token_hex(8)}"

    def check_visitor() -> None:
        if not is_same(request.cookies.get(cookie, ""), token):
            abort(403)

    @app.get("/open/<given>")
    def enter(given: str) -> Any:
        """Take the secret out of the address and into a cookie."""
        if not is_same(given, token):
            abort(404)
        response = redirect("/", 303)
        response.set_cookie(cookie, token, httponly=True, samesite="Strict")
        return response

    @app.get("/")
    def show() -> Response:
        check_visitor()
        return Response(page.html, mimetype="text/html")

    @app.post("/neighbors")
    def find() -> Any:
        """Answer the bytes of an image file, and nothing else."""
        check_visitor()
        if not is_same(request.headers.get("X-Form-Token", ""), form_token(key, token)):
            abort(403)
        if request.args or request.mimetype != _BODY_TYPE or not request.content_length:
            abort(400)
        try:
            return {"models": search.find(request.get_data(cache=False))}
        except ImageReadError as error:
            return {"error": f"{str(error)[:1].upper()}{str(error)[1:]}."}, 422

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.extend(HEADERS)
        response.headers["Content-Security-Policy"] = (
            f"{page.policy}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        response.cache_control.no_store = True
        return response

    @app.errorhandler(HTTPException)
    def show_error(error: HTTPException) -> tuple[dict[str, str], int]:
        code = error.code or 500
        return {"error": _ERRORS.get(code, "There is nothing here.")}, code

    return app


_ERRORS = {
    400: "Expected the bytes of an image.",
    403: "This needs the link that the command printed. Open that link again.",
    413: f"Expected an image of at most {MAX_IMAGE_BYTES >> 20} MiB.",
    500: "This is a fault of the program; its terminal says more.",
}
