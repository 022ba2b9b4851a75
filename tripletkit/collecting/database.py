"""A database of judgements that is being collected: what is asked, what pages send, what is kept.

Every method that changes something is one transaction. Connections belong to a thread each;
within a process one of them writes at a time, other processes wait for it.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import sqlite3
import statistics
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tripletkit.data.judgement_files import (
    APPLICATION_ID,
    CANT_TELL,
    FIRST,
    GRID,
    LEFT,
    NEITHER,
    RIGHT,
    SCHEMA_VERSION,
    SECOND,
    check_version,
)
from tripletkit.errors import JudgementsError

QUESTION = "question"
MAX_JUDGES, MAX_NAME = 500, 40
_BUSY_TIMEOUT_S = 20
_METHODS = ("keyboard", "mouse", "touch", "form", "offline", "import")
_FIELDS = ("client_id", "method", "places", "response_ms", "screen", "side")
_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
_DAY_MS = 24 * 3600 * 1000.0


@dataclass(frozen=True)
class Judge:
    """Somebody who answers; the columns are described in tables.sql."""

    id: int
    name: str
    token: str
    state: str = "active"
    is_left_out: bool = False
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Screen:
    """What a judge is shown at once; the columns are described in tables.sql."""

    id: int
    kind: str
    purpose: str
    anchor: int
    shown: tuple[int, ...]
    n_pick: int

    @property
    def images(self) -> tuple[int, ...]:
        """The anchor and the others."""
        return self.anchor, *self.shown

    def to_dict(self, place_of: Mapping[int, int] | None = None) -> dict[str, Any]:
        """Return what a page needs; images by number, or by their place on the page."""
        anchor, *shown = (n if place_of is None else place_of[n] for n in self.images)
        return {
            "id": self.id,
            "kind": self.kind,
            "anchor": anchor,
            "shown": shown,
            "pick": self.n_pick,
            "practice": self.purpose == "practice",
        }


def parse_name(value: str) -> str | None:
    """Return the name that a judge gave, blanks at its ends and doubled ones removed; or None."""
    name = " ".join(unicodedata.normalize("NFC", value).split())
    is_shown = all(unicodedata.category(character)[0] != "C" for character in name)
    return name if 1 <= len(name) <= MAX_NAME and is_shown else None


def _now() -> str:
    """Return the time as text: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class JudgementDatabase:
    """A database that is open for writing; with the same 32 bytes of `key` it is made the same."""

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        if not path.exists() or not path.stat().st_size:
            _make_database(path, key)
        self.path = path
        self._local = threading.local()
        self._write = threading.RLock()
        facts = self._read_facts()
        self.id, self.key = facts["database"], bytes.fromhex(facts["key"])
        self.owner_token, self.open_token = facts["owner"], facts["open"]

    def _read_facts(self) -> dict[str, str]:
        """Refuse a damaged file, as what is added to one may be lost, and one without secrets."""
        try:
            (found,) = self.connection.execute("PRAGMA quick_check(1)").fetchone()
            facts = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
            if len(bytes.fromhex(facts["key"])) != 32 or not (facts["owner"] and facts["open"]):
                found = "a secret is missing"
        except (sqlite3.Error, ValueError, TypeError) as error:
            found = str(error)
        if found != "ok":
            raise JudgementsError(
                f"{self.path}: damaged, so nothing is added to it: {found}. Take a copy that is "
                "whole"
            )
        return facts

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        if not hasattr(self._local, "connection"):
            self._local.connection = _connect(self.path)
        return self._local.connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run a block as one transaction, or as a part of the one that it stands in."""
        with self._write:
            connection = self.connection
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _one(self, query: str, *values: Any) -> sqlite3.Row | None:
        return self.connection.execute(query, values).fetchone()

    def _insert(self, table: str, **columns: Any) -> int:
        """Add a row and return its number."""
        with self.writing() as connection:
            cursor = connection.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) "
                f"VALUES ({', '.join(':' + name for name in columns)})",
                columns,
            )
        assert cursor.lastrowid is not None, "after an INSERT there is one"
        return cursor.lastrowid

    def _update(self, table: str, number: int, **columns: Any) -> None:
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        with self.writing() as connection:
            connection.execute(
                f"UPDATE {table} SET {changes} WHERE id = :id", {"id": number} | columns
            )

    def close(self) -> None:
        """Close the connection of this thread; those of others end with their threads."""
        if hasattr(self._local, "connection"):
            self._local.connection.close()
            del self._local.connection

    @property
    def is_ended(self) -> bool:
        """Whether nobody is asked any more."""
        return self._one("SELECT value FROM meta WHERE key = 'ended'") is not None

    def end(self, *, is_ended: bool = True) -> None:
        """End the study, or go on with it."""
        self.keep_fact("ended", _now() if is_ended else None)

    def keep_fact(self, key: str, value: str | None) -> None:
        """Keep something of the study, such as its `settings` as JSON; None takes it away."""
        with self.writing() as connection:
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
            if value is not None:
                connection.execute("INSERT INTO meta VALUES (?, ?)", (key, value))

    # Images and judges

    def add_images(self, names: Sequence[str]) -> dict[str, int]:
        """Number images by chance (`key` is the start), as numbers must tell nothing of names."""
        with self.writing() as connection:
            known = {name for (name,) in connection.execute("SELECT name FROM images")}
            new = [name for name in names if name not in known]
            random.Random(self.key + bytes(len(known))).shuffle(new)
            connection.executemany("INSERT INTO images (name) VALUES (?)", [(n,) for n in new])
            of_name = dict(connection.execute("SELECT name, id FROM images").fetchall())
        return {name: of_name[name] for name in names}

    def add_judge(self, name: str, *, is_new: bool = False) -> Judge:
        """Add a judge, or return the one of that name, unless nobody may have it yet."""
        with self.writing():
            judges = self.judges()
            found = next((judge for judge in judges if judge.name == name), None)
            if found is not None and not is_new:
                return found
            if is_new and name.casefold() in {judge.name.casefold() for judge in judges}:
                raise JudgementsError(f'the name "{name}" is taken')
            if is_new and len(judges) >= MAX_JUDGES:
                raise JudgementsError(f"there are {MAX_JUDGES} judges already")
            token = secrets.token_urlsafe(24)
            return Judge(
                self._insert("judges", name=name, token=token, made_at=_now()), name, token
            )

    def judges(self, number: int | None = None) -> list[Judge]:
        """Return all judges in the order in which they came, or the one of this number."""
        rows = map(dict, self.connection.execute(_JUDGES, {"number": number}))
        return [Judge(**row | {"about": json.loads(row["about"])}) for row in rows]

    def agree(self, judge: Judge, text: str, at: str | None = None) -> None:
        """Keep that a judge has agreed to a text, and when."""
        consent = {"text": text, "at": at or _now()}
        self.change_judge(judge.id, about=judge.about | {"consent": consent})

    def change_judge(self, judge: int, **columns: Any) -> None:
        """Set `state`, `is_left_out` or `about` of a judge."""
        if "about" in columns:
            columns["about"] = json.dumps(columns["about"])
        self._update("judges", judge, **columns)

    # Questions, screens and answers

    def add_question(self, images: Sequence[int], how: str, **columns: Any) -> int:
        """Add a question about anchor, first and second, and return its number."""
        anchor, first, second = map(int, images)
        columns |= {"how": how, "made_at": _now()}
        return self._insert("questions", anchor=anchor, first=first, second=second, **columns)

    def add_screen(
        self, judge: int, purpose: str, images: Sequence[int], *, n_pick: int = 1, **columns: Any
    ) -> int:
        """Add a screen, which is a grid without a `question`; images stand from left to right."""
        anchor, *shown = map(int, images)
        kind = QUESTION if "question" in columns else GRID
        columns |= {"kind": kind, "anchor": anchor, "shown": json.dumps(shown), "made_at": _now()}
        return self._insert("screens", judge=judge, purpose=purpose, n_pick=n_pick, **columns)

    def open_screens(self, judge: int) -> list[Screen]:
        """Return the screens that a judge has not answered, in the order of showing."""
        rows = map(dict, self.connection.execute(_OPEN_SCREENS, (judge,)))
        return [Screen(**row | {"shown": tuple(json.loads(row["shown"]))}) for row in rows]

    def add_answer(
        self, judge: int, fields: object, answered_at: str | None = None
    ) -> Literal["new", "known", "taken"]:
        """Keep what a page sent on disk: `new`, `known`, or `taken` if its screen has another."""
        answer = _check_answer(fields)
        sent = {name: answer[name] for name in ("client_id", "screen", "side", "method")}
        with self.writing():
            same = self._one(_SAME_ANSWER, answer["client_id"])
            if same is not None:
                if tuple(same) != (judge, answer["screen"]):
                    raise JudgementsError("this answer was sent for another screen before")
                return "known"
            screen = self._one(_SCREEN, answer["screen"], judge)
            if screen is None:
                raise JudgementsError("there is no such screen for this judge")
            if screen["is_answered"]:
                return "taken"
            choice, picked = _choice(screen, answer["side"], answer["places"])
            self._insert(
                "answers",
                **sent,
                judge=judge,
                choice=choice,
                picked=picked,
                response_ms=float(answer["response_ms"]),
                answered_at=answered_at or _now(),
            )
        return "new"

    def undo(self, judge: int, undo_id: object) -> int | None:
        """Take a judge's last answer back, but keep it; return its screen, also for a known
        `undo_id`."""
        _check_id(undo_id, "undo_id")
        with self.writing():
            found = self._one(_UNDONE, undo_id, judge)
            if found is None:
                found = self._one(_UNDO, _now(), undo_id, judge)
        return None if found is None else found["screen"]

    def practised(self, judge: int, screen: int | None) -> sqlite3.Row | None:
        """Return what was said to a practice question, the last one where no screen is named."""
        return self._one(_PRACTISED, judge, screen, screen)

    def n_answers(self, judge: int | None = None) -> int:
        """Return how many answers stand but for practice, of a judge or of all."""
        of_judge, values = ("", ()) if judge is None else (" AND answers.judge = ?", (judge,))
        return self.connection.execute(_N_ANSWERS + of_judge, values).fetchone()[0]

    def usual_response_ms(self, judge: int) -> float | None:
        """Return the median of a judge's last 30 answers, if there is one."""
        rows = self.connection.execute(_LAST_TIMES, (judge,)).fetchall()
        return statistics.median(value for (value,) in rows) if rows else None

    # Models

    def add_model(
        self, n_answers: int, about: dict[str, Any], questions: Sequence[dict[str, Any]]
    ) -> int:
        """Add a model with the questions that it chose, and return its number."""
        with self.writing():
            model = self._insert(
                "models", n_answers=n_answers, about=json.dumps(about), made_at=_now()
            )
            for question in questions:
                self.add_question(**question, model=model)
        return model

    def describe_model(self, model: int, about: dict[str, Any]) -> None:
        """Replace what is known of a model."""
        self._update("models", model, about=json.dumps(about))

    def last_model(self) -> sqlite3.Row | None:
        """Return the newest model: id, n_answers, about (JSON), made_at."""
        return self._one("SELECT * FROM models ORDER BY id DESC LIMIT 1")


def _check_answer(fields: object) -> Mapping[str, Any]:
    """Return the answer that a page sent: every field is of its kind and there is no other."""
    if not isinstance(fields, Mapping) or set(fields) != set(_FIELDS):
        raise JudgementsError(f"expected an answer with the fields {', '.join(_FIELDS)}")
    places, took = fields["places"], fields["response_ms"]
    if fields["side"] not in (LEFT, RIGHT, NEITHER, GRID):
        raise JudgementsError("side: expected left, right, neither or grid")
    if fields["method"] not in _METHODS:
        raise JudgementsError(f"method: expected one of {', '.join(_METHODS)}")
    if type(places) is not list or len(places) > 64 or any(type(n) is not int for n in places):
        raise JudgementsError("places: expected a list of whole numbers")
    if type(fields["screen"]) is not int or not 0 < fields["screen"] < 2**53:
        raise JudgementsError("screen: expected a number")
    if type(took) not in (int, float) or not 0 <= took <= _DAY_MS:
        raise JudgementsError("response_ms: expected milliseconds, from 0 to a day")
    _check_id(fields["client_id"], "client_id")
    return fields


def _check_id(value: object, field: str) -> None:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise JudgementsError(f"{field}: expected 8 to 64 letters, digits or hyphens")


def _choice(screen: sqlite3.Row, side: str, places: Sequence[int]) -> tuple[str, str | None]:
    """Return what an answer says of the images, and the picked ones of a grid as JSON."""
    shown = json.loads(screen["shown"])
    if side == NEITHER and not places:
        return CANT_TELL, None
    if screen["kind"] == GRID:
        if side != GRID or not 1 <= len(set(places)) == len(places) <= screen["n_pick"]:
            raise JudgementsError(f"expected 1 to {screen['n_pick']} picked images of a grid")
        if not all(0 <= place < len(shown) for place in places):
            raise JudgementsError(f"expected places from 0 to {len(shown) - 1}")
        return GRID, json.dumps(sorted(shown[place] for place in places))
    if side not in (LEFT, RIGHT) or places:
        raise JudgementsError("expected left, right or neither")
    return FIRST if shown[side == RIGHT] == screen["first"] else SECOND, None


def _make_database(path: Path, key: bytes | None) -> None:
    """Make an empty database, readable by its owner alone because it holds the judges' links."""
    facts = {
        "database": secrets.token_hex(8),
        "owner": secrets.token_urlsafe(24),
        "open": secrets.token_urlsafe(24),
        "key": (key or secrets.token_bytes(32)).hex(),
    }
    try:
        # There may be an empty one, which a process left that was killed right here.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; {_TABLES} "
                f"PRAGMA user_version = {SCHEMA_VERSION};"
            )
            connection.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
            connection.commit()
            connection.execute("PRAGMA journal_mode = WAL")
    except (OSError, sqlite3.Error) as error:
        raise JudgementsError(f"{path}: cannot be made: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open a database to write to it; what is committed is on the disk."""
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        check_version(connection, path)
        made = connection.execute(_MADE_TABLES).fetchall()
        if any(_without_space(row["sql"]) not in _without_space(_TABLES) for row in made):
            raise JudgementsError(
                f"{path}: an older version of tripletkit made this database, and it can be read "
                "but not gone on with. Import it into a new database"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error as error:
        raise JudgementsError(f"{path}: cannot be opened to write to it: {error}") from error
    return connection


def _without_space(sql: str) -> str:
    """Return SQL without its comments and without what stands between words."""
    return re.sub(r"--.*|\s+", "", sql)


@contextmanager
def only_server(path: Path) -> Iterator[None]:
    """Refuse to be the second server; the system takes SQLite's lock from a process that dies."""
    lock = path.with_name(f"{path.name}.lock")
    with ExitStack() as stack:
        try:
            connection = sqlite3.connect(lock, timeout=0, isolation_level=None)
            stack.callback(connection.close)
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise JudgementsError(f"{lock}: cannot be locked: {error}") from error
            raise JudgementsError(
                f"{path}: another server is collecting into it. Stop that one first, or give "
                "this one another `database`."
            ) from error
        yield


_TABLES = Path(__file__).with_name("tables.sql").read_text(encoding="utf-8")
# But for those of SQLite itself, such as what it notes of indexes.
_MADE_TABLES = """
SELECT sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'
"""
_JUDGES = """
SELECT id, name, token, state, is_left_out <> 0 AS is_left_out, about FROM judges
WHERE :number IS NULL OR id = :number ORDER BY id
"""
_OPEN_SCREENS = """
SELECT id, kind, purpose, anchor, shown, n_pick FROM screens
WHERE judge = ? AND NOT EXISTS (
    SELECT 1 FROM answers WHERE answers.screen = screens.id AND undone_at IS NULL)
ORDER BY id
"""
_SAME_ANSWER = "SELECT judge, screen FROM answers WHERE client_id = ?"
_UNDONE = "SELECT screen FROM answers WHERE undo_id = ? AND judge = ?"
_UNDO = """
UPDATE answers SET undone_at = ?, undo_id = ?
WHERE id = (SELECT max(id) FROM answers WHERE judge = ? AND undone_at IS NULL) RETURNING screen
"""
_SCREEN = """
SELECT kind, shown, n_pick, first, EXISTS (
    SELECT 1 FROM answers WHERE answers.screen = screens.id AND undone_at IS NULL) AS is_answered
FROM screens LEFT JOIN questions ON questions.id = question WHERE screens.id = ? AND judge = ?
"""
_PRACTISED = """
SELECT question, choice, json_extract(shown, '$[0]') = first AS is_first_left
FROM answers JOIN screens ON screens.id = answers.screen JOIN questions ON questions.id = question
WHERE answers.judge = ? AND undone_at IS NULL AND purpose = 'practice'
    AND (? IS NULL OR screens.id = ?)
ORDER BY answers.id DESC LIMIT 1
"""
_N_ANSWERS = """
SELECT count(*) FROM answers JOIN screens ON screens.id = answers.screen
WHERE undone_at IS NULL AND purpose != 'practice'
"""
_LAST_TIMES = """
SELECT response_ms FROM answers WHERE judge = ? AND undone_at IS NULL ORDER BY id DESC LIMIT 30
"""
