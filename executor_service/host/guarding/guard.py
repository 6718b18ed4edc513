"""One run, from its start to what is written of its end."""

import ctypes
import json
import os
import selectors
import signal
import time

from executor_service.host.guarding.command import StartFailed, start_command
from executor_service.host.guarding.control_group import ControlGroup
from executor_service.host.guarding.files import boot_ns, claim, start_ticks, who_am_i, write_file
from executor_service.host.guarding.log import Log
from executor_service.host.guarding.process_tree import HeldGroups, descendants, kill_all, signal_all

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
# There are children, and no look has met any for so long: they are hidden from us.
UNSEEN_PATIENCE_S = 60.0
RESERVE_BYTES = 256 * 1024
RETRY_S = 1.0


def is_hopeless(killed: dict[int, int], now: int, met_at: int) -> bool:
    """Whether all that is left was killed long ago, or nobody has been met for long; who has just been born is still to be ended.

    `killed`: since when each pid that was just met is being killed; `met_at`: when a look last met anybody; all in ns.
    """
    if killed:
        return all(now - since > KILLED_PATIENCE_S * 1e9 for since in killed.values())
    return now - met_at > UNSEEN_PATIENCE_S * 1e9


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
        self.group: ControlGroup | None = None
        self.groups = HeldGroups()
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
            self.group = self._control_group()
            self.pid, out, err = start_command(self.spec, self.group)
        except StartFailed as error:
            self._leave_group()
            self._write_state({"phase": "failed", "error": str(error), "errno": error.number}, last=True)
            return
        self.groups.hold(self.pid)
        self._write_state({"phase": "started", "pid": self.pid, "start_ticks": start_ticks(self.pid)})
        for pipe in (out, err):
            os.set_blocking(pipe, False)
            self.pipes.add(pipe)
            self.selector.register(pipe, selectors.EVENT_READ, "out" if pipe == out else "err")
        self.selector.register(self.wake_read, selectors.EVENT_READ, "wake")
        self._watch()
        self._end_tree(self._grace() if self.ended_by != "exit" else AFTER_EXIT_GRACE_S)
        self._drain()
        self._leave_group()
        self._finish()

    def _control_group(self) -> ControlGroup | None:
        """The cgroup for the command; where none can be made, process groups and this subreaper do."""
        path = str(self.spec["cgroup"])
        group = ControlGroup(path) if path else None
        return group if group is not None and group.make() else None

    def _leave_group(self) -> None:
        if self.group is not None:
            self.group.remove()

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
        told: set[int] = set()
        killed: dict[int, int] = {}
        met_at = boot_ns()
        while self._reap():
            alive = descendants(os.getpid()) | (self.group.members() if self.group is not None else {})
            for group in alive.keys() & alive.values():
                self.groups.hold(group)
            now = boot_ns()
            met_at = now if alive or now < kill_at else met_at
            if now < kill_at:
                signal_all([pid for pid in alive if pid not in told], signal.SIGTERM)
                told.update(alive)
                self._pump(SWEEP_S)
                continue
            killed = {pid: killed.get(pid, now) for pid in alive}
            if is_hopeless(killed, now, met_at):
                self.left = sorted(alive)
                return
            if self.group is not None:
                self.group.kill()
            self.groups.kill()
            kill_all(alive)
            self._pump(KILL_SWEEP_S)

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
            except FileNotFoundError:
                return  # Somebody has removed the folder: nobody can be told any more.
            except OSError:
                over = self._lease_at(1.0)
                if not last or (over is not None and boot_ns() >= over):
                    return
                time.sleep(RETRY_S)
        try:
            os.write(1, b".")
        except OSError:
            return  # The executor is away; it reads the file when it is back.


def guard_run(directory: str) -> int:
    """Guards the run of a folder; 3 when somebody else has claimed it."""
    os.umask(0o077)
    # Whatever the executor had open is none of ours: a port kept open here could not be bound again.
    os.closerange(3, 65_536)
    os.chdir("/")
    if os.getsid(0) != os.getpid():
        os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Before the claim tells anybody our number: from then on we may be signalled.
    guard = Guard(directory)
    if not claim(directory, who_am_i()):
        return 3
    guard.run()
    return 0
