"""Runs that are coroutines of the executor: calls to a service, mostly. One deadline bounds each, and each can be broken off."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import structlog

from executor_service.backends.replies import Ended, Reply, lost, neutral
from executor_service.core.run import BackendKind, EndReport, RunOutcome, RunSpec, StartReport
from executor_service.runs.ports import Reporter

_log = structlog.get_logger(__name__)
R = TypeVar("R", bound=Reply)

LET_GO_S = 5.0


class Calls:
    """The work under way, by run."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Call[Any]] = {}

    async def carry_out(self, spec: RunSpec, work: Coroutine[Any, Any, R]) -> R | Ended:
        """The reply of the work for a run; a neutral one when the task's own time is over or `break_off` ends it."""
        seconds = spec.timeout.total_seconds()
        call = _Call(work, seconds)
        self._under_way[spec.run_id] = call
        try:
            reply = await call
        except _LeftBehind:
            _log.error("work_does_not_end", task_id=spec.task_id, run_id=spec.run_id)
        except asyncio.CancelledError:
            if call.told_to_stop():
                raise
            if not call.timed_out:
                return neutral("cancelled", call.reason or "it broke itself off", RunOutcome.CANCELLED)
        except Exception as error:
            if not call.timed_out:
                raise
            told = f"{type(error).__name__}: {error}"
            _log.warning("work_failed_after_its_time", task_id=spec.task_id, run_id=spec.run_id, error=told)
        else:
            if not call.timed_out:
                return reply
        finally:
            del self._under_way[spec.run_id]
        return neutral("timed_out", f"no answer within the task's {seconds:g} s", RunOutcome.TIMED_OUT)

    def break_off(self, run_id: str, reason: str) -> bool:
        """Ends the work for a run; whether there is any."""
        call = self._under_way.get(run_id)
        if call is None:
            return False
        call.break_off(reason)
        return True


class _LeftBehind(Exception):
    """The work was cancelled, and goes on."""


class _Call(Generic[R]):
    """Work in the task of its run, which it cannot hold: cancelled at its deadline, it is left where it waits if it goes on.

    To be awaited: hands through what the work waits for. A task of its own for the work would do the same, and cost a short
    run as much as all the rest; work that never waits needs no deadline either.
    """

    def __init__(self, work: Coroutine[Any, Any, R], seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelled_by_us = 0
        self._left_behind = False
        self.timed_out = False
        self.reason = ""

    def __await__(self) -> Generator[Any, Any, R]:
        """The reply. Raises what the work raises, CancelledError, and _LeftBehind."""
        try:
            waits_for = self._work.send(None)
        except StopIteration as end:
            return cast(R, end.value)
        task = self._task = cast(asyncio.Task[Any], asyncio.current_task())  # whoever waits is one
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._time_over)
        try:
            return (yield from self._go_on(waits_for))
        finally:
            self._timer.cancel()
            for _ in range(self._cancelled_by_us):
                task.uncancel()

    def _go_on(self, waits_for: Any) -> Generator[Any, Any, R]:
        while True:
            error: BaseException | None = None
            value: Any = None
            try:
                value = yield waits_for
            except BaseException as thrown:
                if self._left_behind:
                    _close(self._work)
                    raise _LeftBehind from thrown
                error = thrown
            try:
                waits_for = self._work.send(value) if error is None else self._work.throw(error)
            except StopIteration as end:
                return cast(R, end.value)

    def _time_over(self) -> None:
        self.timed_out = True
        self._cancel()
        self._timer = asyncio.get_running_loop().call_later(LET_GO_S, self._leave_behind)

    def _leave_behind(self) -> None:
        self._left_behind = True
        self._cancel()

    def break_off(self, reason: str) -> None:
        """Cancels the work."""
        self.reason = reason
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None and self._task.cancel():
            self._cancelled_by_us += 1

    def told_to_stop(self) -> bool:
        """Whether somebody else has cancelled the run's task."""
        return self._task is not None and self._task.cancelling() > 0


def _close(work: Coroutine[Any, Any, Any]) -> None:
    """Ends work where it waits. What still waits in its `finally` is let be."""
    with contextlib.suppress(RuntimeError):
        work.close()


class InProcess(ABC):
    """A backend whose answer is the work. A subclass names itself, its kind and its limit, and writes `work`."""

    name: str
    kind: BackendKind | None
    max_runs: int
    local: bool = False
    outlives_executor = False
    ends_by_callback = False

    def __init__(self) -> None:
        self._calls = Calls()

    @abstractmethod
    async def work(self, spec: RunSpec) -> Ended:
        """Does the task and judges the answer (backends/replies.py). It must not block the event loop.

        It is cancelled when the run is, and when the task's time is over. What it raises loses the run and is nobody's failure.
        """

    def check_configuration(self) -> str:
        """What is wrong with the configuration; '' when nothing is."""
        return ""

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:  # noqa: B027 - a default
        """Nothing: the work needs no file."""

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        """Does the work; its verdict is known with its end."""
        return _told(await self._calls.carry_out(spec, self.work(spec)), reporter)

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        """The work does not outlive the executor: its answer is gone."""
        return _told(lost("the executor stopped while the call was under way"), reporter)

    async def make_sure_gone(self, spec: RunSpec, run_dir: Path) -> None:  # noqa: B027 - a default
        """Nothing: the work ends with `execute`."""

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        """Breaks the work off."""
        self._calls.break_off(spec.run_id, reason)

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:  # noqa: B027 - a default
        """Nothing: the work ends with the executor."""

    async def close(self) -> None:  # noqa: B027 - a default
        """Nothing to let go of."""


def _told(reply: Ended, reporter: Reporter) -> EndReport:
    start = reply.start
    reporter.started(StartReport(start.verdict, start.reason, start.detail, known_at_end=True))
    return reply.end
