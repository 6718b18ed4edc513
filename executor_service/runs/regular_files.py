"""Reads files in a run's folder, where the command may have put a link, a device or a pipe in a file's place."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int, *, offset: int = 0, from_end: bool = False) -> bytes:
    """At most so many bytes of a regular file, from an offset or its last ones; none of anything else."""
    handle = _opened(path)
    if handle is None:
        return b""
    try:
        size = os.fstat(handle).st_size
        return os.pread(handle, most, max(0, size - most) if from_end else offset)
    except OSError:
        return b""
    finally:
        os.close(handle)


def size_of_regular(path: Path) -> int:
    """The size of a regular file; 0 of anything else."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _opened(path: Path) -> int | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    return None
