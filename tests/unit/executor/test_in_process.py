"""Work inside the executor: bounded by the task's time, ended by its cancellation, and never in the way when it will not end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from executor_service.backends import in_process
from executor_service.backends.in_process import InProcess
from executor_service.backends.replies import Ended, completed, failure, lost, neutral, task_failed
from executor_service.core.run import BackendKind, EndReport, RunOutcome, RunSpec, StartReport, StartVerdict

HERE = Path("unused")
SPEC = RunSpec("r", "t", 1, "A title", "", "dev", "own", {}, timedelta(hours=1), timedelta(0))
SHORT = replace(SPEC, timeout=timedelta(milliseconds=20))


class Own(InProcess):
    """Does what it was given; `stubborn`: how many cancellations it takes no notice of."""

    name = "own"
    kind = BackendKind.SHARED
    max_runs = 1

    def __init__(self, reply: Ended | Exception | None = None, *, stubborn: int = 0, let_go: bool = False) -> None:
        super().__init__()
        self._lets_go_late = let_go
        self._reply, self._stubborn = reply, stubborn
        self.told_to_end = False
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()

    async def work(self, spec: RunSpec) -> Ended:
        self.begun.set()
        if isinstance(self._reply, Exception):
            raise self._reply
        while self._reply is None:
            try:
                await self.let_go.wait()
                break
            except asyncio.CancelledError:
                self.told_to_end = True
                if self._lets_go_late:
                    self.let_go.set()
                self._stubborn -= 1
                if self._stubborn < 0:
                    raise
        return self._reply or completed("late")


class Reports:
    def __init__(self) -> None:
        self.seen: list[StartReport] = []

    def started(self, report: StartReport) -> None:
        self.seen.append(report)


async def run(backend: Own, spec: RunSpec = SPEC) -> tuple[StartReport, EndReport]:
    reports = Reports()
    async with asyncio.timeout(10):
        end = await backend.execute(spec, HERE, 0, reports)
    (start,) = reports.seen
    assert start.known_at_end
    return start, end


@pytest.mark.parametrize(
    ("reply", "verdict", "outcome"),
    [
        (completed("fine", {"tokens": 3}), StartVerdict.SUCCESS, RunOutcome.COMPLETED),
        (task_failed("will not do"), StartVerdict.SUCCESS, RunOutcome.FAILED_FOR_GOOD),
        (failure("is down"), StartVerdict.FAILURE, RunOutcome.NOT_STARTED),
        (neutral("auth", "no key", RunOutcome.NOT_STARTED), StartVerdict.NEUTRAL, RunOutcome.NOT_STARTED),
        (lost("who knows"), StartVerdict.NEUTRAL, RunOutcome.LOST),
    ],
)
async def test_a_reply_is_the_verdict_and_the_end(reply: Ended, verdict: StartVerdict, outcome: RunOutcome) -> None:
    start, end = await run(Own(reply))
    assert (start.verdict, end) == (verdict, reply.end)
    assert end.outcome is outcome


async def test_what_the_work_raises_is_the_run_managers() -> None:
    with pytest.raises(RuntimeError, match="as told"):
        await Own(RuntimeError("as told")).execute(SPEC, HERE, 0, Reports())


async def test_cancelled_it_ends_at_once() -> None:
    backend = Own()
    work = asyncio.ensure_future(run(backend))
    await backend.begun.wait()
    await backend.cancel(SPEC, HERE, "enough")
    start, end = await work
    assert (start.verdict, start.reason, end.outcome, end.error) == (
        StartVerdict.NEUTRAL,
        "cancelled",
        RunOutcome.CANCELLED,
        "enough",
    )


async def test_of_a_run_that_is_not_there_nothing_is_cancelled() -> None:
    backend = Own(completed("fine"))
    await backend.cancel(SPEC, HERE, "too early")
    assert (await run(backend))[1].outcome is RunOutcome.COMPLETED


async def test_work_that_is_done_when_it_is_cancelled_is_done() -> None:
    backend = Own(stubborn=1)
    work = asyncio.ensure_future(run(backend))
    await backend.begun.wait()
    await backend.cancel(SPEC, HERE, "enough")
    await asyncio.sleep(0)
    backend.let_go.set()
    assert (await work)[1].result == "late"


async def test_the_tasks_own_time_is_its_deadline() -> None:
    start, end = await run(Own(), SHORT)
    assert (start.verdict, start.reason, end.outcome) == (StartVerdict.NEUTRAL, "timed_out", RunOutcome.TIMED_OUT)
    assert end.error == "no answer within the task's 0.02 s"


async def test_work_that_does_not_let_go_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "LET_GO_S", 0.01)
    backend = Own(stubborn=1)
    _start, end = await run(backend, SHORT)
    assert end.outcome is RunOutcome.TIMED_OUT
    backend.let_go.set()
    await asyncio.sleep(0)


async def test_work_that_never_lets_go_is_left_where_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "LET_GO_S", 0.01)
    backend = Own(stubborn=2)
    with capture_logs() as logs:
        _start, end = await run(backend, SHORT)
    assert (end.outcome, backend.told_to_end) == (RunOutcome.TIMED_OUT, True)
    assert [line["event"] for line in logs] == ["work_does_not_end"]


async def test_work_that_fails_after_its_time_is_timed_out() -> None:
    class Late(Own):
        async def work(self, spec: RunSpec) -> Ended:
            await super().work(spec)
            raise RuntimeError("too late")

    with capture_logs() as logs:
        _start, end = await run(Late(stubborn=1, let_go=True), SHORT)
    assert end.outcome is RunOutcome.TIMED_OUT
    assert [(line["event"], line["error"]) for line in logs] == [("work_failed_after_its_time", "RuntimeError: too late")]


async def test_work_that_breaks_itself_off_is_cancelled_and_its_run_goes_on() -> None:
    class Off(Own):
        async def work(self, spec: RunSpec) -> Ended:
            raise asyncio.CancelledError

    start, end = await run(Off())
    assert (start.reason, end.outcome, end.error) == ("cancelled", RunOutcome.CANCELLED, "it broke itself off")


async def test_deadlines_of_the_work_itself_are_its_own() -> None:
    class Bounded(Own):
        async def work(self, spec: RunSpec) -> Ended:
            try:
                async with asyncio.timeout(0.01):
                    await self.let_go.wait()
            except TimeoutError:
                return failure("no answer")
            return completed("fine")

    assert (await run(Bounded()))[1].error == "no answer"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancelled_or_late_run_leaves_no_cancellation_to_who_waited() -> None:
    assert (await run(Own(), SHORT))[1].outcome is RunOutcome.TIMED_OUT
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_stop_of_the_executor_ends_the_work() -> None:
    backend = Own()
    work = asyncio.ensure_future(backend.execute(SPEC, HERE, 0, Reports()))
    await backend.begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await asyncio.sleep(0)
    assert backend.told_to_end


async def test_an_earlier_processes_work_is_lost() -> None:
    reports = Reports()
    end = await Own().reattach(SPEC, HERE, reports)
    assert (reports.seen[0].verdict, end.outcome) == (StartVerdict.NEUTRAL, RunOutcome.LOST)
