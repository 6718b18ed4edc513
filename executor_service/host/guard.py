"""The guard of one local run: a small process of its own that outlives the executor. Standard library only.

    python -I -S guard.py RUN_DIR

It leads a session, adopts every orphan below it, starts the command, caps its log, enforces time-out and lease, ends the
whole tree (TERM, grace, KILL), and writes how it all ended. Files of RUN_DIR:

    spec.json   argv, env, cwd, timeout_s, grace_s, log_max_bytes (written by the executor)
    lease       "<ttl> <from>" in nanoseconds of CLOCK_BOOTTIME; ttl 0: none (rewritten by the executor)
    claim       who may begin this run: this guard, or an executor that has given it up; the first wins
    cancel      why it is cancelled (written by the executor before SIGTERM)
    state.json  phase "started", then "ended"; or "failed": the command could not be started; or "cancelled": it was not to be
    output.log  the head of standard output and error; output-<first byte>.log: pieces of its tail, oldest gone first
    result      the last 64 KiB of standard output
    reserve     room on the disk for what is written at the end: a full disk must not lose a finished run
"""

import ctypes
import errno
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
RESULT_BYTES = 64 * 1024
CHUNK = 64 * 1024
TERM_SHARE = 0.8
KILL_SHARE = 0.9
SWEEP_S = 0.05
KILL_SWEEP_S = 0.005
AFTER_EXIT_GRACE_S = 2.0
# What is still there so long after KILL is not ours to end (another user's), or hangs in the kernel.
KILLED_PATIENCE_S = 5.0
RESERVE_BYTES = 256 * 1024
RETRY_S = 1.0
# Half of the log is the head; the tail is kept in so many pieces, the oldest of which goes when a new one begins.
LOG_SEGMENTS = 8

_libc = ctypes.CDLL(None, use_errno=True)


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


class StartFailed(Exception):
    """The command is there and could not be started; the errno says why."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{os.strerror(number)} (errno {number})")
        self.number = number


def start_command(spec: dict[str, object]) -> tuple[int, int, int]:
    """Starts the command; returns its pid and the read ends of its output and error. Raises StartFailed."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    told_read, told_write = os.pipe2(os.O_CLOEXEC)
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become_command(spec, guard, out_write, err_write)
        except OSError as error:
            os.write(told_write, str(error.errno or errno.EIO).encode())
        finally:
            os._exit(127)
    for handle in (out_write, err_write, told_write):
        os.close(handle)
    told = os.read(told_read, 16)
    os.close(told_read)
    if told:
        os.waitpid(pid, 0)
        os.close(out_read)
        os.close(err_read)
        raise StartFailed(int(told))
    return pid, out_read, err_read


def _become_command(spec: dict[str, object], guard: int, out: int, err: int) -> None:
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:
        os._exit(127)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(str(spec["cwd"]))
    argv = [str(word) for word in spec["argv"]]  # type: ignore[attr-defined]  # a JSON list
    os.execve(argv[0], argv, {str(k): str(v) for k, v in spec["env"].items()})  # type: ignore[attr-defined]  # a JSON object


class Log:
    """The output on disk: its head in output.log, its tail in pieces named by their first byte; what lies between is counted."""

    def __init__(self, directory: str, most: int) -> None:
        self._directory = directory
        self._segment_max = max(1, (most - most // 2) // LOG_SEGMENTS)
        self._segments: list[tuple[str, int]] = []
        self._position = 0
        self.dropped = 0
        self._file: int | None = self._open("output.log")
        self._room = most // 2

    def _open(self, name: str) -> int | None:
        path = os.path.join(self._directory, name)
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return None

    def write(self, data: bytes) -> None:
        """Appends it all, and lets go of the oldest segment of the tail when there are too many."""
        while data:
            if self._room == 0:
                self._next_segment()
            written = self._append(data[: self._room])
            self._position += written
            self._room -= written
            data = data[written:]
            if written == 0:
                # A full disk must not end the run: its work is worth more than its log. Once there is room, a new segment says
                # by its name how much is missing.
                self.dropped += len(data)
                self._position += len(data)
                self._room = 0
                return

    def _append(self, data: bytes) -> int:
        if self._file is None:
            return 0
        try:
            written = os.write(self._file, data)
        except OSError:
            return 0
        if self._segments:
            name, size = self._segments[-1]
            self._segments[-1] = name, size + written
        return written

    def _next_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
        while len(self._segments) >= LOG_SEGMENTS:
            name, size = self._segments.pop(0)
            self.dropped += size
            self._remove(name)
        name = f"output-{self._position:020d}.log"
        self._file = self._open(name)
        self._room = self._segment_max
        if self._file is not None:
            self._segments.append((name, 0))

    def _remove(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._directory, name))
        except OSError:
            return

    def make_room(self) -> None:
        """Lets go of everything: the disk is full, and how the run ended matters more."""
        for name, _size in self._segments:
            self._remove(name)
        self._segments = []
        try:
            os.truncate(os.path.join(self._directory, "output.log"), 0)
        except OSError:
            return


class Guard:
    """One run."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        with open(os.path.join(directory, "spec.json"), encoding="utf-8") as file:
            self.spec = json.load(file)
        self.log = Log(directory, int(self.spec["log_max_bytes"]))
        self.result = bytearray()
        self.selector = selectors.DefaultSelector()
        self.status: int | None = None
        self.ended_by = "exit"
        self.pid = 0
        self.pipes: set[int] = set()
        self.cancelled = False
        self.left: list[int] = []
        self.lease: tuple[int, int] | None = None
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.wake_read = wake_read
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)

    def run(self) -> None:
        """Begins the run and sees it through to its end."""
        self._reserve()
        # Whoever cancelled before our claim could be seen had nobody to signal.
        if self.cancelled or os.path.exists(os.path.join(self.directory, "cancel")):
            self._write_state({"phase": "cancelled"}, last=True)
            return
        try:
            self.pid, out, err = start_command(self.spec)
        except StartFailed as error:
            self._write_state({"phase": "failed", "error": str(error), "errno": error.number}, last=True)
            return
        self._write_state({"phase": "started", "pid": self.pid, "start_ticks": start_ticks(self.pid)})
        for pipe in (out, err):
            os.set_blocking(pipe, False)
            self.pipes.add(pipe)
            self.selector.register(pipe, selectors.EVENT_READ, "out" if pipe == out else "err")
        self.selector.register(self.wake_read, selectors.EVENT_READ, "wake")
        self._watch()
        self._end_tree(self._grace() if self.ended_by != "exit" else AFTER_EXIT_GRACE_S)
        self._drain()
        self._finish()

    def _on_term(self, *_: object) -> None:
        self.cancelled = True

    def _grace(self) -> float:
        return float(self.spec["grace_s"])

    def _watch(self) -> None:
        """Until the command has ended, or must end."""
        timeout_at = boot_ns() + int(float(self.spec["timeout_s"]) * 1e9)
        while self.status is None:
            self._reap()
            if self.status is not None:
                return
            now = boot_ns()
            lease_at = self._lease_at(TERM_SHARE)
            for why, due in (
                ("cancel", now if self.cancelled else None),
                ("timeout", timeout_at),
                ("lease", lease_at),
            ):
                if due is not None and now >= due:
                    self.ended_by = why
                    return
            next_due = min(due for due in (timeout_at, lease_at, now + int(1e9)) if due is not None)
            self._pump(max(0.0, (next_due - now) / 1e9))

    def _lease_at(self, share: float) -> int | None:
        try:
            with open(os.path.join(self.directory, "lease"), encoding="ascii") as file:
                ttl, since = (int(word) for word in file.read().split())
            self.lease = ttl, since
        except (OSError, ValueError):
            # What was read before still holds: an unreadable lease is no endless one.
            if self.lease is None:
                return None
            ttl, since = self.lease
        return since + int(ttl * share) if ttl else None

    def _pump(self, seconds: float) -> None:
        for key, _ in self.selector.select(seconds):
            try:
                data = os.read(key.fd, CHUNK)
            except BlockingIOError:
                continue
            if key.data == "wake":
                continue
            if not data:
                self._close(key.fd)
                continue
            self.log.write(data)
            if key.data == "out":
                self.result += data
                del self.result[:-RESULT_BYTES]

    def _close(self, pipe: int) -> None:
        self.selector.unregister(pipe)
        self.pipes.discard(pipe)
        os.close(pipe)

    def _reap(self) -> bool:
        """Takes in the dead. False when nobody is left: every orphan below becomes our child, so that is exact."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.status = status

    def _end_tree(self, grace: float) -> None:
        """TERM to everything below, KILL to what is left after the grace, or when the lease says so earlier."""
        kill_at = boot_ns() + int(grace * 1e9)
        # Whatever ends it: when the lease is over, somebody else may start the task.
        lease_kill = self._lease_at(KILL_SHARE)
        if lease_kill is not None:
            kill_at = min(kill_at, lease_kill)
        give_up_at = max(kill_at, boot_ns()) + int(KILLED_PATIENCE_S * 1e9)
        told: set[int] = set()
        while self._reap():
            alive = descendants(os.getpid())
            if boot_ns() >= give_up_at:
                self.left = sorted(alive)
                return
            if boot_ns() >= kill_at:
                kill_all(alive)
                self._pump(KILL_SWEEP_S)
            else:
                signal_all([pid for pid in alive if pid not in told], signal.SIGTERM)
                told.update(alive)
                self._pump(SWEEP_S)

    def _drain(self) -> None:
        """What the pipes still hold; nobody is left to write more."""
        until = boot_ns() + int(1e9)
        while self.pipes and boot_ns() < until:
            self._pump(SWEEP_S)

    def _finish(self) -> None:
        status = self.status
        code = os.waitstatus_to_exitcode(status) if status is not None else None
        self._release()
        try:
            write_file(self.directory, "result", bytes(self.result))
        except OSError:
            # How it ended matters more than what it said; room for that is made at the log's cost.
            self.log.make_room()
        self._write_state(
            {
                "phase": "ended",
                "ended_by": self.ended_by,
                "exit_code": code if code is not None and code >= 0 else None,
                "signal": -code if code is not None and code < 0 else None,
                "log_dropped": self.log.dropped,
                "left": self.left,
            },
            last=True,
        )

    def _reserve(self) -> None:
        try:
            handle = os.open(os.path.join(self.directory, "reserve"), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
            finally:
                os.close(handle)
        except OSError:
            return  # Without it the end may have to wait for room.

    def _release(self) -> None:
        try:
            os.unlink(os.path.join(self.directory, "reserve"))
        except OSError:
            return

    def _write_state(self, state: dict[str, object], *, last: bool = False) -> None:
        """Writes the state; the last one is tried until there is room, or the lease is over and nobody waits for it."""
        data = json.dumps({**state, "boot_ns": boot_ns()}).encode()
        if last:
            self._release()
        while True:
            try:
                write_file(self.directory, "state.json", data)
                break
            except OSError:
                over = self._lease_at(1.0)
                if not last or (over is not None and boot_ns() >= over):
                    return
                time.sleep(RETRY_S)
        try:
            os.write(1, b".")
        except OSError:
            return  # The executor is away; it reads the file when it is back.


def main() -> int:
    """Guards the run of the folder in argv."""
    directory = sys.argv[1]
    os.umask(0o077)
    # Whatever the executor had open is none of ours: a port kept open here could not be bound again.
    os.closerange(3, 65_536)
    os.chdir("/")
    if os.getsid(0) != os.getpid():
        os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Before the claim tells anybody our number: from then on we may be signalled.
    guard = Guard(directory)
    me = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "pid_namespace": os.readlink("/proc/self/ns/pid")}
    if not claim(directory, me):
        return 3
    guard.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
