"""Databases of judgements for tests, answered by simulated judges."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

import tripletkit as tk
from tripletkit.collecting.asking import Asker, AskingSettings
from tripletkit.collecting.asking import Drawn as Drawn
from tripletkit.collecting.database import JudgementDatabase, Screen
from tripletkit.data.judgement_files import read_answers_given as read_answers_given

# Says left, right or neither of a screen whose images have these names.
Answering = Callable[[str, tuple[str, ...]], str]


def names_of(database: JudgementDatabase) -> dict[int, str]:
    return dict(database.connection.execute("SELECT id, name FROM images").fetchall())


def rows_of(path: Path, query: str, *values: object) -> list[tuple]:
    """Return what SQL finds in a database."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, values).fetchall()


def sent(screen, client_id="client-0001", side="left", places=(), response_ms=900.0):
    """Return what a page sends as the answer to a screen."""
    about = {"client_id": client_id, "screen": screen, "side": side, "places": list(places)}
    return about | {"response_ms": response_ms, "method": "keyboard"}


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
        client_id = f"{judge.strip('<>')}-{screen.id:08}"
        database.add_answer(added.id, sent(screen.id, client_id, side, (), response_ms))
        seen.append(screen)
    return seen


def report_of(path: Path, answers: list[dict]):
    """Return what `judges` says of answers, which are written to a database for it."""
    database = JudgementDatabase(path, key=bytes(32))
    with database.writing():
        number_of = database.add_images(sorted({n for each in answers for n in each["triplet"]}))
        for place, each in enumerate(answers):
            images = [number_of[name] for name in each["triplet"]]
            judge = database.add_judge(each["judge"]).id
            chance = {"probability": 0.5} if each["how"] == "random" else {}
            question = database.add_question(images, each["how"], **chance)
            is_turned = (each["choice"] == "first") != (each["side"] == "left")
            shown = [images[0], *(images[:0:-1] if is_turned else images[1:])]
            screen = database.add_screen(judge, "fresh", shown, question=question)
            told = sent(screen, f"answer-{place:06}", each["side"], (), each["response_ms"])
            database.add_answer(judge, told)
    return tk.judges(path)


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
