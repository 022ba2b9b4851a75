"""Databases of collected judgements, read as triplets with votes.

`tripletkit collect` writes them, one answer a transaction; reading never waits for the server that
writes, and sees every answer that it has acknowledged.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripletkit.data.outputs import OutputForm, note_input
from tripletkit.data.text_files import shorten_line
from tripletkit.errors import JudgementsError

# "trkj" in the header of the file, so that another program's database is not taken for one.
APPLICATION_ID = 0x74726B6A
SCHEMA_VERSION = 2

LEFT, RIGHT, NEITHER, GRID = "left", "right", "neither", "grid"
# A question's answer in words that do not depend on the side that an image stood on.
FIRST, SECOND, CANT_TELL = "first", "second", "cant-tell"
_RANDOM, GOLD, IMPORTED = "random", "gold", "imported"
_WAYS = (_RANDOM, "margin", "disagreement", GOLD, GRID, IMPORTED)
_FACTS = ("database", "owner", "open", "key")
_MOST_SECONDS = 60
_TABLE_INFO = "SELECT * FROM pragma_table_info(?)"
# What is read: columns and their declared types.
_COLUMNS = {
    "meta": "key TEXT, value TEXT",
    "images": "id INTEGER, name TEXT",
    "judges": "id INTEGER, name TEXT, is_left_out INTEGER",
    "questions": "id INTEGER, anchor INTEGER, first INTEGER, second INTEGER, how TEXT, "
    "probability REAL",
    "screens": "id INTEGER, kind TEXT, question INTEGER, anchor INTEGER, shown TEXT, "
    "purpose TEXT, drawn TEXT",
    "answers": "id INTEGER, screen INTEGER, judge INTEGER, choice TEXT, side TEXT, picked TEXT, "
    "response_ms REAL, method TEXT, answered_at TEXT, undone_at TEXT",
}


def _is_database(path: Path) -> bool:
    """Return whether a file is one; not for a process that has it open, see `check_version`."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:
        return False
    mark = APPLICATION_ID.to_bytes(4, "big")
    return header.startswith(b"SQLite format 3\x00") and header[68:72] == mark


DATABASE_FORM = OutputForm("a database of judgements", _is_database)


@dataclass(frozen=True)
class Answer:
    """One answer to one question, as it stands after all undoing."""

    judge: str
    question: int  # its number in the database; of a grid, a number that no question has
    triplet: tuple[str, str, str]  # anchor, first and second image
    how: str  # it was chosen: `random`, `margin`, `disagreement`, `gold`, `grid` or `imported`
    choice: str  # `first`, `second` or `cant-tell`
    side: str  # where the chosen image stood: `left`, `right` or `neither`; `grid`
    response_ms: float  # from the images being there to the answer
    screen: int  # a grid's triplets share theirs
    # Of the question to be drawn by chance, or of its images to be drawn for one grid; 0 where not.
    probability: float = 0.0
    method: str = "keyboard"  # or `mouse`, `touch`, `form`, `offline`, `import`
    answered_at: str = ""  # ISO time, UTC

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as a row of a table; a grid has a row a pair of its images."""
        anchor, first, second = self.triplet
        chosen = {FIRST: first, SECOND: second, CANT_TELL: ""}[self.choice]
        images = {"anchor": anchor, "first": first, "second": second, "chosen": chosen}
        about = ("side", "how", "probability", "response_ms", "method", "answered_at")
        whose = {name: getattr(self, name) for name in ("judge", "screen", "question")}
        return whose | images | {name: getattr(self, name) for name in about}


def read_answers_given(
    path: Path, exclude: Collection[str] = (), *, with_left_out: bool = False
) -> list[Answer]:
    """Read every answer but those undone or of practice; `with_left_out`, of all judges."""
    with open_database(path) as connection:
        judges = [name for (name,) in connection.execute("SELECT name FROM judges ORDER BY id")]
        if unknown := sorted(set(exclude) - set(judges)):
            raise JudgementsError(
                f"{path}: expected names of judges, got {', '.join(unknown)}; there are "
                f"{', '.join(judges) or 'none'}"
            )
        names = dict(connection.execute("SELECT id, name FROM images"))
        if not all(isinstance(name, str) and name for name in names.values()):
            raise JudgementsError(f"{path}: damaged: an image has a name that is no text")
        found: list[Answer] = []
        for row in connection.execute(_ANSWERS):
            if row["judge"] in exclude or (row["is_left_out"] and not with_left_out):
                continue
            try:
                _check_answer(row)
                found += _read_answers(row, names)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise JudgementsError(
                    f"{path}: damaged: answer {row['answer']} is none that can be read "
                    f"({type(error).__name__}: {error}). Take a copy that is whole"
                ) from error
    return found


def _check_answer(row: sqlite3.Row) -> None:
    """Refuse an answer with a value that no server writes; raises `ValueError`."""
    known = {
        "judge": isinstance(row["judge"], str),
        "choice": row["choice"] in (FIRST, SECOND, CANT_TELL, GRID),
        "side": row["side"] in (LEFT, RIGHT, NEITHER, GRID),
        "how": row["how"] in _WAYS,
        "response_ms": isinstance(row["response_ms"], int | float),
        "screen": isinstance(row["screen"], int),
        "probability": row["how"] != _RANDOM or 0 < row["probability"] <= 1,
        "kind": row["kind"] == GRID or row["choice"] != GRID,
        "question": row["kind"] == GRID or isinstance(row["question"], int),
    }
    if wrong := [name for name, is_so in known.items() if not is_so]:
        raise ValueError(f"{wrong[0]} is {row[wrong[0]]!r}")


def _read_answers(row: sqlite3.Row, names: dict[int, str]) -> Iterator[Answer]:
    """Yield the answer, or what a grid implies: each picked image is nearer than each other."""
    columns = "judge how choice side response_ms screen method answered_at".split()
    facts = {column: row[column] for column in columns}
    if row["kind"] != GRID:
        anchor, first, second = (names[row[column]] for column in ("anchor", "first", "second"))
        probability = row["probability"] if row["how"] == _RANDOM else 0.0
        facts |= {"question": row["question"], "probability": probability}
        yield Answer(triplet=(anchor, first, second), **facts)
        return
    facts |= {"how": GRID, "choice": FIRST, "side": GRID}
    shown, picked = json.loads(row["shown"]), set(json.loads(row["picked"] or "[]"))
    drawn = json.loads(row["drawn"])
    near = set(drawn["near"])
    for first in picked:
        for second in shown:
            if second in picked:
                continue
            n_near = (first in near) + (second in near)
            yield Answer(
                question=-row["screen"],
                triplet=(names[row["anchor"]], names[first], names[second]),
                probability=_pair_probability(n_near, len(near), len(shown) - len(near), drawn),
                **facts,
            )


def read_shown_questions(path: Path) -> list[tuple[int, int, int]]:
    """Read which questions, not grids, judges were shown, and gold ones among them, as numbers of
    images in the database: anchor, first, second."""
    with open_database(path) as connection:
        rows = [tuple(row) for row in connection.execute(_SHOWN)]
    if not all(isinstance(number, int) for row in rows for number in row):
        raise JudgementsError(f"{path}: damaged: a question names images that are no numbers")
    return rows


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database of judgements to read it, whether or not a server is writing."""
    if not path.is_file():
        raise JudgementsError(f"{path}: expected a database of judgements, there is no such file")
    try:
        with closing(_connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA query_only = ON")
            # A file from elsewhere may hold what never ends.
            end_s = time.monotonic() + _MOST_SECONDS
            connection.set_progress_handler(lambda: time.monotonic() > end_s, 100_000)
            check_version(connection, path)
            connection.set_authorizer(_allow_reading)
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:
        shown = shorten_line(str(error))  # it may hold what stands in the file
        raise JudgementsError(f"{path}: damaged, cannot be read: {shown}") from error


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database of another program, or of another format.

    SQLite looks at the file, not this program: closing a file drops every lock that the process has
    on it, and answers are lost when another process then takes the database for unused.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise JudgementsError(
            f"{path}: expected a database of judgements, got one of another program"
        )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise JudgementsError(
            f"{path}: expected format {SCHEMA_VERSION}, got {version}; another version of "
            "tripletkit wrote it"
        )

    _check_schema(connection, path)


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database without our tables, or with anything that would run by itself."""
    kinds = dict(connection.execute("SELECT name, type FROM sqlite_master WHERE type <> 'index'"))
    for name, kind in kinds.items():
        if kind != "table":
            raise JudgementsError(
                f"{path}: expected a database of judgements, got one with the {kind} {name}; "
                "another program has written to it"
            )
    for table, columns in _COLUMNS.items():
        known = {row[1]: str(row[2]).upper() for row in connection.execute(_TABLE_INFO, (table,))}
        for column, kind in map(str.split, columns.split(", ")):
            if known.get(column) != kind:
                raise JudgementsError(
                    f"{path}: damaged: expected the column {column} of {table} as {kind}, got "
                    f"{known.get(column, 'none')}. Take a copy that is whole"
                )
    facts = {row[0] for row in connection.execute("SELECT key FROM meta")}
    if missing := [name for name in _FACTS if name not in facts]:
        raise JudgementsError(f"{path}: damaged: the table meta lacks {', '.join(missing)}")


def _allow_reading(
    action: int, first: str | None, _second: str | None, _database: str | None, source: str | None
) -> int:
    """Let SQLite read tables, and nothing run on behalf of a view or a trigger."""
    if source is not None:
        return sqlite3.SQLITE_DENY
    allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ) or (
        action == sqlite3.SQLITE_FUNCTION
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _connect(path: Path) -> sqlite3.Connection:
    note_input(path)
    uri, journal = path.absolute().as_uri(), path.with_name(f"{path.name}-wal")
    # A reader alone leaves its files behind; who may write and has nothing to recover removes them.
    is_clean = not (journal.exists() or path.with_name(f"{path.name}-journal").exists())
    mode = "rw" if is_clean else "ro"
    connection = sqlite3.connect(f"{uri}?mode={mode}", uri=True, timeout=10)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        # In a folder that cannot be written there is no place for the files of a reader. Without
        # a journal all answers are in the database itself.
        if journal.exists() and journal.stat().st_size:
            raise
        connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
    return connection


def _pair_probability(n_near: int, all_near: int, all_far: int, drawn: dict[str, Any]) -> float:
    """Return how probable two images of a grid were to be drawn, `n_near` of them among the
    nearest; the whole grid has `all_near` of these, and `all_far` others."""
    n_nearest, n_others = drawn["n_nearest"], drawn["n_others"]
    of_pair = {
        2: all_near * (all_near - 1) / max(n_nearest * (n_nearest - 1), 1),
        1: all_near * all_far / max(n_nearest * n_others, 1),
        0: all_far * (all_far - 1) / max(n_others * (n_others - 1), 1),
    }[n_near]
    return of_pair / (1 + n_nearest + n_others)


_ANSWERS = """
SELECT answers.id AS answer, judges.name AS judge, judges.is_left_out, screens.kind,
       screens.id AS screen, screens.question, screens.anchor, screens.shown,
       questions.first, questions.second,
       coalesce(questions.how, 'grid') AS how, answers.choice, answers.side, answers.picked,
       answers.response_ms, answers.method, answers.answered_at, questions.probability,
       screens.drawn
FROM answers
JOIN screens ON screens.id = answers.screen
JOIN judges ON judges.id = answers.judge
LEFT JOIN questions ON questions.id = screens.question
WHERE answers.undone_at IS NULL AND purpose != 'practice'
ORDER BY answers.id
"""
_SHOWN = """
SELECT anchor, first, second FROM questions
WHERE EXISTS (SELECT 1 FROM screens WHERE screens.question = questions.id)
ORDER BY id
"""
