"""What can be chosen by name: records with their facts, found or refused in one way."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from numbers import Integral, Real
from typing import Any, Generic, Protocol, TypeVar

from tripletkit.errors import MissingExtraError, SettingsError, TripletkitError


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Record = TypeVar("Record", bound=_Named)


class Registry(dict[str, Record], Generic[Record]):
    """Name -> record, in the order in which they were added.

    Args:
        kind: what a record is, for messages.
        error: raised where a name is not known, or taken.
        reserved: names that no record may have.
    """

    def __init__(
        self, kind: str, error: Callable[[str], TripletkitError], reserved: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self._kind = kind
        self._error = error
        self._reserved = reserved

    def add(self, record: Record) -> None:
        """Add a record under its name, which may not be taken."""
        if record.name in self or record.name in self._reserved:
            raise self._error(f'a {self._kind} named "{record.name}" is registered already')
        self[record.name] = record

    def find(self, name: str) -> Record:
        """Return a record by name, or raise what lists all names, and the nearest one."""
        if name not in self:
            raise self._error(describe_unknown(name, self))
        return self[name]


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """Return what to say of a name that is not known: all that are, and the nearest one."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f'expected one of {", ".join(known)}, got "{name}".{hint}'


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse a value of a setting that is none of those known."""
    if value not in (known := list(known)):
        raise SettingsError(name, f"`{name}`: {describe_unknown(str(value), known)}")


def check_numbers(low: int | None = None, **given: Any) -> None:
    """Refuse what is no whole number from `low` on, without `low` no share; None is no choice."""
    kind: Any = Real if low is None else Integral
    for name, value in given.items():
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if value is None or (is_number and (0 < value <= 1 if low is None else value >= low)):
            continue
        what = "a share above 0, at most 1" if low is None else f"a whole number, at least {low}"
        raise SettingsError(name, f"`{name}`: expected {what}, got {value!r}")


def import_extra(missing: str, *modules: str) -> list[Any]:
    """Return modules of an optional package; where it lacks, `missing` says what to do."""
    try:
        return [import_module(module) for module in modules]
    except ImportError as error:
        raise MissingExtraError(missing) from error


# `"module:name"`, or the thing itself where who registers it has it at hand.
Reference = str | Callable[..., Any]


def load_object(reference: Reference) -> Any:
    """Return what `"module:name"` stands for, imported only now."""
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
