"""Checksums of what the feature store keeps: a flipped bit is seen before it is believed."""

from __future__ import annotations

import os
import zlib


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
