"""Serving the pages, and putting a collection together."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask

from tripletkit.collecting.app import MAX_BODY_BYTES
from tripletkit.errors import JudgementsError

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


def locate(names: list[str], folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the file of each image, and what is wrong with the others."""
    from tripletkit.data.folder import locate_images

    located = locate_images(names, folder)
    paths = {
        name: path for name, path in zip(names, located.paths, strict=True) if path is not None
    }
    return paths, list(located.problems.values())
