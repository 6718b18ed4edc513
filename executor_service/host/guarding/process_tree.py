"""All that is below a process, and how it is signalled."""

import os
import signal
from collections.abc import Iterable

PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2
GROUPS_MAX = 256


def descendants(root: int) -> dict[int, int]:
    """Every process below `root` with its process group, zombies left out. Who is born during the look may be missing."""
    children: dict[int, list[int]] = {}
    groups: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry))
        if fields[0] not in (b"Z", b"X"):
            groups[int(entry)] = int(fields[2])
    found, frontier = [], [root]
    while frontier:
        below = children.get(frontier.pop(), [])
        found += below
        frontier += below
    return {pid: groups[pid] for pid in found if pid in groups}


class HeldGroups:
    """Process groups, held by their leaders' pidfds: a number may be given to somebody else, a pidfd is not.

    On a busy machine a look may come too late for everybody it finds: who is born again and again has moved on, not so his group.
    """

    def __init__(self) -> None:
        self._handles: dict[int, int] = {}

    def hold(self, group: int) -> None:
        """Holds a group whose leader was just seen below us."""
        if group > 1 and group not in self._handles and len(self._handles) < GROUPS_MAX:
            try:
                self._handles[group] = os.pidfd_open(group)
            except OSError:
                return  # its leader has gone: it is met by looking, as before

    def kill(self) -> None:
        """KILL to each, whoever is in it by now."""
        for handle in self._handles.values():
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL, None, PIDFD_SIGNAL_PROCESS_GROUP)
            except OSError:
                continue  # nobody is in it, or the kernel is older than 6.9


def process_group(pid: int) -> int:
    """A process's group; 0 when it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def signal_all(pids: Iterable[int], number: int) -> None:
    """Signals processes that were just seen below us."""
    for pid in pids:
        if pid > 1:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # gone, or another user's: a command may start setuid programs


def kill_all(alive: dict[int, int]) -> None:
    """Kills processes that were just seen below us, whole groups first.

    A group dies as one: whoever is being born in it is not born. One by one, a child that is born again and again is never met.
    """
    own = os.getpgrp()
    for group in {group for group in alive.values() if group > 1 and group != own}:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    signal_all(alive, signal.SIGKILL)
