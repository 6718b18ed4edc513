"""Who runs the embedded PostgreSQL when we are root, and where that user may go."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

from service_runtime.lifecycle import StartupError

UNPRIVILEGED_USERS = ("postgres", "nobody")


def unprivileged_user(wanted: str, cluster: Path) -> str:
    """The user for PostgreSQL, which refuses root; '' when we are not root: ourselves.

    `wanted` if given, else the owner of an existing cluster (PostgreSQL refuses any other), else the first of
    UNPRIVILEGED_USERS that exists. Raises StartupError.
    """
    if os.geteuid() != 0:
        return ""
    owner = ""
    with contextlib.suppress(FileNotFoundError, KeyError):
        owner = pwd.getpwuid(cluster.stat().st_uid).pw_name
    for name in (wanted,) if wanted else (owner, *UNPRIVILEGED_USERS):
        with contextlib.suppress(KeyError):
            if pwd.getpwnam(name).pw_uid != 0:
                return name
    names = wanted or " or ".join(UNPRIVILEGED_USERS)
    raise StartupError(f"PostgreSQL does not run as root, and there is no plain user {names}: set DATABASE_URL")


def owner_for(path: Path, user: str) -> None:
    """Gives a path to the user; '' leaves it ours."""
    if user:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def barred_folder(paths: Iterable[Path], user: str) -> Path | None:
    """The first folder on the way to these paths that the user may not pass through; None when all is open."""
    entry = pwd.getpwnam(user)
    for path in paths:
        for folder in reversed([path, *path.parents]):
            found = folder.stat()
            bit = 0o001
            if found.st_uid == entry.pw_uid:
                bit = 0o100
            elif found.st_gid == entry.pw_gid:
                bit = 0o010
            if stat.S_ISDIR(found.st_mode) and not found.st_mode & bit:
                return folder
    return None
