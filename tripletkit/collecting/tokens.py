"""Secrets in links and pages, compared in a time that does not tell how much of them is right."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from tripletkit.collecting.database import Judge


def is_same(given: str, expected: str) -> bool:
    """Return whether two secrets are the same, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def find_judge(given: str, judges: Iterable[Judge]) -> Judge | None:
    """Return whose token this is; every judge is compared, found or not."""
    found = None
    for judge in judges:
        if is_same(given, judge.token):
            found = judge
    return found


def form_token(key: bytes, token: str) -> str:
    """Return what a page must send back to show that it was this server's page for this judge.

    Args:
        key: secret of the database.
        token: of the judge or the owner.
    """
    return hmac.new(key, token.encode(), hashlib.sha256).hexdigest()
