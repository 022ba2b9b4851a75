"""The report served to this computer alone, where an image of one's own can be dropped on it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flask import Flask, Response, abort, redirect, request
from werkzeug.exceptions import HTTPException

from tripletkit import defaults
from tripletkit.collecting.serving import (
    add_headers,
    bound_port,
    bound_server,
    form_token,
    is_same,
)
from tripletkit.data.images import hash_files, open_images
from tripletkit.errors import ImageReadError, SettingsError
from tripletkit.features.store import FeatureStore
from tripletkit.reporting.collages import thumbnail_uri
from tripletkit.reporting.model_view import ModelView
from tripletkit.reporting.page import make_page
from tripletkit.search.image_search import find_neighbors, find_same

_HOST = "127.0.0.1"
# Photos of a telephone have some 10 MB.
_MAX_IMAGE_BYTES = 32 << 20
_NAME = "the image"
_BODY_TYPE = "application/octet-stream"


@contextmanager
def report_server(
    models: Sequence[ModelView], port: int, projection: str = "pca", cache: Path | None = None
) -> Iterator[tuple[Any, str]]:
    """Bind a port of this computer, and give a server with the link to its page."""
    token = secrets.token_urlsafe(32)
    app = _make_app(models, token, projection, cache)
    # A little more than the application takes, so that its own words say what is too long.
    with (
        bound_port(_HOST, port) as listener,
        bound_server(app, listener, max_body_bytes=2 * _MAX_IMAGE_BYTES) as server,
    ):
        yield server, f"http://{_HOST}:{server.effective_port}/open/{token}"


def _make_app(
    models: Sequence[ModelView], token: str, projection: str = "pca", cache: Path | None = None
) -> Flask:
    search = _QuerySearch(models, cache)
    key = secrets.token_bytes(32)
    query = {"form_token": form_token(key, token), "max_bytes": _MAX_IMAGE_BYTES}
    page, policy = make_page(models, projection, query)
    app = Flask("tripletkit.reporting", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_IMAGE_BYTES
    # A name that another site made point at this computer is not answered.
    app.config["TRUSTED_HOSTS"] = [_HOST]
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
        return Response(page, mimetype="text/html")

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

    policy += "; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    app.after_request(lambda response: add_headers(response, policy))
    app.register_error_handler(HTTPException, _show_error)
    return app


def _show_error(error: HTTPException) -> tuple[dict[str, str], int]:
    code = error.code or 500
    return {"error": _ERRORS.get(code, "There is nothing here.")}, code


_ERRORS = {
    400: "Expected the bytes of an image.",
    403: "This needs the link that the command printed. Open that link again.",
    413: f"Expected an image of at most {_MAX_IMAGE_BYTES >> 20} MiB.",
    500: "This is a fault of the program; its terminal says more.",
}


class _QuerySearch:
    """A search among the images of a report, by each of its models."""

    def __init__(self, models: Sequence[ModelView], cache: Path | None = None) -> None:
        for model in models:
            if model.encoder.is_given:
                raise SettingsError(
                    "serve",
                    f"{model.name} takes features that were given, and a new image has none. "
                    "Write the report without `serve`.",
                )
        self._models, self._cache = models, cache
        # One image after the other: a backbone takes all processors as it is.
        self._lock = threading.Lock()
        with FeatureStore(cache) as store:
            self._contents = [hash_files(model.paths, store).hashes for model in models]

    def find(self, image: bytes, k: int = defaults.NEIGHBORS) -> list[dict[str, Any]]:
        """Return the images nearest to one, by each model.

        Returns:
            For each model its name and `neighbors`: name, label, distance, and the image as a
            data URI; nearest first. A copy of the image is not among them.
        """
        with self._lock, TemporaryDirectory(prefix="tripletkit-") as folder:
            path = Path(folder) / "image"
            path.write_bytes(image)
            try:
                return [self._find(number, path, k) for number in range(len(self._models))]
            except ImageReadError as error:
                # Where the copy lies is of no use to who dropped the image, and nor is the advice
                # that the second line has for a folder of images.
                problem, *_ = str(error).replace(str(path), _NAME).splitlines()
                raise ImageReadError(problem.removeprefix(f"{_NAME}: ")) from error

    def _find(self, number: int, path: Path, k: int) -> dict[str, Any]:
        view = self._models[number]
        file = open_images([path], [_NAME])
        with FeatureStore(self._cache) as store:
            own = file.contents(store).hashes
            query = view.encoder.encode(file, store, tell=False)
        images = view.shown
        contents = [self._contents[number][image] for image in images]
        found = find_neighbors(
            view.embeddings[images],
            query,
            min(k, len(images)),
            view.model.distance,
            find_same(own, contents),
        )
        near = []
        for row, distance in found.of(0):
            image = int(np.asarray(images)[row])
            shown = view.paths[image]
            assert shown is not None, "an image that has an embedding has a file"
            near.append(
                {
                    "name": view.triplets.names[image],
                    "label": view.label_of(image),
                    "distance": float(distance),
                    "image": thumbnail_uri(shown),
                }
            )
        return {"name": view.name, "neighbors": near}
