"""The database of judgements: its tables, how it is opened, and who may write to it."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tripletkit.data.judgement_files import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    check_version,
    is_judgements,
)
from tripletkit.data.output_forms import OutputForm
from tripletkit.errors import JudgementsError

BUSY_TIMEOUT_S = 20
DATABASE_FORM = OutputForm("a database of judgements", is_judgements)

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
    probability REAL,             -- of being drawn, or of being among those to choose from
    made_at TEXT NOT NULL
);

CREATE TABLE screens (
    id INTEGER PRIMARY KEY,
    judge INTEGER NOT NULL REFERENCES judges,
    kind TEXT NOT NULL CHECK (kind IN ('question', 'grid')),
    question INTEGER REFERENCES questions,
    purpose TEXT NOT NULL CHECK (purpose IN ('fresh', 'overlap', 'repeat', 'gold')),
    repeats INTEGER REFERENCES screens,
    anchor INTEGER NOT NULL REFERENCES images,
    shown TEXT NOT NULL,          -- JSON: images from left to right
    n_pick INTEGER,
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
    method TEXT NOT NULL CHECK (method IN ('keyboard', 'mouse', 'touch', 'form', 'offline')),
    answered_at TEXT NOT NULL,
    undone_at TEXT,
    undo_id TEXT UNIQUE
);
CREATE UNIQUE INDEX one_standing_answer ON answers (screen) WHERE undone_at IS NULL;
CREATE INDEX answers_of_judge ON answers (judge, id);
"""


def make_database(path: Path) -> None:
    """Make an empty database, readable by its owner alone because it holds the judges' links.

    Raises:
        JudgementsError: if something is there already, or it cannot be written.
    """
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
                    ("key", secrets.token_hex(32)),
                ],
            )
            connection.commit()
            connection.execute("PRAGMA journal_mode = WAL")
    except (OSError, sqlite3.Error) as error:
        raise JudgementsError(f"{path}: cannot be made: {error}") from error


def connect(path: Path) -> sqlite3.Connection:
    """Open a database to write to it; what is committed is on the disk.

    Raises:
        JudgementsError: if it is none, or of another format.
    """
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

    Raises:
        JudgementsError: if another process holds it.
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
