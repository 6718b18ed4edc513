"""A backend as the rest of the executor may rely on it: what somebody else's code raises becomes ours, or a line in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import structlog

from executor_service.core.run import BackendKind, EndReport, RunOutcome, RunSpec, StartReport, StartVerdict
from executor_service.errors import BackendError
from executor_service.runs.ports import Backend, Reporter

_log = structlog.get_logger(__name__)

CLOSE_S = 5.0
INT32_MAX = 2**31 - 1


class _Checked:
    """Takes in start verdicts that can be told."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def started(self, report: StartReport) -> None:
        if not isinstance(report, StartReport) or not isinstance(report.verdict, StartVerdict):
            raise TypeError(f"{report!r:.200} is no start verdict; must be a StartReport with a StartVerdict")
        self._reporter.started(report)


class Plugged:
    """A backend around another. What `execute` and `reattach` raise is the run manager's: it loses the run."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        # Read once: what a backend is must not change under those who count on it.
        self.name: str = inner.name
        self.kind: BackendKind | None = inner.kind
        self.local: bool = inner.local
        self.max_runs: int = inner.max_runs
        self.outlives_executor: bool = inner.outlives_executor
        self.ends_by_callback: bool = inner.ends_by_callback
        self.process_control = str(getattr(inner, "process_control", ""))
        """What holds the processes of its runs together; '' where there are none here."""

    def check_configuration(self) -> str:
        """What is wrong with the configuration, a check that fails included."""
        try:
            return str(self._inner.check_configuration())
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and the other backends are to be answered for
            return f"its check of the configuration failed: {type(error).__name__}: {error}"

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:
        """Prepares the run. Raises BackendError and OSError."""
        try:
            self._inner.prepare(spec, run_dir)
        except (BackendError, OSError):
            raise
        except Exception as error:
            raise BackendError(f"{self.name} cannot prepare it: {type(error).__name__}: {error}") from error

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        """Begins the run and returns its end."""
        return self._an_end(await self._inner.execute(spec, run_dir, lease_from, _Checked(reporter)))

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        """The end of a run of an earlier process."""
        return self._an_end(await self._inner.reattach(spec, run_dir, _Checked(reporter)))

    def _an_end(self, end: object) -> EndReport:
        """The end, if it could be stored and sent once it is tidied. Raises TypeError."""
        if not isinstance(end, EndReport) or not isinstance(end.outcome, RunOutcome):
            raise TypeError(f"{self.name} gave {end!r:.200} for the end of a run; must be an EndReport with a RunOutcome")
        for code in (end.exit_code, end.signal):
            if code is not None and (not isinstance(code, int) or abs(code) > INT32_MAX):
                raise TypeError(f"{self.name} gave {code!r:.200} for an exit status or signal; must be a whole number or None")
        for text in (end.result, end.error, end.error_class):
            if not isinstance(text, str):
                raise TypeError(f"{self.name} gave {text!r:.200} for a text of the end of a run; must be a str")
        if end.retry_time is not None and (not isinstance(end.retry_time, datetime) or end.retry_time.utcoffset() is None):
            raise TypeError(f"{self.name} gave {end.retry_time!r:.200} for a retry time; must be a datetime with a time zone")
        if not isinstance(end.usage, Mapping):
            raise TypeError(f"{self.name} gave {end.usage!r:.200} for the usage; must be a mapping of figures")
        return end

    async def make_sure_gone(self, spec: RunSpec, run_dir: Path) -> None:
        """Ends whatever there is of a run; what it raises is the run manager's."""
        await self._inner.make_sure_gone(spec, run_dir)

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        """Asks for the run's end; one that cannot be asked for is logged, for the caller has other runs to end."""
        try:
            await self._inner.cancel(spec, run_dir, reason)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            _log.error("run_not_cancelled", backend=self.name, task_id=spec.task_id, run_id=spec.run_id, exc_info=error)

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:
        """The lease counts from this stamp now. Raises BackendError."""
        try:
            self._inner.renew(spec, run_dir, lease_from)
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"{self.name} cannot note the lease: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Lets go of connections, within 5 s."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._inner.close()
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and the others are to be closed too
            _log.error("backend_not_closed", backend=self.name, exc_info=error)
