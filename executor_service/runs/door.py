"""The door: may a run come in now, and if not, why not? Looks at what is known here and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime

import msgspec
from msgspec.structs import replace

from executor_service.core.admission import NO_SAMPLE
from executor_service.core.reservation import LocalRun, Room
from executor_service.core.run import RunRecord, RunSpec, RunState
from executor_service.runs.ports import Backend, Resources
from executor_service.runs.table import RunTable


class CallerIdentity(msgspec.Struct, frozen=True):
    """Who calls: the cluster and its leader's term, and the boot and stamp that it has last seen ('' and 0: a local caller)."""

    cluster_id: str = ""
    term: int = 0
    boot_id: str = ""
    stamp: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What became of one run of a batch; `reason` is '' when accepted."""

    run_id: str
    accepted: bool
    reason: str = ""
    detail: str = ""


class Door:
    """Decides over the records that the manager keeps. `now_stamp` gives CLOCK_BOOTTIME in nanoseconds."""

    def __init__(
        self,
        runs: RunTable,
        refused: AbstractSet[str],
        backends: Mapping[str, Backend],
        resources: Resources,
        boot_id: str,
        now_stamp: Callable[[], int],
    ) -> None:
        self._runs = runs
        self._refused = refused
        self._backends = backends
        self._resources = resources
        self._boot_id = boot_id
        self._now_stamp = now_stamp
        self.draining = False
        self.not_offered: set[str] = set()
        """Backends that are here for their runs from before only."""

    def running(self, backend: str | None = None) -> int:
        """Live runs of a backend, or of all local ones."""
        if backend is not None:
            return self._runs.live_on(backend)
        return sum(self._runs.live_on(name) for name, one in self._backends.items() if one.local)

    def local_runs(self) -> list[LocalRun]:
        """The live runs of local backends."""
        local = {name for name, one in self._backends.items() if one.local}
        return [LocalRun(record.spec.run_id, record.accept_time) for record in self._runs.live if record.spec.backend in local]

    def room(self, let_in: Sequence[LocalRun] = ()) -> Room:
        """How many local runs may be under way at once, with those that are let in and not journalled yet."""
        return self._resources.room([*self.local_runs(), *let_in])

    def misconfigured(self, backend: Backend) -> str:
        """What is wrong with how a backend is set up, in words; '' when nothing is."""
        if backend.name in self.not_offered:
            return "EXECUTOR_BACKENDS does not name it; only its runs from before are looked after"
        return backend.check_configuration()

    def availability(self, backend: Backend) -> tuple[str, str]:
        """Why a backend could take no run now, as code and words; two empty texts when it could."""
        wrong = self.misconfigured(backend)
        if wrong:
            return "config_error", wrong
        if self.draining:
            return "draining", "the executor takes no new runs"
        return Sitting(self, CallerIdentity(), datetime.min).full(backend)

    def known(self, spec: RunSpec) -> Answer | None:
        """The answer to a run that has been here before, or was cancelled before it came; None for a new one."""
        if spec.run_id in self._refused:
            return Answer(spec.run_id, False, "refused", "the run was cancelled before it was seen")
        known = self._runs.get(spec.run_id)
        if known is None:
            return None
        if replace(known.spec, lease_ttl=spec.lease_ttl) != spec:
            return Answer(spec.run_id, False, "config_error", "another run has this run_id")
        return Answer(spec.run_id, True)

    def backend(self, name: str) -> Backend | None:
        """A backend by its name."""
        return self._backends.get(name)

    def live_of_task(self, task_id: str) -> str | None:
        """The run of a task that is under way here."""
        return self._runs.live_of_task(task_id)

    def age_ns(self, caller: CallerIdentity) -> int | None:
        """How old the caller's stamp is; None when it is of another boot."""
        return None if caller.boot_id != self._boot_id else self._now_stamp() - caller.stamp


class Sitting:
    """One batch at the door. What is asked of a backend and of the machine is asked once, and the room is counted down."""

    def __init__(self, door: Door, caller: CallerIdentity, now: datetime) -> None:
        self._door = door
        self._now = now
        # A paused caller that wakes up must not take an old view for fresh: see design.md section 3.
        self._aged = bool(caller.boot_id)
        self._age_ns = door.age_ns(caller)
        self._wrong: dict[str, str] = {}
        self._used: dict[str, int] = {}
        self._tasks: dict[str, str] = {}
        self._local: list[LocalRun] = []
        self._room: Room | None = None
        self.let_in: list[RunRecord] = []
        """The new runs that may begin."""

    def decide(self, spec: RunSpec) -> Answer:
        """The answer to the next run of the batch; one that is let in counts for those behind it."""
        known = self._door.known(spec)
        if known is not None:
            return known
        backend = self._door.backend(spec.backend)
        if backend is None:
            return Answer(spec.run_id, False, "config_error", f"there is no backend {spec.backend!r} here")
        reason, detail = self._refusal(spec, backend)
        if reason:
            return Answer(spec.run_id, False, reason, detail)
        self._tasks[spec.task_id] = spec.run_id
        self._used[spec.backend] = self._in_use(spec.backend) + 1
        if backend.local:
            self._local.append(LocalRun(spec.run_id, self._now))
        self.let_in.append(RunRecord(spec, RunState.ACCEPTED, self._now))
        return Answer(spec.run_id, True)

    def _refusal(self, spec: RunSpec, backend: Backend) -> tuple[str, str]:
        stale = self._stale(spec)
        if stale:
            return "stale_request", stale
        if self._door.draining:
            return "draining", "the executor takes no new runs"
        if backend.name not in self._wrong:
            self._wrong[backend.name] = self._door.misconfigured(backend)
        if self._wrong[backend.name]:
            return "config_error", self._wrong[backend.name]
        other = self._door.live_of_task(spec.task_id) or self._tasks.get(spec.task_id)
        if other is not None:
            return "already_running", f"run {other} of this task is under way here"
        return self.full(backend)

    def _stale(self, spec: RunSpec) -> str:
        if not self._aged:
            return ""
        if self._age_ns is None:
            return "the stamp is of another boot"
        limit = int(spec.lease_ttl.total_seconds() * 1e9) // 4
        stale = limit and self._age_ns > limit
        return f"the stamp is {self._age_ns / 1e9:.1f} s old; at most {limit / 1e9:.1f} s count" if stale else ""

    def full(self, backend: Backend) -> tuple[str, str]:
        """Why there is no room for another run of a backend, as code and words; two empty texts when there is."""
        if backend.local:
            found = self._machine()
            if found.reason == NO_SAMPLE:
                return NO_SAMPLE, "there is no fresh resource sample"
            if found.reason:
                return "server_overloaded", found.reason
        used = self._in_use(backend.name)
        if backend.max_runs and used >= backend.max_runs:
            return "server_overloaded", f"{used} of {backend.max_runs} runs are under way"
        return "", ""

    def _in_use(self, backend: str) -> int:
        if backend not in self._used:
            self._used[backend] = self._door.running(backend)
        return self._used[backend]

    def _machine(self) -> Room:
        """Whether the machine has room for one more. Each run takes one of the slots; asked again only to say what is short."""
        room = self._room
        if room is None or (not room.reason and self._door.running() + len(self._local) >= room.slots):
            room = self._room = self._door.room(self._local)
        return room
