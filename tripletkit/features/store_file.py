"""The file of the feature store: its tables, who has it open, and what its failures mean.

Every process that has the store open holds a shared lock on a file beside it. Only who holds that
lock alone may take the file away; everybody else changes it through SQLite.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path

import platformdirs

from tripletkit import defaults
from tripletkit.errors import StoreError


def vector_checksum(fingerprint: str, content: bytes, vector: bytes) -> int:
    """Return the CRC-32 of a vector together with what it is the vector of.

    So one that is filed under another image or another feature space does not pass either.
    """
    return zlib.crc32(vector, zlib.crc32(content, zlib.crc32(fingerprint.encode())))


def file_checksum(key: bytes, size_bytes: int, changed_ns: int, content: bytes) -> int:
    """Return the CRC-32 of what is known of a file."""
    return zlib.crc32(content, zlib.crc32(b"%d %d " % (size_bytes, changed_ns), zlib.crc32(key)))


def file_stamp(stat: os.stat_result) -> tuple[int, int]:
    """Return size and time (ns) of the last change, which together tell whether a file changed.

    Unpacking an archive can give other content the old modification time; nothing sets the
    other time, at which the file itself was touched.
    """
    return stat.st_size, max(stat.st_mtime_ns, stat.st_ctime_ns)


try:
    import fcntl
except ImportError:  # Windows itself keeps an open file from being taken away.
    fcntl = None


class StoreLock:
    """A lock on a file, shared by all users of the store or held alone.

    The kernel lets it go when its process ends, however that happens.

    Args:
        path: the lock file; made if missing.
        shared: wait for a lock together with others; else take one alone, if nobody has any.
    Attributes:
        is_held: false where somebody else has it, or the place knows no locks.
    """

    def __init__(self, path: Path, *, shared: bool) -> None:
        self.path = path
        self._file = self._lock(shared)

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, shared: bool) -> int | None:
        if fcntl is None:
            return None
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB
        while True:
            file = self._open()
            if file is None:
                return None
            try:
                fcntl.flock(file, how)
                if os.path.samestat(os.fstat(file), self.path.stat()):
                    return file
            except FileNotFoundError:
                pass
            except OSError:
                os.close(file)
                return None
            # Who cleared the store took the lock file away while this waited for it.
            os.close(file)

    def _open(self) -> int | None:
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            try:
                return os.open(self.path, flags, 0o666)
            except OSError:
                continue
        return None


FILE_NAME = "features.sqlite3"
# Increase when the tables change; an older tripletkit then refuses the store, a newer one makes
# it anew.
SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE spaces (
    id INTEGER PRIMARY KEY, fingerprint TEXT UNIQUE NOT NULL, facts TEXT NOT NULL,
    n_features INTEGER NOT NULL, last_used_s INTEGER NOT NULL
);
CREATE TABLE features (
    space INTEGER NOT NULL REFERENCES spaces(id), content BLOB NOT NULL, vector BLOB NOT NULL,
    checksum INTEGER NOT NULL, UNIQUE (space, content)
);
CREATE TABLE files (
    path BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    content BLOB NOT NULL, checksum INTEGER NOT NULL
) WITHOUT ROWID;
"""
_TABLES = {"spaces", "features", "files"}
# Another process holds the lock for one batch at a time.
_LOCK_TIMEOUT_S = 60
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_RIGHT = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
# What SQLite says on a disk without any room, where it cannot even begin.
_OF_FULL_DISK = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_SHARED_BYTES = 1 << 16
# Rows changed in one transaction.
_ROWS_AT_ONCE = 500

_log = logging.getLogger("tripletkit")


def default_folder() -> Path:
    """Return the folder of the store: `TRIPLETKIT_CACHE`, else the user's cache folder."""
    chosen = os.environ.get(defaults.CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("tripletkit"))


class StoreFile:
    """The open database of a store.

    Args:
        folder: where it is; made if missing.
    Attributes:
        path: the file.
        database: the connection.
        is_in_memory: the file only can be read, and cannot be used so; the database is empty.
    Raises:
        StoreError: if it cannot be opened, is no store, or is from a newer tripletkit.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self.is_in_memory = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{folder}: the feature store cannot be made there: {error.strerror}. "
                "Choose another folder as `cache`."
            ) from error
        self._lock = StoreLock(folder / f"{FILE_NAME}.lock", shared=True)
        try:
            with self.explained():
                self.database = self._open()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self.database.close()
        self._lock.release()

    @cached_property
    def can_write(self) -> bool:
        """Whether there are the rights to write; a store that only can be read is fine too."""
        if self.is_in_memory:
            return False
        try:
            # To begin is allowed even so; to write nothing is not.
            self.database.execute("DELETE FROM spaces WHERE 0")
        except sqlite3.OperationalError as error:
            if _code(error) in _NO_RIGHT:
                return False
            raise
        return True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is written one whole: all of it or nothing."""
        with self.explained():
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.database.rollback()
                raise
            self.database.execute("COMMIT")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, which say what is lost and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            has_room = self._has_room()
            raise StoreError(f"{self.path}: {_explain(error, has_room=has_room)}") from error

    def give_room_back(self) -> bool:
        """Make the file as small as what it holds; return whether that went well."""
        try:
            (incremental,) = self.database.execute("PRAGMA auto_vacuum").fetchone()
            # The statement does its work while its (empty) rows are fetched.
            how = "PRAGMA incremental_vacuum" if incremental else "VACUUM"
            self.database.execute(how).fetchall()
            self.database.execute("PRAGMA busy_timeout = 100")
            self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError:
            return False
        finally:
            self.database.execute(f"PRAGMA busy_timeout = {_LOCK_TIMEOUT_S * 1000}")
        return True

    def change_many(self, statement: str, rows: Sequence[tuple]) -> None:
        """Run a statement for many rows in several transactions, so that others write between."""
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            with self.transaction():
                self.database.executemany(statement, rows[start : start + _ROWS_AT_ONCE])

    def _has_room(self) -> bool:
        """Return whether the disk has room for the memory that a log's readers share."""
        with suppress(OSError):
            return shutil.disk_usage(self.path.parent).free >= _SHARED_BYTES
        return True

    def _open(self) -> sqlite3.Connection:
        try:
            return self._prepared(self._connect(self.path))
        except sqlite3.OperationalError as error:
            is_full = _code(error) == sqlite3.SQLITE_IOERR and not self._has_room()
            if not (is_full or _code(error) in _NO_RIGHT) or not self.path.is_file():
                raise
        # A log beside it needs the rights, and a little room, to share memory with its writer.
        # Without them the file alone is read, as it is on a medium that nobody writes to.
        address = self.path.absolute().as_uri()
        for how in ("mode=ro", "mode=ro&immutable=1"):
            try:
                return self._prepared(self._connect(f"{address}?{how}", uri=True))
            except sqlite3.OperationalError:
                continue
        # What it holds is all in the log, or of an older version: as good as nothing.
        self.is_in_memory = True
        return self._prepared(self._connect(":memory:"))

    def _connect(self, place: Path | str, *, uri: bool = False) -> sqlite3.Connection:
        return sqlite3.connect(place, timeout=_LOCK_TIMEOUT_S, isolation_level=None, uri=uri)

    def _prepared(self, database: sqlite3.Connection) -> sqlite3.Connection:
        """Return a database with our tables, or close it."""
        try:
            if _version(database) == 0:
                # Before the first table is made, so that room can be given back in small steps.
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _use_write_ahead_log(database)
            database.execute("PRAGMA synchronous = NORMAL")
            self._make_tables(database)
        except BaseException:
            database.close()
            raise
        return database

    def _make_tables(self, database: sqlite3.Connection) -> None:
        version = _version(database)
        if version == 0 and _tables(database) - _TABLES:
            raise StoreError(
                f"{self.path}: expected a feature store, got a database of something else. "
                "Choose another folder as `cache`."
            )
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: expected a feature store of version {SCHEMA_VERSION}, got "
                f"{version} from a newer tripletkit. Choose another folder as `cache`, or update."
            )
        if version == SCHEMA_VERSION:
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have done it while this one waited.
            version = _version(database)
            if version < SCHEMA_VERSION:
                if version > 0:
                    self._drop_older(database)
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            database.rollback()
            raise
        database.execute("COMMIT")
        if 0 < version < SCHEMA_VERSION:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            try:
                database.execute("VACUUM")
            except sqlite3.OperationalError:
                _log.debug("%s: the room of older features is used for newer ones", self.path)

    def _drop_older(self, database: sqlite3.Connection) -> None:
        """Drop the tables of a store of an older version, which has no checksums to trust."""
        if _tables(database) != _TABLES:
            raise StoreError(
                f"{self.path}: expected a feature store, got a database of something else. "
                "Choose another folder as `cache`."
            )
        for table in ("features", "files", "spaces"):
            database.execute(f"DROP TABLE {table}")
        _log.info(
            "%s: was made by an older tripletkit; its features are computed anew when they are "
            "needed.",
            self.path,
        )


def _use_write_ahead_log(database: sqlite3.Connection) -> None:
    """Switch the journal, which for once does not wait while another process does the same."""
    give_up_s = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_s:
                raise
            time.sleep(0.02)


def is_own_store(path: Path) -> bool:
    """Return whether a database is a feature store; one that is damaged is by the lock beside."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return _tables(database) in (_TABLES, set())
    except sqlite3.DatabaseError:
        return path.with_name(f"{path.name}.lock").exists()


def _tables(database: sqlite3.Connection) -> set[str]:
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in found if not name.startswith("sqlite_")}


def _version(database: sqlite3.Connection) -> int:
    return database.execute("PRAGMA user_version").fetchone()[0]


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; that of damage where text is not UTF-8."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _explain(error: sqlite3.Error, *, has_room: bool) -> str:
    code = _code(error)
    if code in _DAMAGED:
        return (
            f"the feature store is damaged: {error}. What it held has to be computed again: clear "
            "it with `tripletkit cache clear`, or choose another folder as `cache`."
        )
    if code == sqlite3.SQLITE_FULL or (not has_room and code in _OF_FULL_DISK):
        return (
            f"the feature store has no room: {error}. What was stored before is kept; make room "
            "on that disk (`tripletkit cache clear` takes none), or choose another folder as "
            "`cache`."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"another process has kept the feature store for {_LOCK_TIMEOUT_S} seconds: {error}. "
            "Wait until it is done, or choose another folder as `cache`."
        )
    return (
        f"the feature store failed: {error}. Look at the rights and the disk there, clear it with "
        "`tripletkit cache clear`, or choose another folder as `cache`."
    )
