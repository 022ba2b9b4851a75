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
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
BUSY_TIMEOUT_S = 20
DATABASE_FORM = OutputForm("a database of judgements", is_judgements)


@dataclass(frozen=True)
class Judge:
    """Somebody who answers.

    Attributes:
        token: the secret part of the link.
        state: `active`; `paused`, who cannot answer for now; or `revoked`, whose link leads
            nowhere.
        is_left_out: no command counts the answers.
        about: consent, parameters of the link.
    """

    id: int
    name: str
    token: str
    state: str = "active"
    is_left_out: bool = False
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Screen:
    """What a judge is shown at once.

    Attributes:
        kind: `question` or `grid`.
        anchor: number of the image in the middle.
        shown: numbers of the others, from left to right.
        n_pick: how many are to be picked of a grid; 1 of a question.
    """

    id: int
    kind: str
    anchor: int
    shown: tuple[int, ...]
    n_pick: int

    def to_dict(self, place_of: Mapping[int, int] | None = None) -> dict[str, Any]:
        """Return what a page needs; images by number, or by their place on the page."""
        anchor, *shown = (
            number if place_of is None else place_of[number]
            for number in (self.anchor, *self.shown)
        )
        return {
            "id": self.id,
            "kind": self.kind,
            "anchor": anchor,
            "shown": shown,
            "pick": self.n_pick,
        }


@dataclass(frozen=True)
class GivenAnswer:
    """What a page says that a judge answered.

    Attributes:
        client_id: made by the page; the same answer sent twice is known by it.
        screen: number of the screen.
        side: `left`, `right` or `neither`; `grid`.
        places: of the picked images of a grid, counted from 0.
        response_ms: from the images being there to the answer.
        method: `keyboard`, `mouse`, `touch`, `form` or `offline`.
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
    """A database of judgements, open for writing.

    Args:
        path: made if there is none.
        key: secret of 32 bytes for one that is made, where it is to come out the same again;
            drawn where None.
    Raises:
        JudgementsError: if it is something else, or cannot be opened.
    """

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        if not path.exists() or not path.stat().st_size:
            make_database(path, key)
        self.path = path
        self._local = threading.local()
        self._write = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        meta = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
        self.id = meta["database"]
        self.owner_token = meta["owner"]
        self.open_token = meta["open"]
        self.key = bytes.fromhex(meta["key"])

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        if not hasattr(self._local, "connection"):
            self._local.connection = connect(self.path)
            self._connections.append(self._local.connection)
        return self._local.connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run a block as one transaction."""
        with self._write, transaction(self.connection) as connection:
            yield connection

    @property
    def is_ended(self) -> bool:
        """Whether the owner has ended the study."""
        found = self.connection.execute("SELECT 1 FROM meta WHERE key = 'ended'").fetchone()
        return found is not None

    def end(self, is_ended: bool) -> None:
        """End the study, or go on with it."""
        with self.writing() as connection:
            connection.execute("DELETE FROM meta WHERE key = 'ended'")
            if is_ended:
                connection.execute("INSERT INTO meta VALUES ('ended', ?)", (now(),))

    def close(self) -> None:
        """Close the connection of this thread; those of others end with their threads."""
        if hasattr(self._local, "connection"):
            self._local.connection.close()
            del self._local.connection

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

    def add_judge(self, name: str) -> Judge:
        """Add a judge, or return the one of that name."""
        with self.writing() as connection:
            return self._add_judge(connection, name)

    def add_new_judge(self, name: str) -> Judge:
        """Add a judge of a name that nobody has yet."""
        with self.writing() as connection:
            names = [name.casefold() for (name,) in connection.execute("SELECT name FROM judges")]
            if name.casefold() in names:
                raise JudgementsError(f'the name "{name}" is taken')
            if len(names) >= MAX_JUDGES:
                raise JudgementsError(f"there are {MAX_JUDGES} judges already")
            return self._add_judge(connection, name)

    def judges(self) -> list[Judge]:
        """Return all judges in the order in which they came."""
        return [_read_judge(row) for row in self.connection.execute(f"{_JUDGES} ORDER BY id")]

    def change_judge(self, judge: int, **columns: Any) -> None:
        """Set `state`, `is_left_out`, `token` or `about` of a judge."""
        if "about" in columns:
            columns["about"] = json.dumps(columns["about"])
        with self.writing() as connection:
            connection.execute(
                f"UPDATE judges SET {', '.join(f'{name} = :{name}' for name in columns)} "
                "WHERE id = :judge",
                {**columns, "judge": judge},
            )

    # Screens and answers

    def open_screens(self, judge: int) -> list[Screen]:
        """Return the screens that a judge has not answered, in the order of showing."""
        return [
            Screen(
                row["id"],
                row["kind"],
                row["anchor"],
                tuple(json.loads(row["shown"])),
                row["n_pick"],
            )
            for row in self.connection.execute(_OPEN_SCREENS, (judge,))
        ]

    def add_answer(self, judge: int, answer: GivenAnswer) -> bool:
        """Keep an answer; it is on the disk when this returns."""
        with self.writing() as connection:
            return add_answer(connection, judge, answer)

    def undo(self, judge: int, undo_id: str) -> int | None:
        """Take a judge's last answer back; it stays in the database, with the time of this."""
        with self.writing() as connection:
            found = connection.execute(
                "SELECT screen FROM answers WHERE undo_id = ? AND judge = ?", (undo_id, judge)
            ).fetchone()
            if found is not None:
                return found["screen"]
            last = connection.execute(
                "SELECT id, screen FROM answers WHERE judge = ? AND undone_at IS NULL "
                "ORDER BY id DESC LIMIT 1",
                (judge,),
            ).fetchone()
            if last is None:
                return None
            connection.execute(
                "UPDATE answers SET undone_at = ?, undo_id = ? WHERE id = ?",
                (now(), undo_id, last["id"]),
            )
            return last["screen"]

    def n_answers(self, judge: int | None = None) -> int:
        """Return how many answers stand, of a judge or of all."""
        of_judge, parameters = ("", ()) if judge is None else (" AND judge = ?", (judge,))
        (n,) = self.connection.execute(
            f"SELECT count(*) FROM answers WHERE undone_at IS NULL{of_judge}", parameters
        ).fetchone()
        return n

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
            model = int(cursor.lastrowid)
            for question in questions:
                add_question(connection, model=model, **question)
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

    def _add_judge(self, connection: sqlite3.Connection, name: str) -> Judge:
        token = secrets.token_urlsafe(24)
        connection.execute(
            "INSERT OR IGNORE INTO judges (name, token, made_at) VALUES (?, ?, ?)",
            (name, token, now()),
        )
        return _read_judge(connection.execute(f"{_JUDGES} WHERE name = ?", (name,)).fetchone())


def _read_judge(row: sqlite3.Row) -> Judge:
    columns = (row["id"], row["name"], row["token"], row["state"])
    return Judge(*columns, bool(row["is_left_out"]), json.loads(row["about"]))


def add_question(connection: sqlite3.Connection, **columns: Any) -> int:
    """Add a question within a transaction and return its number."""
    columns = {**columns, "made_at": now()}
    cursor = connection.execute(
        f"INSERT INTO questions ({', '.join(columns)}) "
        f"VALUES ({', '.join(':' + name for name in columns)})",
        columns,
    )
    return int(cursor.lastrowid)


def add_screen(
    connection: sqlite3.Connection,
    judge: int,
    purpose: str,
    images: Sequence[int],
    *,
    question: int | None = None,
    repeats: int | None = None,
    grid: tuple[int, str | None] = (1, None),
) -> None:
    """Add a screen within a transaction; one without a question is a grid.

    Args:
        images: the anchor, and the others from left to right.
        grid: how many are to be picked of a grid, and how it was drawn, see the table.
    """
    anchor, *shown = images
    connection.execute(
        "INSERT INTO screens (judge, kind, question, purpose, repeats, anchor, shown, n_pick, "
        "drawn, made_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            judge,
            GRID if question is None else QUESTION,
            question,
            purpose,
            repeats,
            anchor,
            json.dumps([int(image) for image in shown]),
            *grid,
            now(),
        ),
    )


def add_answer(connection: sqlite3.Connection, judge: int, answer: GivenAnswer) -> bool:
    """Keep an answer within a transaction; see `JudgementDatabase.add_answer`."""
    same = connection.execute(
        "SELECT judge, screen FROM answers WHERE client_id = ?", (answer.client_id,)
    ).fetchone()
    if same is not None:
        if (same["judge"], same["screen"]) != (judge, answer.screen):
            raise JudgementsError("this answer was sent for another screen before")
        return False
    screen = connection.execute(
        "SELECT * FROM screens WHERE id = ? AND judge = ?", (answer.screen, judge)
    ).fetchone()
    if screen is None:
        raise JudgementsError("there is no such screen for this judge")
    standing = connection.execute(
        "SELECT 1 FROM answers WHERE screen = ? AND undone_at IS NULL", (answer.screen,)
    ).fetchone()
    if standing is not None:
        raise JudgementsError("this screen was answered already")
    choice, picked = _choice(connection, screen, answer)
    connection.execute(
        "INSERT INTO answers (client_id, screen, judge, choice, side, picked, response_ms, "
        "method, answered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
    return True


def now() -> str:
    """Return the time as text: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _choice(
    connection: sqlite3.Connection, screen: sqlite3.Row, answer: GivenAnswer
) -> tuple[str, str | None]:
    """Return what an answer says of the images, and the picked ones of a grid as JSON."""
    shown = json.loads(screen["shown"])
    if screen["kind"] == GRID:
        if answer.side == NEITHER and not answer.places:
            return CANT_TELL, None
        if answer.side != GRID or len(set(answer.places)) != screen["n_pick"]:
            raise JudgementsError(f"expected {screen['n_pick']} picked images of a grid")
        if not all(0 <= place < len(shown) for place in answer.places):
            raise JudgementsError(f"expected places from 0 to {len(shown) - 1}")
        return GRID, json.dumps(sorted(shown[place] for place in answer.places))
    if answer.side == NEITHER:
        return CANT_TELL, None
    if answer.side not in (LEFT, RIGHT) or answer.places:
        raise JudgementsError("expected left, right or neither")
    chosen = shown[0] if answer.side == LEFT else shown[1]
    first = connection.execute(
        "SELECT first FROM questions WHERE id = ?", (screen["question"],)
    ).fetchone()["first"]
    return FIRST if chosen == first else SECOND, None


def make_database(path: Path, key: bytes | None = None) -> None:
    """Make an empty database, readable by its owner alone because it holds the judges' links."""
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # An empty one is what is left of a process that was killed right here.
        if path.stat().st_size:
            raise JudgementsError(f"{path}: expected no file, there is one")
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; {_TABLES} "
                f"PRAGMA user_version = {SCHEMA_VERSION};"
            )
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [
                    ("database", secrets.token_hex(8)),
                    ("owner", secrets.token_urlsafe(24)),
                    ("open", secrets.token_urlsafe(24)),
                    ("key", (key or secrets.token_bytes(32)).hex()),
                ],
            )
            connection.commit()
            connection.execute("PRAGMA journal_mode = WAL")
    except (OSError, sqlite3.Error) as error:
        raise JudgementsError(f"{path}: cannot be made: {error}") from error


def connect(path: Path) -> sqlite3.Connection:
    """Open a database to write to it; what is committed is on the disk."""
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        check_version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error as error:
        raise JudgementsError(f"{path}: cannot be opened: {error}") from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run a block as one transaction: all of it is on the disk when it ends, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def only_server(path: Path) -> Iterator[None]:
    """Refuse to be the second server of a database.

    The lock is one of SQLite's on a file beside the database, which the system takes away from a
    process that dies in whatever way.
    """
    lock = path.with_name(f"{path.name}.lock")
    with closing(sqlite3.connect(lock, timeout=0, isolation_level=None)) as connection:
        try:
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
SELECT id, kind, anchor, shown, n_pick FROM screens
WHERE judge = ? AND NOT EXISTS (
    SELECT 1 FROM answers WHERE answers.screen = screens.id AND undone_at IS NULL)
ORDER BY id
"""
_JUDGES = "SELECT id, name, token, state, is_left_out, about FROM judges"
_TABLES = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Numbers are given in an order of chance, so that they tell nothing of the names.
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE judges (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    token TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'revoked')),
    is_left_out INTEGER NOT NULL DEFAULT 0,   -- no command counts the answers
    about TEXT NOT NULL DEFAULT '{}',         -- JSON: consent, parameters of the link
    made_at TEXT NOT NULL
);

CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    n_answers INTEGER NOT NULL,
    about TEXT NOT NULL,          -- JSON: settings, features, accuracy on the random share
    made_at TEXT NOT NULL
);

CREATE TABLE questions (
    id INTEGER PRIMARY KEY,
    anchor INTEGER NOT NULL REFERENCES images,
    first INTEGER NOT NULL REFERENCES images,
    second INTEGER NOT NULL REFERENCES images,
    how TEXT NOT NULL CHECK (how IN ('random', 'margin', 'disagreement', 'gold')),
    model INTEGER REFERENCES models,
    score REAL,                   -- margin or disagreement that it was chosen by
    expected REAL,                -- the model's chance that a judge chooses the first
    probability REAL,             -- of being drawn by chance, whichever way round
    made_at TEXT NOT NULL,
    CHECK ((how = 'random') = (probability IS NOT NULL))
);

CREATE TABLE screens (
    id INTEGER PRIMARY KEY,
    judge INTEGER NOT NULL REFERENCES judges,
    kind TEXT NOT NULL CHECK (kind IN ('question', 'grid')),
    question INTEGER REFERENCES questions,
    purpose TEXT NOT NULL CHECK (
        purpose IN ('fresh', 'overlap', 'repeat', 'gold', 'practice')),
    repeats INTEGER REFERENCES screens,
    anchor INTEGER NOT NULL REFERENCES images,
    shown TEXT NOT NULL,          -- JSON: images from left to right
    n_pick INTEGER NOT NULL,
    drawn TEXT,                   -- JSON: how the images of a grid were drawn
    made_at TEXT NOT NULL,
    CHECK ((kind = 'question') = (question IS NOT NULL))
);
CREATE INDEX screens_of_judge ON screens (judge, id);
CREATE INDEX screens_of_question ON screens (question);

-- An answer that was undone stays, with the time of it.
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    screen INTEGER NOT NULL REFERENCES screens,
    judge INTEGER NOT NULL REFERENCES judges,
    choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'cant-tell', 'grid')),
    side TEXT NOT NULL CHECK (side IN ('left', 'right', 'neither', 'grid')),
    picked TEXT,                  -- JSON: images of a grid
    response_ms REAL NOT NULL CHECK (response_ms >= 0),
    method TEXT NOT NULL CHECK (
        method IN ('keyboard', 'mouse', 'touch', 'form', 'offline', 'import')),
    answered_at TEXT NOT NULL,
    undone_at TEXT,
    undo_id TEXT UNIQUE
);
CREATE UNIQUE INDEX one_standing_answer ON answers (screen) WHERE undone_at IS NULL;
CREATE INDEX answers_of_judge ON answers (judge, id);
"""
