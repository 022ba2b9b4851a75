"""What pages send, read strictly: every field is of its kind and there is no other."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping

from tripletkit.collecting.database import GivenAnswer
from tripletkit.collecting.study import URL_PARAMETERS
from tripletkit.data.judgement_files import GRID, LEFT, NEITHER, RIGHT
from tripletkit.errors import JudgementsError

_METHODS = ("keyboard", "mouse", "touch", "form", "offline")
MAX_NAME = 40
_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
_PARAMETER = re.compile(r"[0-9A-Za-z_.-]{1,40}")
_FIELDS = {"client_id", "screen", "side", "places", "response_ms", "method"}
_DAY_MS = 24 * 3600 * 1000.0


def parse_answer(fields: object, answered_at: str | None = None) -> GivenAnswer:
    """Return the answer that a page sent."""
    if not isinstance(fields, Mapping) or set(fields) != _FIELDS:
        raise JudgementsError(f"expected an answer with the fields {', '.join(sorted(_FIELDS))}")
    side, places, method = fields["side"], fields["places"], fields["method"]
    screen, took = fields["screen"], fields["response_ms"]
    if side not in (LEFT, RIGHT, NEITHER, GRID):
        raise JudgementsError("side: expected left, right, neither or grid")
    if method not in _METHODS:
        raise JudgementsError(f"method: expected one of {', '.join(_METHODS)}")
    if not isinstance(places, list) or len(places) > 64 or not all(map(_is_whole, places)):
        raise JudgementsError("places: expected a list of whole numbers")
    if not _is_whole(screen) or not 0 < screen < 2**53:
        raise JudgementsError("screen: expected a number")
    is_number = isinstance(took, int | float) and not isinstance(took, bool)
    if not is_number or not math.isfinite(took) or not 0 <= took <= _DAY_MS:
        raise JudgementsError("response_ms: expected milliseconds, from 0 to a day")
    client_id = parse_id(fields["client_id"], "client_id")
    return GivenAnswer(client_id, screen, side, tuple(places), float(took), method, answered_at)


def parse_id(value: object, field: str) -> str:
    """Return an identifier that a page made."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise JudgementsError(f"{field}: expected 8 to 64 letters, digits or hyphens")
    return value


def parse_name(value: str) -> str | None:
    """Return the name that a judge gave, blanks at its ends and doubled ones removed; or None."""
    name = " ".join(unicodedata.normalize("NFC", value).split())
    is_shown = all(unicodedata.category(character)[0] != "C" for character in name)
    return name if 1 <= len(name) <= MAX_NAME and is_shown else None


def parse_parameters(given: Mapping[str, str]) -> dict[str, str]:
    """Return what a link says of a participant, the names and values that are of their kind."""
    found = {name: given.get(name, "") for name in URL_PARAMETERS}
    return {name: value for name, value in found.items() if _PARAMETER.fullmatch(value)}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
