"""Which screen a judge is shown next, taken from the database and the schedule."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.choosing import grid_layers
from tripletkit.collecting.committee import Drawn
from tripletkit.collecting.database import (
    QUESTION,
    JudgementDatabase,
    Screen,
    add_question,
    add_screen,
)
from tripletkit.data.judgement_files import GRID
from tripletkit.errors import JudgementsError

# Questions of chance are what scores are computed on; repeats tell how a judge agrees with
# himself and with others.
RANDOM_SHARE = 0.15
REPEAT_SHARE = 0.15

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
    """Return what a judge's screen is for."""
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
    n_random = round(RANDOM_SHARE * BLOCK)
    n_repeats = round(REPEAT_SHARE * BLOCK)
    n_other = n_repeats // 2
    slots = [BY_CHANCE] * n_random + [REPEAT_OTHER] * n_other
    slots += [REPEAT_OWN] * (n_repeats - n_other) + [GOLD] * has_gold
    return slots + [CHOSEN] * (BLOCK - len(slots))


def is_first_left(seed: int, judge: int, number: int) -> bool:
    """Return whether the first image stands on the left, in exactly half of every four screens."""
    block, place = divmod(number, 4)
    order = np.random.default_rng([seed, judge, block, 1]).permutation(4)
    return bool(order[place] < 2)


# Screens that a judge has at once: the one that is shown, and three whose images load ahead.
N_AHEAD = 4


@dataclass(frozen=True)
class AskingSettings:
    """How a collection asks.

    Attributes:
        n_questions: screens of each judge.
        overlap: of how many judges each question is asked.
        screen: `question` or `grid`.
        grid_of, grid_pick: images of a grid, and how many of them are picked.
        seed: start of every choice by chance.
    """

    n_questions: int = defaults.QUESTIONS_PER_JUDGE
    overlap: int = 1
    screen: str = QUESTION
    grid_of: int = defaults.GRID_OF
    grid_pick: int = defaults.GRID_PICK
    seed: int = defaults.SEED


class Asker:
    """Gives judges their screens.

    Args:
        database: where they are kept.
        images: numbers of the images that can be shown.
        settings: see `AskingSettings`.
        gold: `(anchor, positive, negative)` numbers of images with a known answer.
    Raises:
        JudgementsError: if there are too few images.
    """

    def __init__(
        self,
        database: JudgementDatabase,
        images: Collection[int],
        settings: AskingSettings,
        gold: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        self._n_needed = 3 if settings.screen == QUESTION else settings.grid_of + 1
        if len(images) < self._n_needed:
            raise JudgementsError(
                f"expected at least {self._n_needed} images to ask about, got {len(images)}"
            )
        self.database = database
        self.settings = settings
        self._lock = threading.Lock()
        self._images = frozenset(images)
        self._gold = self._keep_gold(gold)
        self._drawn: deque[Drawn] = deque()

    @property
    def n_drawn(self) -> int:
        """How many questions or grids by chance are ready."""
        return len(self._drawn)

    def add_drawn(self, drawn: Sequence[Drawn]) -> None:
        """Take questions or grids that were drawn by chance, to be shown in their order."""
        self._drawn.extend(drawn)

    def _next_drawn(self, rng: np.random.Generator) -> Drawn:
        """Return what was drawn by chance; where nothing is ready, draw among all images alike."""
        while self._drawn:
            with contextlib.suppress(IndexError):
                drawn = self._drawn.popleft()
                if self._images.issuperset(drawn.images):
                    return drawn
        images = np.array(sorted(self._images))
        chosen = rng.choice(images, self._n_needed, replace=False).tolist()
        n = len(images)
        return Drawn(chosen, 1 / (n * comb(n - 1, 2)), n_images=n)

    def leave_out(self, image: int) -> None:
        """Ask about an image no more, as its file cannot be read, unless too few stay."""
        with self._lock:
            if image in self._images and len(self._images) > self._n_needed:
                self._images -= {image}

    def screens(self, judge: int) -> list[Screen]:
        """Return what a judge is to answer now and next, at most `N_AHEAD` screens."""
        pending = self._pending(judge)
        if len(pending) < N_AHEAD:
            with self._lock:
                # Another request of this judge may have made some in the meantime.
                n_missing = N_AHEAD - len(self._pending(judge))
                self._make_screens(judge, n_missing)
            pending = self._pending(judge)
        return pending[:N_AHEAD]

    def all_screens(self, judge: int) -> list[Screen]:
        """Make all screens of a judge, and return those that are not answered."""
        with self._lock:
            self._make_screens(judge, self.settings.n_questions)
        return self._pending(judge)

    def _pending(self, judge: int) -> list[Screen]:
        # Images may be gone since a screen was made.
        return [
            screen
            for screen in self.database.open_screens(judge)
            if self._images.issuperset((screen.anchor, *screen.shown))
        ]

    def _make_screens(self, judge: int, n_screens: int) -> None:
        with self.database.writing() as connection:
            (n_made,) = connection.execute(
                "SELECT count(*) FROM screens WHERE judge = ?", (judge,)
            ).fetchone()
            # One whose image is gone, or cannot be read, is replaced by another.
            n_open = len(self._pending(judge))
            n_left = self.settings.n_questions - self.database.n_answers(judge) - n_open
            for number in range(n_made, n_made + min(n_screens, n_left)):
                self._make_screen(connection, judge, number)

    def _make_screen(self, connection: sqlite3.Connection, judge: int, number: int) -> None:
        rng = np.random.default_rng([self.settings.seed, judge, number, 2])
        slot = slot_of(self.settings.seed, judge, number, has_gold=bool(self._gold))
        if self.settings.screen == GRID:
            if slot == REPEAT_OWN and self._repeat_grid(connection, judge, rng):
                return
            drawn = self._next_drawn(rng)
            grid = (self.settings.grid_pick, _describe_layers(drawn))
            add_screen(connection, judge, "fresh", drawn.images, grid=grid)
            return
        purpose, question, repeats = self._find_question(connection, judge, slot, rng)
        row = connection.execute(
            "SELECT anchor, first, second FROM questions WHERE id = ?", (question,)
        ).fetchone()
        shown = [row["first"], row["second"]]
        if not is_first_left(self.settings.seed, judge, number):
            shown.reverse()
        add_screen(
            connection, judge, purpose, [row["anchor"], *shown], question=question, repeats=repeats
        )

    def _find_question(
        self, connection: sqlite3.Connection, judge: int, slot: str, rng: np.random.Generator
    ) -> tuple[str, int, int | None]:
        """Return purpose, question, and the screen that is repeated."""
        if slot == GOLD:
            rows = connection.execute(_GOLD_NOT_SEEN, {"judge": judge}).fetchall()
            rows = [row for row in rows if row["id"] in self._gold]
            if rows:
                return "gold", rows[rng.integers(len(rows))]["id"], None
        if slot in (REPEAT_OWN, REPEAT_OTHER):
            own, other = self._own_repeat, self._others_question
            find = (own, other) if slot == REPEAT_OWN else (other, own)
            for each in find:
                if (found := each(connection, judge, rng)) is not None:
                    return found
        if slot == CHOSEN:
            if (question := self._shared(connection, judge, is_chosen=True)) is not None:
                return "overlap", question, None
            row = connection.execute(_NEXT_CHOSEN).fetchone()
            if row is not None:
                return "fresh", row["id"], None
        if (question := self._shared(connection, judge, is_chosen=False)) is not None:
            return "overlap", question, None
        drawn = self._next_drawn(rng)
        anchor, first, second = drawn.images
        question = add_question(
            connection,
            anchor=anchor,
            first=first,
            second=second,
            how="random",
            probability=drawn.probability,
        )
        return "fresh", question, None

    def _shared(self, connection: sqlite3.Connection, judge: int, *, is_chosen: bool) -> int | None:
        """Return a question that not enough judges have seen yet, and this one not at all."""
        if self.settings.overlap < 2:
            return None
        row = connection.execute(
            _NOT_SEEN_ENOUGH,
            {"judge": judge, "overlap": self.settings.overlap, "is_chosen": is_chosen},
        ).fetchone()
        return None if row is None else row["id"]

    def _to_repeat(
        self, connection: sqlite3.Connection, judge: int, kind: str, rng: np.random.Generator
    ) -> sqlite3.Row | None:
        """Return a screen that the judge has answered a while ago, and once."""
        rows = connection.execute(_OWN_ANSWERED, {"judge": judge, "kind": kind}).fetchall()
        rows = [row for row in rows[:-MIN_BETWEEN_REPEATS] if not row["is_repeated"]]
        return rows[rng.integers(len(rows))] if rows else None

    def _own_repeat(
        self, connection: sqlite3.Connection, judge: int, rng: np.random.Generator
    ) -> tuple[str, int, int] | None:
        row = self._to_repeat(connection, judge, QUESTION, rng)
        return None if row is None else ("repeat", row["question"], row["id"])

    def _others_question(
        self, connection: sqlite3.Connection, judge: int, rng: np.random.Generator
    ) -> tuple[str, int, None] | None:
        most = max(self.settings.overlap - 1, 1)
        rows = connection.execute(_OTHERS_ANSWERED, {"judge": judge, "most": most}).fetchall()
        if not rows:
            return None
        fewest = [row for row in rows if row["n_judges"] == rows[0]["n_judges"]]
        return "overlap", fewest[rng.integers(len(fewest))]["question"], None

    def _repeat_grid(
        self, connection: sqlite3.Connection, judge: int, rng: np.random.Generator
    ) -> bool:
        if (row := self._to_repeat(connection, judge, GRID, rng)) is None:
            return False
        shown = rng.permutation(json.loads(row["shown"])).tolist()
        add_screen(
            connection,
            judge,
            "repeat",
            [row["anchor"], *shown],
            repeats=row["id"],
            grid=(row["n_pick"], row["drawn"]),
        )
        return True

    def _keep_gold(self, gold: Sequence[tuple[int, int, int]]) -> frozenset[int]:
        """Make gold questions of those that are not there yet, and return their numbers."""
        found = set()
        with self.database.writing() as connection:
            for anchor, first, second in gold:
                row = connection.execute(
                    "SELECT id FROM questions WHERE how = 'gold' AND anchor = ? AND first = ? "
                    "AND second = ?",
                    (anchor, first, second),
                ).fetchone()
                found.add(
                    row["id"]
                    if row is not None
                    else add_question(
                        connection, anchor=anchor, first=first, second=second, how="gold"
                    )
                )
        return frozenset(found)


def _describe_layers(drawn: Drawn) -> str:
    """Return as JSON what tells how probable each pair of a grid was."""
    n_nearest = 0
    if drawn.near:
        _, n_nearest = grid_layers(drawn.n_images, len(drawn.images) - 1)
    n_others = drawn.n_images - 1 - n_nearest
    return json.dumps({"near": drawn.near, "n_nearest": n_nearest, "n_others": n_others})


_GOLD_NOT_SEEN = """
SELECT id FROM questions WHERE how = 'gold' AND NOT EXISTS (
    SELECT 1 FROM screens WHERE screens.question = questions.id AND judge = :judge)
ORDER BY id
"""
# Of the newest model alone: older ones did not know the answers of today.
_NEXT_CHOSEN = """
SELECT id FROM questions
WHERE model = (SELECT max(id) FROM models)
AND NOT EXISTS (SELECT 1 FROM screens WHERE screens.question = questions.id)
ORDER BY id LIMIT 1
"""
_NOT_SEEN_ENOUGH = """
SELECT questions.id FROM questions JOIN screens ON screens.question = questions.id
WHERE (how IN ('margin', 'disagreement')) = :is_chosen AND how != 'gold'
GROUP BY questions.id
HAVING count(DISTINCT judge) < :overlap AND sum(judge = :judge) = 0
ORDER BY questions.id LIMIT 1
"""
_OWN_ANSWERED = """
SELECT screens.id, screens.question, screens.anchor, screens.shown, screens.n_pick,
    screens.drawn,
    EXISTS (
        SELECT 1 FROM screens AS later WHERE later.repeats = screens.id) AS is_repeated
FROM screens JOIN answers ON answers.screen = screens.id
WHERE screens.judge = :judge AND kind = :kind AND undone_at IS NULL
    AND purpose IN ('fresh', 'overlap')
ORDER BY screens.id
"""
_OTHERS_ANSWERED = """
SELECT screens.question, count(DISTINCT screens.judge) AS n_judges
FROM screens JOIN answers ON answers.screen = screens.id
JOIN questions ON questions.id = screens.question
WHERE undone_at IS NULL AND how != 'gold'
GROUP BY screens.question
HAVING (SELECT count(DISTINCT judge) FROM screens AS shown
        WHERE shown.question = screens.question) <= :most
    AND NOT EXISTS (SELECT 1 FROM screens AS own
                    WHERE own.question = screens.question AND own.judge = :judge)
ORDER BY n_judges
"""
