"""Compiled trainings that one training leaves to the next of the same form.

To compile a step takes longer than many trainings of it. Held-out draws, members and seeds
differ in numbers alone, so that they can go through one compiled step, one after the other.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

from tripletkit.model.settings import HeadSettings

T = TypeVar("T")

# Forms that are kept; a training has one or two, and each holds a head and its optimizer.
_MAX_FORMS = 4
_idle: OrderedDict[Hashable, list[Any]] = OrderedDict()


def borrow(owner: object, form: Hashable, make: Callable[[], T]) -> T:
    """Return what was compiled for the same form, and for as long as its owner lives nobody else's.

    Args:
        owner: when it is gone, the next may have it.
        form: all that the compiled thing depends on. What it then holds is of its last owner.
        make: compiles one, where none is idle.
    """
    idle = _idle.get(form)
    compiled = idle.pop() if idle else make()
    weakref.finalize(owner, _give_back, form, compiled).atexit = False
    return compiled


def form_of(settings: HeadSettings) -> HeadSettings:
    """Return settings without what decides no compiled step: seed and length of a training."""
    return replace(settings, seed=0, epochs=1, patience=1)


def _give_back(form: Hashable, compiled: object) -> None:
    _idle.setdefault(form, []).append(compiled)
    _idle.move_to_end(form)
    while len(_idle) > _MAX_FORMS:
        _idle.popitem(last=False)
