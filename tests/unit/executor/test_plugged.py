"""What a plug-in raises or returns that nobody could foresee becomes something that the executor can go on with."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from executor_service.backends.in_process import InProcess
from executor_service.backends.plugged import Plugged
from executor_service.backends.replies import Ended
from executor_service.core.run import BackendKind, EndReport, RunOutcome, RunSpec, StartReport, StartVerdict
from executor_service.errors import BackendError
from executor_service.runs.ports import Reporter

HERE = Path("unused")
SPEC = RunSpec("r", "t", 1, "A title", "", "dev", "wild", {}, timedelta(hours=1), timedelta(0))


class Wild(InProcess):
    """Raises in every method; `execute` gives `end`, after it has told `start`."""

    name = "wild"
    kind = BackendKind.SHARED
    max_runs = 1

    def __init__(self, end: Any = None, start: Any = None, error: Exception | None = None) -> None:
        super().__init__()
        self._end, self._start, self._error = end, start, error or RuntimeError("as told")

    async def work(self, spec: RunSpec) -> Ended:
        raise self._error

    def check_configuration(self) -> str:
        raise self._error

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:
        raise self._error

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        if self._start is not None:
            reporter.started(self._start)
        return self._end  # type: ignore[no-any-return]  # whatever the test gives

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        return await self.execute(spec, run_dir, 0, reporter)

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        raise self._error

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:
        raise self._error

    async def close(self) -> None:
        raise self._error


class Reports:
    def __init__(self) -> None:
        self.seen: list[StartReport] = []

    def started(self, report: StartReport) -> None:
        self.seen.append(report)


def test_a_check_that_fails_is_what_is_wrong() -> None:
    assert Plugged(Wild()).check_configuration() == "its check of the configuration failed: RuntimeError: as told"


def test_what_prepare_and_renew_raise_is_the_backends_error() -> None:
    backend = Plugged(Wild())
    with pytest.raises(BackendError, match="wild cannot prepare it: RuntimeError: as told"):
        backend.prepare(SPEC, HERE)
    with pytest.raises(BackendError, match="wild cannot note the lease: RuntimeError: as told"):
        backend.renew(SPEC, HERE, 0)


def test_a_full_disk_stays_one() -> None:
    with pytest.raises(OSError, match="full"):
        Plugged(Wild(error=OSError("full"))).prepare(SPEC, HERE)


async def test_cancel_and_close_never_raise() -> None:
    backend = Plugged(Wild())
    await backend.cancel(SPEC, HERE, "why")
    await backend.close()


NO_ENDS: list[Any] = [
    None,
    "done",
    EndReport("completed"),  # type: ignore[arg-type]  # a plug-in without types
    EndReport(RunOutcome.COMPLETED, result=5),  # type: ignore[arg-type]
    EndReport(RunOutcome.FAILED, error=None),  # type: ignore[arg-type]
    EndReport(RunOutcome.FAILED, exit_code="1"),  # type: ignore[arg-type]
    EndReport(RunOutcome.FAILED, exit_code=2**31),
    EndReport(RunOutcome.FAILED, signal="KILL"),  # type: ignore[arg-type]
    EndReport(RunOutcome.FAILED, retry_time=datetime(2030, 1, 1)),
    EndReport(RunOutcome.COMPLETED, usage=["tokens"]),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("end", NO_ENDS)
async def test_an_end_that_cannot_be_told_is_refused(end: Any) -> None:
    backend = Plugged(Wild(end))
    with pytest.raises((TypeError, AttributeError)):
        await backend.execute(SPEC, HERE, 0, Reports())
    with pytest.raises((TypeError, AttributeError)):
        await backend.reattach(SPEC, HERE, Reports())


@pytest.mark.parametrize("start", ["success", StartReport("success")])  # type: ignore[arg-type]
async def test_a_verdict_that_cannot_be_told_is_refused(start: Any) -> None:
    reports = Reports()
    with pytest.raises(TypeError, match="StartVerdict"):
        await Plugged(Wild(EndReport(RunOutcome.COMPLETED), start)).execute(SPEC, HERE, 0, reports)
    assert reports.seen == []


async def test_what_is_right_goes_through() -> None:
    end, start, reports = EndReport(RunOutcome.COMPLETED, result="fine"), StartReport(StartVerdict.SUCCESS), Reports()
    assert await Plugged(Wild(end, start)).execute(SPEC, HERE, 0, reports) == end
    assert reports.seen == [start]


def test_a_backend_that_forgets_its_work_is_not_made() -> None:
    class Idle(InProcess):
        name, kind, max_runs = "idle", BackendKind.SHARED, 1

    with pytest.raises(TypeError, match="work"):
        Idle()  # type: ignore[abstract]  # that is the test
