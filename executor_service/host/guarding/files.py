"""Files of a run's folder that are there whole or not at all, and what names a process for good."""

import json
import os
import time


def boot_ns() -> int:
    """The clock that leases count on: it goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def start_ticks(pid: int) -> int:
    """A process's start time; with its pid it names the process for good. 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def boot_id() -> str:
    """Which boot of the machine this is."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def pid_namespace() -> str:
    """In which pid namespace our pids count."""
    return os.readlink("/proc/self/ns/pid")


def who_am_i() -> dict[str, object]:
    """This process for good: no other one on any boot and in any container has all of these."""
    pid = os.getpid()
    return {"pid": pid, "start_ticks": start_ticks(pid), "pid_namespace": pid_namespace(), "boot_id": boot_id()}


def write_file(directory: str, name: str, data: bytes) -> None:
    """Writes a file so that it is there whole, or not at all, whatever happens."""
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    _write_whole(temporary, data)
    os.rename(temporary, os.path.join(directory, name))
    sync_directory(directory)


def _write_whole(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        while data:
            # A nearly full disk takes a part and says so only with the next one.
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(directory: str) -> None:
    """Makes a rename durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def claim(directory: str, who: dict[str, object]) -> bool:
    """Makes RUN_DIR/claim unless it is there; the first one to do so may begin the run, or give it up."""
    path = os.path.join(directory, "claim")
    if os.path.exists(path):
        # Also on a full disk it must be seen that somebody was first.
        return False
    temporary = os.path.join(directory, f".claim.{os.getpid()}")
    try:
        _write_whole(temporary, json.dumps(who).encode())
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    sync_directory(directory)
    return True
