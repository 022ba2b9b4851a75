"""Who has the feature store open: a lock file that its users share."""

from __future__ import annotations

import os
from pathlib import Path

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
