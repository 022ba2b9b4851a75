"""What servers of pages have: an address, safe headers, secrets in links, and small images."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import io
import ipaddress
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from PIL import Image

from tripletkit.data.decoding import read_image
from tripletkit.errors import JudgementsError, MissingExtraError

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug import Response

logger = logging.getLogger("tripletkit")

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


def bound_server(
    app: Flask, listener: socket.socket, *, max_body_bytes: int = 4 * MAX_BODY_BYTES
) -> contextlib.closing[Any]:
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
    return contextlib.closing(server)


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


def tell_address(listener: socket.socket) -> str:
    """Return the address that links name, and say who else can see what is served there."""
    host, port = listener.getsockname()[:2]
    names = [f"[{host}]" if ":" in host else host]
    if host in ("0.0.0.0", "::"):
        name, found = socket.gethostname(), set()
        with contextlib.suppress(OSError):
            found = {str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)}
        probing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with probing as probe, contextlib.suppress(OSError):
            # Nothing is sent: this only asks which address leads out of this machine.
            probe.connect(("192.0.2.1", 9))
            found.add(probe.getsockname()[0])
        names = [name, *sorted(each for each in found if not each.startswith("127."))]
    if not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "pages at %s are not encrypted: whoever can listen to the network sees the images, "
            "the answers and the links.",
            host,
        )
    for name in names[1:]:
        logger.info("Instead of %s the links may have %s.", names[0], name)
    return f"http://{names[0]}:{port}"


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


def open_templates(package: str, folder: str) -> jinja2.Environment:
    """Return the templates of pages: all that is put in is escaped, and nothing may be missing."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(data: bytes, kind: str) -> str:
    """Return a file as an address that holds it.

    Example:
        >>> data_uri(b"a", "text/plain")
        'data:text/plain;base64,YQ=='
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def hash_source(text: str) -> str:
    """Return a source for a content security policy: this very text and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def scale_image(path: Path, longest_px: int, quality: int = _QUALITY) -> tuple[bytes, str]:
    """Return an upright JPEG (PNG if tiny), without where and when it was taken, and its type."""
    image = read_image(path, at_least_px=longest_px // 2)
    # A new image: that of a file would take its EXIF block along.
    image = Image.frombytes("RGB", image.size, image.tobytes())
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    if max(image.size) <= _SMALL_PX:
        image.save(file, "PNG", optimize=True)
        return file.getvalue(), "image/png"
    image.save(file, "JPEG", quality=quality)
    return file.getvalue(), "image/jpeg"
