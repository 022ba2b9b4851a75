"""What servers of pages have: an address, safe headers, secrets in links, and small images."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib.util
import io
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from PIL import Image

from tripletkit.data.decoding import read_image
from tripletkit.errors import JudgementsError, MissingExtraError

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug import Response

# An answer is some two hundred bytes; nothing that is sent to this server is longer than that of
# a large grid.
MAX_BODY_BYTES = 16_384

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

# Answers wait for the disk and images for their scaling, so more threads than processors.
_N_THREADS = 12
_MAX_CONNECTIONS = 2000
_IDLE_S = 20
_COOKIE_AGE_S = 90 * 24 * 3600

# Longest side in pixels: of two beside each other on a phone, on a desk, and alone on a large
# screen of many pixels.
SIZES_PX = {"small": 360, "medium": 720, "large": 1280}
# Of the largest, some 250 MB.
_N_KEPT = 1500
_QUALITY = 85
# Images of so few pixels are drawings or icons, which JPEG blurs.
_SMALL_PX = 128


def check_extra() -> None:
    """Refuse early what needs the packages that pages are served with."""
    for module in ("flask", "waitress", "segno"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f"serving pages needs the package {module}: pip install 'tripletkit[collect]'"
            )


@contextmanager
def bound_port(host: str, port: int) -> Iterator[socket.socket]:
    """Bind an address, before anything is made that would stay behind where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise JudgementsError(
                f"{host}:{port}: cannot be bound: {error.strerror or error}. "
                "Choose another `port` or `host`."
            ) from error
        yield listener


@contextmanager
def bound_server(
    app: Flask, listener: socket.socket, *, max_body_bytes: int = 4 * MAX_BODY_BYTES
) -> Iterator[Any]:
    """Give a waitress server; call its `run()` to serve."""
    from waitress.server import create_server

    # It remarks on every request that waits a moment for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    _allow_open_files(_MAX_CONNECTIONS + 200)
    server = create_server(
        app,
        sockets=[listener],
        threads=_N_THREADS,
        # A hundred judges whose browsers open six connections each; one that is idle is closed
        # after seconds, so that nobody can hold them all.
        connection_limit=_MAX_CONNECTIONS,
        channel_timeout=_IDLE_S,
        cleanup_interval=5,
        backlog=1024,
        asyncore_use_poll=True,
        max_request_body_size=max_body_bytes,
        max_request_header_size=16_384,
        ident=None,
    )
    try:
        yield server
    finally:
        server.close()


def _allow_open_files(n: int) -> None:
    """Let this process open so many files, each connection being one, as far as it may."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < n:
        most = n if hard == resource.RLIM_INFINITY else min(n, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def is_local(host: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def shown_hosts(host: str) -> list[str]:
    """Return the addresses that links name: those that others can reach, where all are bound."""
    if host not in ("0.0.0.0", "::"):
        return [f"[{host}]" if ":" in host else host]
    name = socket.gethostname()
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Nothing is sent: this only asks which address leads out of this machine.
        probe.connect(("192.0.2.1", 9))
        found.add(probe.getsockname()[0])
    return [name, *sorted(each for each in found if not is_local(each))]


def publish(app: Callable, url: str) -> Callable:
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


def let_in(location: str, cookie: str, secret: str) -> Response:
    """Take a secret out of the address and into a cookie."""
    from flask import redirect, request

    response = redirect(location, 303)
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


def add_headers(response: Response, policy: str = "") -> Response:
    """Add what keeps a page to itself; `policy` is a content security policy of its own."""
    response.headers.extend(_HEADERS)
    if policy:
        response.headers["Content-Security-Policy"] = policy
    # Images and files of the pages say themselves how long they may be kept.
    if not response.cache_control:
        response.cache_control.no_store = True
    return response


def is_same(given: str, expected: str) -> bool:
    """Return whether two secrets are the same, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def form_token(key: bytes, token: str) -> str:
    """Return what a page must send back to show that it was this server's page for this judge."""
    return hmac.new(key, token.encode(), hashlib.sha256).hexdigest()


class ScaledImages:
    """Images by number as files for a browser, the last ones used kept in memory."""

    def __init__(self, paths: dict[int, Path], n_kept: int = _N_KEPT) -> None:
        self._paths = paths
        self._scale = lru_cache(n_kept)(lambda number, px: scale_image(paths[number], px))

    def __contains__(self, number: int) -> bool:
        return number in self._paths

    def get(self, number: int, size: str) -> bytes:
        """Return an image as a file, by its number and a key of `SIZES_PX`; see `scale_image`."""
        return self._scale(number, SIZES_PX[size])


def scale_image(path: Path, longest_px: int, quality: int = _QUALITY) -> bytes:
    """Return an image as a JPEG file, or PNG if it is tiny: upright, and without what its file
    says of where and when it was taken; small images stay as they are."""
    image = read_image(path, at_least_px=longest_px // 2)
    # A new image: that of a file would take its EXIF block along.
    image = Image.frombytes("RGB", image.size, image.tobytes())
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    if max(image.size) <= _SMALL_PX:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def media_type(data: bytes) -> str:
    """Return what kind of file `scale_image` made."""
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
