"""The MiniMax service: `POST {HK_MINIMAX_URL}/execute`; the answer is the work, so its verdict is the run's end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executor_service.backends.http_call import JsonCaller, Reply, lost, wrong_url
from executor_service.core.run import EndReport, RunOutcome, RunSpec, StartReport, StartVerdict
from executor_service.runs.ports import Reporter
from executor_service.settings import ExecutorSettings
from service_runtime.clock import Clock, SystemClock

NAME = "hk-minimax"
TOTAL_S = 120.0


def _work(data: Mapping[str, Any]) -> Reply:
    result = data.get("result", "")
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    usage = data.get("usage")
    return Reply(
        StartReport(StartVerdict.SUCCESS),
        EndReport(RunOutcome.COMPLETED, result=text, usage=usage if isinstance(usage, dict) else {}),
    )


class MiniMax:
    """The backend `hk-minimax`. `total_s` bounds a whole call, whatever the service does."""

    name = NAME
    local = False
    ends_by_callback = False

    def __init__(self, url: str, max_runs: int, clock: Clock, *, total_s: float = TOTAL_S) -> None:
        self.max_runs = max_runs
        self._caller = JsonCaller(url, clock, total_s=total_s, most=max_runs)

    def check_configuration(self) -> str:
        """What is wrong with the URL; '' when nothing is."""
        return wrong_url("HK_MINIMAX_URL", self._caller.url)

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:
        """Nothing: the answer is the work."""

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        """Makes the call and judges its answer."""
        body = {"id": spec.task_id, "title": spec.title, "description": spec.description, "task_type": spec.task_type}
        reply = await self._caller.post(spec, "/execute", body, "success", _work)
        reporter.started(reply.start)
        assert reply.end is not None
        return reply.end

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        """A call does not outlive the executor: its answer is gone."""
        reply = lost("the executor stopped while the call was under way")
        reporter.started(reply.start)
        assert reply.end is not None
        return reply.end

    async def make_sure_gone(self, spec: RunSpec, run_dir: Path) -> None:
        """Nothing: a call ends with `execute`."""

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        """Breaks the call off."""
        self._caller.break_off(spec.run_id, reason)

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:
        """Nothing: a call is far shorter than a lease, and ends with the executor."""

    async def close(self) -> None:
        """Closes connections."""
        await self._caller.close()


def create(settings: ExecutorSettings, environ: Mapping[str, str]) -> MiniMax:
    """The backend as configured."""
    return MiniMax(settings.hk_minimax_url, settings.hk_minimax_max_runs, SystemClock())
