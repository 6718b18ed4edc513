"""The door: may a run come in now, and if not, why not? Looks at what is known here and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from executor_service.core.admission import NO_SAMPLE
from executor_service.core.reservation import LocalRun, Room
from executor_service.core.run import RunSpec
from executor_service.runs.ports import Backend, Resources
from executor_service.runs.table import RunTable


@dataclass(frozen=True, slots=True)
class CallerIdentity:
    """Who calls: the cluster and its leader's term, and the boot and stamp that it has last seen ('' and 0: a local caller)."""

    cluster_id: str = ""
    term: int = 0
    boot_id: str = ""
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
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

    def local_runs(self, runs: RunTable | None = None) -> list[LocalRun]:
        """The live runs of local backends, here or in another table."""
        local = {name for name, one in self._backends.items() if one.local}
        live = (self._runs if runs is None else runs).live
        return [LocalRun(record.spec.run_id, record.accept_time) for record in live if record.spec.backend in local]

    def room(self, pending: RunTable | None = None) -> Room:
        """How many local runs may be under way at once, with those that are let in and not journalled yet."""
        waiting = [] if pending is None else self.local_runs(pending)
        return self._resources.room([*self.local_runs(), *waiting])

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
        return self._room(backend, RunTable())

    def _room(self, backend: Backend, pending: RunTable) -> tuple[str, str]:
        if backend.local:
            found = self.room(pending)
            if found.reason == NO_SAMPLE:
                return NO_SAMPLE, "there is no fresh resource sample"
            if found.reason:
                return "server_overloaded", found.reason
        used = self.running(backend.name) + pending.live_on(backend.name)
        if backend.max_runs and used >= backend.max_runs:
            return "server_overloaded", f"{used} of {backend.max_runs} runs are under way"
        return "", ""

    def decide(self, spec: RunSpec, caller: CallerIdentity, pending: RunTable) -> Answer:
        """The answer to one run; `pending` are those of the same batch that were let in before it."""

        def rejected(reason: str, detail: str) -> Answer:
            return Answer(spec.run_id, False, reason, detail)

        if spec.run_id in self._refused:
            return rejected("refused", "the run was cancelled before it was seen")
        known = self._runs.get(spec.run_id)
        if known is not None:
            if replace(known.spec, lease_ttl=spec.lease_ttl) != spec:
                return rejected("config_error", "another run has this run_id")
            return Answer(spec.run_id, True)
        backend = self._backends.get(spec.backend)
        if backend is None:
            return rejected("config_error", f"there is no backend {spec.backend!r} here")
        stale = self._stale(spec, caller)
        if stale:
            return rejected("stale_request", stale)
        if self.draining:
            return rejected("draining", "the executor takes no new runs")
        wrong = self.misconfigured(backend)
        if wrong:
            return rejected("config_error", wrong)
        other = self._runs.live_of_task(spec.task_id) or pending.live_of_task(spec.task_id)
        if other is not None:
            return rejected("already_running", f"run {other} of this task is under way here")
        reason, detail = self._room(backend, pending)
        return rejected(reason, detail) if reason else Answer(spec.run_id, True)

    def _stale(self, spec: RunSpec, caller: CallerIdentity) -> str:
        """A paused caller that wakes up must not take an old view for fresh: see design.md section 3."""
        if not caller.boot_id:
            return ""
        if caller.boot_id != self._boot_id:
            return "the stamp is of another boot"
        age = self._now_stamp() - caller.stamp
        limit = int(spec.lease_ttl.total_seconds() * 1e9) // 4
        return f"the stamp is {age / 1e9:.1f} s old; at most {limit / 1e9:.1f} s count" if limit and age > limit else ""
