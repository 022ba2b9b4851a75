"""Which screen a judge is shown next, taken from the database and the schedule."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, NamedTuple

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.database import QUESTION, JudgementDatabase, Screen
from tripletkit.data.judgement_files import GOLD
from tripletkit.errors import JudgementsError

# What a screen is for. Questions of chance are what scores are computed on; repeats, of a judge's
# own or of another's questions, tell how a judge agrees with himself and with others.
_CHOSEN, _BY_CHANCE, _REPEAT, _OVERLAP = "chosen", "random", "repeat", "overlap"
_BLOCK = 20
_RANDOM_SHARE, REPEAT_SHARE = 0.15, 0.15
# A judge should not remember an answer that is asked for again.
_MIN_BETWEEN_REPEATS = 10
# Screens that a judge has at once: the one that is shown, and three whose images load ahead.
_N_AHEAD = 4
# Numbers of three images: anchor, the nearer one, the other.
Known = tuple[int, int, int]


class Drawn(NamedTuple):
    """A question or grid drawn by chance: numbers of the anchor and of the others, left to right.

    A question has its `probability`, whichever way round; a grid its `layers`: those `near` images
    that were drawn among the `n_nearest`, and the number of the others, `n_others`.
    """

    images: list[int]
    probability: float | None = None
    layers: dict[str, Any] | None = None


def _slot_of(judge: int, number: int, *, has_gold: bool = False) -> str:
    """Return what a judge's screen is for; every block has the same shares, in another order."""
    block, place = divmod(number, _BLOCK)
    n_repeats = round(REPEAT_SHARE * _BLOCK)
    # Own and others' repeats take turns where their number is odd.
    n_other = (n_repeats + block % 2) // 2
    slots = [_BY_CHANCE] * round(_RANDOM_SHARE * _BLOCK) + [_OVERLAP] * n_other
    slots += [_REPEAT] * (n_repeats - n_other) + [GOLD] * has_gold
    slots += [_CHOSEN] * (_BLOCK - len(slots))
    return slots[np.random.default_rng([defaults.SEED, judge, block]).permutation(_BLOCK)[place]]


def _is_first_left(judge: int, number: int) -> bool:
    """Return whether the first image stands on the left, in exactly half of every four screens."""
    block, place = divmod(number, 4)
    order = np.random.default_rng([defaults.SEED, judge, block, 1]).permutation(4)
    return bool(order[place] < 2)


@dataclass(frozen=True)
class AskingSettings:
    """How a collection asks; see `tripletkit.collect`. Practice is beside the `n_questions`."""

    n_questions: int = defaults.QUESTIONS_PER_JUDGE
    overlap: int = 1
    screen: str = QUESTION
    grid_of: int = defaults.GRID_OF
    grid_pick: int = defaults.GRID_PICK


class Asker:
    """Gives judges their screens: about images, checks with a known answer, and practice first."""

    def __init__(
        self,
        database: JudgementDatabase,
        images: Collection[int],
        settings: AskingSettings,
        gold: Sequence[Known] = (),
        practice: Mapping[Known, str] | None = None,
    ) -> None:
        self._n_needed = 3 if settings.screen == QUESTION else settings.grid_of + 1
        if len(images) < self._n_needed:
            raise JudgementsError(
                f"expected at least {self._n_needed} images to ask about, got {len(images)}"
            )
        self.database, self.settings = database, settings
        self._images = frozenset(images)
        # What was drawn by chance, to be shown in this order.
        self.drawn: deque[Drawn] = deque()
        with database.writing():
            self._gold = frozenset(map(self._keep_gold, gold))
            practised = (practice or {}).items()
            self.practice = {self._keep_gold(images): why for images, why in practised}

    def leave_out(self, image: int) -> None:
        """Ask about an image no more, as its file cannot be read, unless too few stay."""
        with self.database.writing():
            if image in self._images and len(self._images) > self._n_needed:
                self._images -= {image}

    def screens(self, judge: int) -> list[Screen]:
        """Return what a judge is to answer now and next, at most four screens."""
        pending = self._pending(judge)
        if len(pending) < _N_AHEAD:
            pending = self._make_screens(judge, _N_AHEAD)
        return pending[:_N_AHEAD]

    def all_screens(self, judge: int) -> list[Screen]:
        """Make all screens of a judge, and return those that are not answered."""
        return self._make_screens(judge, self.settings.n_questions + len(self.practice))

    def _select(self, query: str, *values: Any, **named: Any) -> list[sqlite3.Row]:
        return self.database.connection.execute(query, named or values).fetchall()

    def _pending(self, judge: int) -> list[Screen]:
        # Images may be gone since a screen was made.
        screens = self.database.open_screens(judge)
        return [screen for screen in screens if self._images.issuperset(screen.images)]

    def _make_screens(self, judge: int, n_wanted: int) -> list[Screen]:
        """Return a judge's open screens: so many, but for those that there are no more of."""
        with self.database.writing():
            counts = {row["purpose"]: row["n"] for row in self._select(_N_MADE, judge)}
            if self.practice and not counts:
                for question in self.practice:
                    self._add_question_screen(judge, "practice", question, number=question)
            n_made = sum(n for purpose, n in counts.items() if purpose != "practice")
            # One whose image is gone, or cannot be read, is replaced by another.
            pending = self._pending(judge)
            n_open = sum(screen.purpose != "practice" for screen in pending)
            n_left = self.settings.n_questions - self.database.n_answers(judge) - n_open
            for number in range(n_made, n_made + min(n_wanted - len(pending), n_left)):
                self._make_screen(judge, number)
            return self._pending(judge)

    def _make_screen(self, judge: int, number: int) -> None:
        rng = np.random.default_rng([defaults.SEED, judge, number, 2])
        slot = _slot_of(judge, number, has_gold=bool(self._gold))
        if self.settings.screen == QUESTION:
            purpose, question, repeats = self._find_question(judge, slot, rng)
            self._add_question_screen(judge, purpose, question, number=number, repeats=repeats)
            return
        row = self._to_repeat(judge, rng) if slot == _REPEAT else None
        if row is None:
            drawn, n_pick = self._next_drawn(rng), self.settings.grid_pick
            layers = json.dumps(drawn.layers)
            self.database.add_screen(judge, "fresh", drawn.images, n_pick=n_pick, drawn=layers)
        else:
            images = [row["anchor"], *rng.permutation(json.loads(row["shown"]))]
            grid: dict[str, Any] = {column: row[column] for column in ("n_pick", "drawn")}
            self.database.add_screen(judge, _REPEAT, images, repeats=row["id"], **grid)

    def _add_question_screen(
        self, judge: int, purpose: str, question: int, *, number: int, repeats: int | None = None
    ) -> None:
        ((anchor, *shown),) = self._select(_IMAGES_OF, question)
        if not _is_first_left(judge, number):
            shown.reverse()
        images = [anchor, *shown]
        self.database.add_screen(judge, purpose, images, question=question, repeats=repeats)

    def _find_question(
        self, judge: int, slot: str, rng: np.random.Generator
    ) -> tuple[str, int, int | None]:
        """Return purpose, question, and the screen that is repeated."""
        if slot == GOLD:
            rows = self._select(_GOLD_NOT_SEEN, judge=judge)
            if rows := [row for row in rows if row["id"] in self._gold]:
                return GOLD, rows[rng.integers(len(rows))]["id"], None
        if slot in (_REPEAT, _OVERLAP):
            # The other kind of a repeat where there is nothing yet for this one.
            for kind in (slot, _OVERLAP if slot == _REPEAT else _REPEAT):
                if kind == _REPEAT:
                    if (row := self._to_repeat(judge, rng)) is not None:
                        return _REPEAT, row["question"], row["id"]
                elif (question := self._others_question(judge, rng)) is not None:
                    return _OVERLAP, question, None
        # A chosen question where a model has chosen any, else one of chance.
        for is_chosen in (True, False) if slot == _CHOSEN else (False,):
            if self.settings.overlap > 1:
                seen = {"judge": judge, "overlap": self.settings.overlap, "is_chosen": is_chosen}
                for row in self._select(_NOT_SEEN_ENOUGH, **seen):
                    return _OVERLAP, row["id"], None
            if is_chosen:
                for row in self._select(_NEXT_CHOSEN):
                    return "fresh", row["id"], None
        drawn = self._next_drawn(rng)
        added = self.database.add_question(drawn.images, "random", probability=drawn.probability)
        return "fresh", added, None

    def _next_drawn(self, rng: np.random.Generator) -> Drawn:
        """Return what was drawn by chance; where nothing is ready, draw among all images alike."""
        while self.drawn:
            if self._images.issuperset((drawn := self.drawn.popleft()).images):
                return drawn
        images = np.array(sorted(self._images))
        chosen = rng.choice(images, self._n_needed, replace=False).tolist()
        n_others = len(images) - 1
        if self.settings.screen == QUESTION:
            return Drawn(chosen, 1 / (len(images) * comb(n_others, 2)))
        return Drawn(chosen, layers={"near": [], "n_nearest": 0, "n_others": n_others})

    def _to_repeat(self, judge: int, rng: np.random.Generator) -> sqlite3.Row | None:
        """Return a screen that the judge has answered a while ago, and once."""
        rows = self._select(_OWN_ANSWERED, judge=judge, kind=self.settings.screen)
        rows = [row for row in rows[:-_MIN_BETWEEN_REPEATS] if not row["is_repeated"]]
        return rows[rng.integers(len(rows))] if rows else None

    def _others_question(self, judge: int, rng: np.random.Generator) -> int | None:
        """Return a question that others have answered, one of those that the fewest have."""
        most = max(self.settings.overlap - 1, 1)
        rows = self._select(_OTHERS_ANSWERED, judge=judge, most=most)
        fewest = [row for row in rows if row["n_judges"] == rows[0]["n_judges"]]
        return fewest[rng.integers(len(fewest))]["question"] if fewest else None

    def _keep_gold(self, images: Known) -> int:
        """Return the number of a question with a known answer, which is made if it is not there."""
        for row in self._select(_SAME_GOLD, *images):
            return row["id"]
        return self.database.add_question(images, GOLD)


_N_MADE = "SELECT purpose, count(*) AS n FROM screens WHERE judge = ? GROUP BY purpose"
_IMAGES_OF = "SELECT anchor, first, second FROM questions WHERE id = ?"
_SAME_GOLD = """
SELECT id FROM questions WHERE how = 'gold' AND anchor = ? AND first = ? AND second = ?
"""
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
WHERE (how IN ('margin', 'disagreement')) = :is_chosen AND how NOT IN ('gold', 'imported')
GROUP BY questions.id
HAVING count(DISTINCT judge) < :overlap AND sum(judge = :judge) = 0
ORDER BY questions.id LIMIT 1
"""
_OWN_ANSWERED = """
SELECT screens.id, screens.question, screens.anchor, screens.shown, screens.n_pick,
    screens.drawn, screens.id IN (
        SELECT repeats FROM screens WHERE judge = :judge AND repeats IS NOT NULL) AS is_repeated
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
