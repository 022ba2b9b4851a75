"""Databases of judgements for tests, answered by simulated judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tripletkit.collecting.asking import Asker, AskingSettings
from tripletkit.collecting.database import GivenAnswer, JudgementDatabase, Screen

# Says left, right or neither of a screen whose images have these names.
Answering = Callable[[str, tuple[str, ...]], str]


def names_of(database: JudgementDatabase) -> dict[int, str]:
    return dict(database.connection.execute("SELECT id, name FROM images").fetchall())


def start(
    path: Path, names: list[str], gold=(), practice=None, **settings
) -> tuple[JudgementDatabase, Asker]:
    """Make a database and what asks about these images."""
    database = JudgementDatabase(path, key=bytes(32))
    numbers = database.add_images(names)
    rows = [tuple(numbers[name] for name in row) for row in gold]
    practice = {tuple(numbers[name] for name in row): why for row, why in (practice or {}).items()}
    asking = AskingSettings(**settings)
    return database, Asker(database, numbers.values(), asking, rows, practice)


def answer_all(
    database: JudgementDatabase,
    asker: Asker,
    judge: str,
    answering: Answering,
    n: int | None = None,
    response_ms: float = 1500.0,
) -> list[Screen]:
    """Let a judge answer screen after screen, to the end or so many."""
    names = names_of(database)
    added = database.add_judge(judge)
    seen: list[Screen] = []
    while (n is None or len(seen) < n) and (screens := asker.screens(added.id)):
        screen = screens[0]
        side = answering(names[screen.anchor], tuple(names[image] for image in screen.shown))
        answer = GivenAnswer(
            f"{judge}-{screen.id:08}", screen.id, side, (), response_ms, "keyboard"
        )
        database.add_answer(added.id, answer)
        seen.append(screen)
    return seen


def by_label(labels: dict[str, int], error: float = 0.0, seed: int = 0) -> Answering:
    """Return a judge who goes by labels, cannot tell where they do not, and errs so often."""
    rng = np.random.default_rng(seed)

    def answering(anchor: str, shown: tuple[str, ...]) -> str:
        alike = [labels[anchor] == labels[name] for name in shown]
        if alike[0] == alike[1]:
            return "neither"
        is_left = alike[0] != (rng.random() < error)
        return "left" if is_left else "right"

    return answering
