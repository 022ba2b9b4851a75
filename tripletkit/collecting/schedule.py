"""What each of a judge's screens is for: a chosen question, one of chance, a repeat, a gold one.

Shares are exact in every block of twenty and the order within a block is by chance, so that no
judge can tell what a question is for, and no run of luck takes the random share away.
"""

from __future__ import annotations

import numpy as np

from tripletkit import defaults

CHOSEN, BY_CHANCE, REPEAT_OWN, REPEAT_OTHER, GOLD = (
    "chosen",
    "by-chance",
    "repeat-own",
    "repeat-other",
    "gold",
)
BLOCK = 20
# A judge should not remember an answer that is asked for again.
MIN_BETWEEN_REPEATS = 10


def slot_of(seed: int, judge: int, number: int, *, has_gold: bool = False) -> str:
    """Return what a judge's screen is for.

    Args:
        seed: of the collection.
        judge: number of the judge.
        number: of the screen among those of the judge, from 0.
        has_gold: one screen of a block is a gold question.
    Returns:
        One of the five; what it asks for may not be there, and then chance decides.
    """
    block, place = divmod(number, BLOCK)
    slots = block_slots(has_gold=has_gold)
    # Own and others' repeats take turns where their number is odd.
    if block % 2:
        slots = [{REPEAT_OWN: REPEAT_OTHER, REPEAT_OTHER: REPEAT_OWN}.get(s, s) for s in slots]
    order = np.random.default_rng([seed, judge, block]).permutation(BLOCK)
    return slots[order[place]]


def block_slots(*, has_gold: bool = False) -> list[str]:
    """Return what the screens of a block are for, in no order.

    Example:
        >>> from collections import Counter
        >>> sorted(Counter(block_slots()).items())
        [('by-chance', 3), ('chosen', 14), ('repeat-other', 1), ('repeat-own', 2)]
    """
    n_random = round(defaults.RANDOM_SHARE * BLOCK)
    n_repeats = round(defaults.REPEAT_SHARE * BLOCK)
    n_other = n_repeats // 2
    slots = [BY_CHANCE] * n_random + [REPEAT_OTHER] * n_other
    slots += [REPEAT_OWN] * (n_repeats - n_other) + [GOLD] * has_gold
    return slots + [CHOSEN] * (BLOCK - len(slots))


def is_first_left(seed: int, judge: int, number: int) -> bool:
    """Return whether the first image stands on the left, in exactly half of every four screens."""
    block, place = divmod(number, 4)
    order = np.random.default_rng([seed, judge, block, 1]).permutation(4)
    return bool(order[place] < 2)
