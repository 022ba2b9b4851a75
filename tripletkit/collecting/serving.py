"""What every server of pages has: an address, safe headers, and secrets in links and pages."""

from __future__ import annotations

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


@contextmanager
def bound_server(
    app: Flask, host: str, port: int, *, max_body_bytes: int = 4 * MAX_BODY_BYTES
) -> Iterator[Any]:
    """Bind an address and give a waitress server; call its `run()` to serve.

    Args:
        app: see `make_app`.
        host: address to bind.
        port: 0 for any that is free.
        max_body_bytes: what a request may send at most.
    Raises:
        JudgementsError: if the address cannot be bound.
    """
    from waitress.server import create_server

    # It remarks on every request that waits a moment for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise JudgementsError(
                f"{host}:{port}: cannot be bound: {error.strerror or error}. "
                "Choose another `port` or `host`."
            ) from error
        server = create_server(
            app,
            sockets=[listener],
            threads=N_THREADS,
            max_request_body_size=max_body_bytes,
            max_request_header_size=16_384,
            channel_timeout=60,
            ident=None,
        )
        try:
            yield server
        finally:
            server.close()
    finally:
        listener.close()


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


def shown_host(host: str) -> str:
    """Return the address that links name: one that others can reach, where all are bound."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def is_same(given: str, expected: str) -> bool:
    """Return whether two secrets are the same, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def form_token(key: bytes, token: str) -> str:
    """Return what a page must send back to show that it was this server's page for this judge.

    Args:
        key: secret of the database.
        token: of the judge or the owner.
    """
    return hmac.new(key, token.encode(), hashlib.sha256).hexdigest()
