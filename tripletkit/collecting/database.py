"""Writing and reading a database of judgements while it is collected.

Every method that changes something is one transaction. Connections belong to a thread each;
within a process one of them writes at a time, other processes wait for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import sqlite3
import threading
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
from tripletkit.data.judgements import is_judgements
from tripletkit.data.outputs import OutputForm
from tripletkit.errors import JudgementsError

QUESTION = "question"
MAX_JUDGES = 500
DATABASE_FORM = OutputForm("a database of judgements", is_judgements)
_BUSY_TIMEOUT_S = 20


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


@dataclass(frozen=True)
class GivenAnswer:
    """What a page says that a judge answered; the columns are described in tables.sql.

    Attributes:
        places: of the picked images of a grid, counted from 0.
        answered_at: ISO time, if not now.
    """

    client_id: str
    screen: int
    side: str
    places: tuple[int, ...]
    response_ms: float
    method: str
    answered_at: str | None = None


class JudgementDatabase:
    """A database of judgements, open for writing, and made if there is none.

    `key`, 32 bytes, makes one that comes out the same again; it is drawn where None.
    """

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        if not path.exists() or not path.stat().st_size:
            _make_database(path, key)
        self.path = path
        self._local = threading.local()
        self._write = threading.RLock()
        self._connections: list[sqlite3.Connection] = []
        facts = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
        self.id, self.key = facts["database"], bytes.fromhex(facts["key"])
        self.owner_token, self.open_token = facts["owner"], facts["open"]

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        if not hasattr(self._local, "connection"):
            self._local.connection = _connect(self.path)
            self._connections.append(self._local.connection)
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

    def close(self) -> None:
        """Close the connection of this thread; those of others end with their threads."""
        if hasattr(self._local, "connection"):
            self._local.connection.close()
            del self._local.connection

    def fact(self, key: str) -> str | None:
        """Return what is kept under a key: `ended`, `settings`, `study`."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row["value"]

    def keep_fact(self, key: str, value: str | None) -> None:
        """Keep a value under a key, or nothing any more."""
        with self.writing() as connection:
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
            if value is not None:
                connection.execute("INSERT INTO meta VALUES (?, ?)", (key, value))

    # Images and judges

    def add_images(self, names: Sequence[str]) -> dict[str, int]:
        """Give a number to every image that has none, and return those of the given names.

        The order of the numbers is by chance, of which the key is the start, so that a number
        tells nothing of a name.
        """
        with self.writing() as connection:
            known = {name for (name,) in connection.execute("SELECT name FROM images")}
            new = [name for name in names if name not in known]
            random.Random(self.key + bytes(len(known))).shuffle(new)
            connection.executemany("INSERT INTO images (name) VALUES (?)", [(n,) for n in new])
            of_name = dict(connection.execute("SELECT name, id FROM images").fetchall())
        return {name: of_name[name] for name in names}

    def add_judge(self, name: str, *, is_new: bool = False) -> Judge:
        """Add a judge, or return the one of that name, unless nobody may have it yet."""
        with self.writing() as connection:
            judges = self.judges()
            found = next((judge for judge in judges if judge.name == name), None)
            if found is not None and not is_new:
                return found
            if is_new and name.casefold() in {judge.name.casefold() for judge in judges}:
                raise JudgementsError(f'the name "{name}" is taken')
            if is_new and len(judges) >= MAX_JUDGES:
                raise JudgementsError(f"there are {MAX_JUDGES} judges already")
            token = secrets.token_urlsafe(24)
            cursor = connection.execute(
                "INSERT INTO judges (name, token, made_at) VALUES (?, ?, ?)", (name, token, now())
            )
            return Judge(_last_id(cursor), name, token)

    def judges(self) -> list[Judge]:
        """Return all judges in the order in which they came."""
        rows = map(dict, self.connection.execute(f"{_JUDGES} ORDER BY id"))
        return [Judge(**row | {"about": json.loads(row["about"])}) for row in rows]

    def change_judge(self, judge: int, **columns: Any) -> None:
        """Set `state`, `is_left_out` or `about` of a judge."""
        if "about" in columns:
            columns["about"] = json.dumps(columns["about"])
        with self.writing() as connection:
            connection.execute(
                f"UPDATE judges SET {', '.join(f'{name} = :{name}' for name in columns)} "
                "WHERE id = :judge",
                {**columns, "judge": judge},
            )

    # Questions, screens and answers

    def add_question(self, **columns: Any) -> int:
        """Add a question and return its number."""
        columns = {**columns, "made_at": now()}
        with self.writing() as connection:
            cursor = connection.execute(
                f"INSERT INTO questions ({', '.join(columns)}) "
                f"VALUES ({', '.join(':' + name for name in columns)})",
                columns,
            )
        return _last_id(cursor)

    def add_screen(
        self,
        judge: int,
        purpose: str,
        images: Sequence[int],
        *,
        question: int | None = None,
        repeats: int | None = None,
        grid: tuple[int, str | None] = (1, None),
    ) -> int:
        """Add a screen and return its number; one without a question is a grid.

        Args:
            images: the anchor, and the others from left to right.
            grid: how many are to be picked of a grid, and how it was drawn, see the table.
        """
        anchor, *shown = map(int, images)
        kind = GRID if question is None else QUESTION
        with self.writing() as connection:
            cursor = connection.execute(
                "INSERT INTO screens (judge, kind, question, purpose, repeats, anchor, shown, "
                "n_pick, drawn, made_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (judge, kind, question, purpose, repeats, anchor, json.dumps(shown), *grid, now()),
            )
        return _last_id(cursor)

    def open_screens(self, judge: int) -> list[Screen]:
        """Return the screens that a judge has not answered, in the order of showing."""
        rows = map(dict, self.connection.execute(_OPEN_SCREENS, (judge,)))
        return [Screen(**row | {"shown": tuple(json.loads(row["shown"]))}) for row in rows]

    def add_answer(self, judge: int, answer: GivenAnswer) -> Literal["new", "known", "taken"]:
        """Keep an answer, which is then on the disk.

        It is `new`; `known`, if the same was sent before; or `taken`, if its screen has another.
        """
        with self.writing() as connection:
            same = connection.execute(
                "SELECT judge, screen FROM answers WHERE client_id = ?", (answer.client_id,)
            ).fetchone()
            if same is not None:
                if tuple(same) != (judge, answer.screen):
                    raise JudgementsError("this answer was sent for another screen before")
                return "known"
            screen = connection.execute(
                "SELECT screens.*, first FROM screens LEFT JOIN questions ON "
                "questions.id = question WHERE screens.id = ? AND judge = ?",
                (answer.screen, judge),
            ).fetchone()
            if screen is None:
                raise JudgementsError("there is no such screen for this judge")
            if connection.execute(_STANDING, (answer.screen,)).fetchone() is not None:
                return "taken"
            choice, picked = _choice(screen, answer)
            connection.execute(
                "INSERT INTO answers (client_id, screen, judge, choice, side, picked, "
                "response_ms, method, answered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    answer.client_id,
                    answer.screen,
                    judge,
                    choice,
                    answer.side,
                    picked,
                    answer.response_ms,
                    answer.method,
                    answer.answered_at or now(),
                ),
            )
        return "new"

    def undo(self, judge: int, undo_id: str) -> int | None:
        """Take a judge's last answer back; it stays in the database, with the time of this.

        Returns its screen, also where this `undo_id` has come before; None where there is none.
        """
        with self.writing() as connection:
            found = connection.execute(
                "SELECT screen FROM answers WHERE undo_id = ? AND judge = ?", (undo_id, judge)
            ).fetchone()
            if found is None:
                found = connection.execute(
                    "UPDATE answers SET undone_at = ?, undo_id = ? WHERE id = (SELECT max(id) "
                    "FROM answers WHERE judge = ? AND undone_at IS NULL) RETURNING screen",
                    (now(), undo_id, judge),
                ).fetchone()
        return None if found is None else found["screen"]

    def practised(self, judge: int, screen: int | None) -> sqlite3.Row | None:
        """Return what was said to a practice question, the last one where no screen is named.

        Its `question`, the `choice`, and whether its first image `is_first_left`.
        """
        return self.connection.execute(
            "SELECT question, choice, json_extract(shown, '$[0]') = first AS is_first_left "
            "FROM answers JOIN screens ON screens.id = answers.screen "
            "JOIN questions ON questions.id = question "
            "WHERE answers.judge = ? AND undone_at IS NULL AND purpose = 'practice' "
            "AND (? IS NULL OR screens.id = ?) ORDER BY answers.id DESC LIMIT 1",
            (judge, screen, screen),
        ).fetchone()

    def n_answers(self, judge: int | None = None) -> int:
        """Return how many answers stand but for practice, of a judge or of all."""
        of_judge, values = ("", ()) if judge is None else (" AND answers.judge = ?", (judge,))
        return self.connection.execute(_N_ANSWERS + of_judge, values).fetchone()[0]

    def recent_response_ms(self, judge: int, n: int = 30) -> list[float]:
        """Return how long a judge took for the last answers."""
        rows = self.connection.execute(
            "SELECT response_ms FROM answers WHERE judge = ? AND undone_at IS NULL "
            "ORDER BY id DESC LIMIT ?",
            (judge, n),
        )
        return [value for (value,) in rows]

    # Models

    def add_model(
        self, n_answers: int, about: dict[str, Any], questions: Sequence[dict[str, Any]]
    ) -> int:
        """Add a model with the questions that it chose, and return its number."""
        with self.writing() as connection:
            cursor = connection.execute(
                "INSERT INTO models (n_answers, about, made_at) VALUES (?, ?, ?)",
                (n_answers, json.dumps(about), now()),
            )
            model = _last_id(cursor)
            for question in questions:
                self.add_question(model=model, **question)
        return model

    def describe_model(self, model: int, about: dict[str, Any]) -> None:
        """Replace what is known of a model."""
        with self.writing() as connection:
            connection.execute(
                "UPDATE models SET about = ? WHERE id = ?", (json.dumps(about), model)
            )

    def last_model(self) -> sqlite3.Row | None:
        """Return the newest model: id, n_answers, about (JSON), made_at."""
        return self.connection.execute("SELECT * FROM models ORDER BY id DESC LIMIT 1").fetchone()


def _last_id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None, "after an INSERT there is one"
    return cursor.lastrowid


def now() -> str:
    """Return the time as text: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _choice(screen: sqlite3.Row, answer: GivenAnswer) -> tuple[str, str | None]:
    """Return what an answer says of the images, and the picked ones of a grid as JSON."""
    shown = json.loads(screen["shown"])
    if answer.side == NEITHER and not answer.places:
        return CANT_TELL, None
    if screen["kind"] == GRID:
        if answer.side != GRID or len(set(answer.places)) != screen["n_pick"]:
            raise JudgementsError(f"expected {screen['n_pick']} picked images of a grid")
        if not all(0 <= place < len(shown) for place in answer.places):
            raise JudgementsError(f"expected places from 0 to {len(shown) - 1}")
        return GRID, json.dumps(sorted(shown[place] for place in answer.places))
    if answer.side not in (LEFT, RIGHT) or answer.places:
        raise JudgementsError("expected left, right or neither")
    chosen = shown[0] if answer.side == LEFT else shown[1]
    return FIRST if chosen == screen["first"] else SECOND, None


def _make_database(path: Path, key: bytes | None = None) -> None:
    """Make an empty database, readable by its owner alone because it holds the judges' links."""
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # An empty one is what is left of a process that was killed right here.
        if path.stat().st_size:
            raise JudgementsError(f"{path}: expected no file, there is one")
        facts = {
            "database": secrets.token_hex(8),
            "owner": secrets.token_urlsafe(24),
            "open": secrets.token_urlsafe(24),
            "key": (key or secrets.token_bytes(32)).hex(),
        }
        tables = Path(__file__).with_name("tables.sql").read_text(encoding="utf-8")
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; {tables} "
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
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error as error:
        raise JudgementsError(f"{path}: cannot be opened: {error}") from error
    return connection


@contextmanager
def only_server(path: Path) -> Iterator[None]:
    """Refuse to be the second server of a database.

    The lock is one of SQLite's on a file beside the database, which the system takes away from a
    process that dies in whatever way.
    """
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


_OPEN_SCREENS = """
SELECT id, kind, purpose, anchor, shown, n_pick FROM screens
WHERE judge = ? AND NOT EXISTS (
    SELECT 1 FROM answers WHERE answers.screen = screens.id AND undone_at IS NULL)
ORDER BY id
"""
_JUDGES = "SELECT id, name, token, state, is_left_out <> 0 AS is_left_out, about FROM judges"
_STANDING = "SELECT 1 FROM answers WHERE screen = ? AND undone_at IS NULL"
_N_ANSWERS = """
SELECT count(*) FROM answers JOIN screens ON screens.id = answers.screen
WHERE undone_at IS NULL AND purpose != 'practice'
"""
