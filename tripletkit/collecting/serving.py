"""What every server of pages has: an address, safe headers, and secrets in links and pages."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from tripletkit.errors import JudgementsError

# An answer is some two hundred bytes; nothing that is sent to this server is longer than that of
# a large grid.
MAX_BODY_BYTES = 16_384

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

# Answers wait for the disk and images for their scaling, so more threads than processors.
N_THREADS = 12
MAX_CONNECTIONS = 2000
IDLE_S = 20


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
    _allow_open_files(MAX_CONNECTIONS + 200)
    server = create_server(
        app,
        sockets=[listener],
        threads=N_THREADS,
        # A hundred judges whose browsers open six connections each; one that is idle is closed
        # after seconds, so that nobody can hold them all.
        connection_limit=MAX_CONNECTIONS,
        channel_timeout=IDLE_S,
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
    """Return whether an address can be reached from this machine alone.

    Example:
        >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
        (True, True, False)
    """
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


def is_same(given: str, expected: str) -> bool:
    """Return whether two secrets are the same, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def form_token(key: bytes, token: str) -> str:
    """Return what a page must send back to show that it was this server's page for this judge."""
    return hmac.new(key, token.encode(), hashlib.sha256).hexdigest()
