"""Runs that are coroutines of the executor: calls to a service, mostly. One deadline bounds each, and each can be broken off."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from executor_service.backends.replies import Ended, Reply, lost, neutral
from executor_service.core.run import BackendKind, EndReport, RunOutcome, RunSpec
from executor_service.runs.ports import Reporter

_log = structlog.get_logger(__name__)
R = TypeVar("R", bound=Reply)

LET_GO_S = 5.0


class Calls:
    """The work under way, by run."""

    def __init__(self) -> None:
        self._work: dict[str, asyncio.Task[Any]] = {}
        self._reasons: dict[str, str] = {}

    async def carry_out(self, spec: RunSpec, work: Coroutine[Any, Any, R]) -> R | Ended:
        """The reply of the work for a run; a neutral one when the task's own time is over or `break_off` ends it."""
        call = asyncio.get_running_loop().create_task(work)
        self._work[spec.run_id] = call
        seconds = spec.timeout.total_seconds()
        try:
            await asyncio.wait({call}, timeout=seconds)
            in_time = call.done()
            if not in_time:
                call.cancel()
                # What does not let go must not hold its run for ever.
                await asyncio.wait({call}, timeout=LET_GO_S)
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            self._work.pop(spec.run_id, None)
            reason = self._reasons.pop(spec.run_id, None)
        if not in_time:
            _note_what_was_left(call, spec)
            return neutral("timed_out", f"no answer within the task's {seconds:g} s", RunOutcome.TIMED_OUT)
        if call.cancelled():
            return neutral("cancelled", reason or "it broke itself off", RunOutcome.CANCELLED)
        return call.result()

    def break_off(self, run_id: str, reason: str) -> bool:
        """Ends the work for a run; whether there is any."""
        call = self._work.get(run_id)
        if call is None:
            return False
        self._reasons[run_id] = reason
        call.cancel()
        return True


def _note_what_was_left(call: asyncio.Task[Any], spec: RunSpec) -> None:
    if not call.done():
        _log.error("work_does_not_end", task_id=spec.task_id, run_id=spec.run_id)
    elif not call.cancelled() and (error := call.exception()) is not None:
        told = f"{type(error).__name__}: {error}"
        _log.warning("work_failed_after_its_time", task_id=spec.task_id, run_id=spec.run_id, error=told)


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
    reporter.started(replace(reply.start, known_at_end=True))
    return reply.end
