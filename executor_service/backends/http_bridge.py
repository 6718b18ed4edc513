"""Runs tasks behind an HTTP bridge: `POST {EXECUTOR_BRIDGE_URL}/trigger-cecelia` starts them, and their ends come by callback.

The bridge is the reference's (reference.md 2.8): it answers as soon as it has launched the command, reports the end to the
scheduler's execution-callback under our run id (sent as `checkpoint_id`), and can neither be asked for a run nor told to end one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from executor_service.backends.http_call import JsonCaller, wrong_url
from executor_service.backends.in_process import Calls
from executor_service.backends.replies import Reply, lost
from executor_service.core.run import BackendKind, EndReport, RunOutcome, RunSpec, StartReport, StartVerdict
from executor_service.runs.folders import fresh_folder
from executor_service.runs.ports import Reporter
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)

NAME = "cecelia-run"
TOTAL_S = 30.0
TRIGGERED = "triggered.json"


def _launched(_data: Mapping[str, Any]) -> Reply:
    return Reply(StartReport(StartVerdict.SUCCESS), None)


class HttpBridge:
    """The backend `cecelia-run` where a bridge runs the command; it is on the same machine, whose slots gate it."""

    name = NAME
    kind = BackendKind.PER_EXECUTOR
    local = True
    outlives_executor = True
    max_runs = 0
    ends_by_callback = True

    def __init__(self, url: str, clock: Clock, *, total_s: float = TOTAL_S) -> None:
        self._caller = JsonCaller(url, clock, total_s=total_s)
        self._calls = Calls()
        self._clock = clock
        self._ends: dict[str, asyncio.Future[EndReport]] = {}

    def check_configuration(self) -> str:
        """What is wrong with the URL; '' when nothing is."""
        return wrong_url("EXECUTOR_BRIDGE_URL", self._caller.url)

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:
        """Makes the folder in which the launch will be noted; the bridge writes its own files."""
        fresh_folder(run_dir)

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        """Triggers the bridge; then waits until the scheduler, which the bridge reports to, says that the run is over."""
        begun = self._clock.now()
        reply: Reply = await self._calls.carry_out(spec, self._caller.post("/trigger-cecelia", _order(spec), "ok", _launched))
        if reply.end is None:
            # Written before the verdict is told: after a restart a run that was reported as begun must be found again.
            _note_launch(run_dir, begun + spec.timeout)
        reporter.started(reply.start)
        return reply.end or await self._until_ended(spec, begun + spec.timeout)

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        """Waits on for a run that the bridge had launched; of another one, nobody can say what became of the call."""
        try:
            deadline = datetime.fromisoformat(json.loads((run_dir / TRIGGERED).read_bytes())["deadline"])
        except (OSError, ValueError, KeyError, TypeError):
            reply = lost("the executor stopped before the bridge's answer was noted")
            reporter.started(reply.start)
            return reply.end
        reporter.started(StartReport(StartVerdict.SUCCESS))
        return await self._until_ended(spec, deadline)

    async def _until_ended(self, spec: RunSpec, deadline: datetime) -> EndReport:
        end = self._ends.setdefault(spec.run_id, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(max(0.0, (deadline - self._clock.now()).total_seconds())):
                return await end
        except TimeoutError:
            text = f"the bridge reported no end within {spec.timeout.total_seconds():g} s; the command may still run there"
            return EndReport(RunOutcome.TIMED_OUT, error=text)
        finally:
            self._ends.pop(spec.run_id, None)

    async def make_sure_gone(self, spec: RunSpec, run_dir: Path) -> None:
        """Nothing that could be done: a bridge cannot be told to end a run."""

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        """Lets go of the run. The scheduler asks for this also when the callback has told it the end."""
        end = self._ends.get(spec.run_id)
        if end is None:
            self._calls.break_off(spec.run_id, reason)
        elif not end.done():
            end.set_result(EndReport(RunOutcome.CANCELLED, error=f"{reason}; a bridge cannot be told to end a command"))

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:
        """Nothing: what runs behind the bridge knows no lease."""

    async def close(self) -> None:
        """Closes connections; what was launched goes on behind the bridge."""
        await self._caller.close()


def _note_launch(run_dir: Path, deadline: datetime) -> None:
    try:
        (run_dir / TRIGGERED).write_text(json.dumps({"deadline": deadline.isoformat()}), encoding="utf-8")
    except OSError as error:
        # The command runs; only a restart of the executor before its end would not know.
        _log.error("launch_not_noted", run_id=run_dir.name, error=str(error))


def _order(spec: RunSpec) -> dict[str, Any]:
    """The body of the call, under the reference's names."""
    repo_path = spec.payload.get("repo_path")
    skill_env = spec.payload.get("skill_env")
    return {
        "task_id": spec.task_id,
        "checkpoint_id": spec.run_id,
        "prompt": f"{spec.title}\n\n{spec.description}",
        "task_type": spec.task_type,
        "permission_mode": spec.permission_mode,
        "repo_path": repo_path if isinstance(repo_path, str) else "",
        "model": spec.model,
        "provider": spec.provider,
        **({"extra_env": {str(k): str(v) for k, v in skill_env.items()}} if isinstance(skill_env, Mapping) else {}),
    }
