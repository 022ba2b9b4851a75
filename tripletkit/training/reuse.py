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

from tripletkit.model.recipes import get_recipe
from tripletkit.model.settings import HeadSettings

T = TypeVar("T")

# Forms that are kept; a training has one or two, and each holds a head and its optimizer.
_MAX_FORMS = 8
# The length of a training, what its batches are, and what is made of the heads afterwards.
_OUTSIDE_STEPS = (
    "seed",
    "epochs",
    "patience",
    "classes_per_batch",
    "images_per_class",
    "inject_positives",
    "refresh",
    "flip",
    "shift",
    "members",
    "mlp_members",
    "strength",
    "frozen_share",
)
_USUAL = HeadSettings()
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
    """Return settings with the usual values of all that decides no compiled step.

    A step is compiled from these, so that it cannot depend on anything else.
    """
    usual = {name: getattr(_USUAL, name) for name in _OUTSIDE_STEPS}
    if get_recipe(settings.recipe).compresses:
        usual["dim"] = None
    return replace(settings, **usual)


def _give_back(form: Hashable, compiled: object) -> None:
    _idle.setdefault(form, []).append(compiled)
    _idle.move_to_end(form)
    while len(_idle) > _MAX_FORMS:
        _idle.popitem(last=False)
