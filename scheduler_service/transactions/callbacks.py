"""The end of a run as an HTTP bridge reports it: recorded once, and only for a run whose ends come this way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler_service.core.callback import CALLBACK_STATUSES, Callback, report_of
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.run import Run, RunState
from scheduler_service.core.task import TaskStatus
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.recording import Recorded, record_reports
from service_runtime.errors import FailedPrecondition, NotFound


@dataclass(frozen=True, slots=True)
class CallbackResult:
    """`recorded` is None when the same end was stored before; `status` is the task's now."""

    recorded: Recorded | None
    status: TaskStatus


async def record_callback(
    tx: Transaction, callback: Callback, rules: DispatchRules, fraction: Callable[[], float]
) -> CallbackResult:
    """Records the end of a bridge's run; the same word again changes nothing.

    Raises NotFound for an unknown run, FailedPrecondition for one that is another task's, is over, or whose executor reports
    its end itself. What is refused changes nothing.
    """
    run = (await tx.runs([callback.run_id])).get(callback.run_id)
    if run is None or run.task_id not in await tx.tasks([run.task_id]):
        raise NotFound(f"no run has the id {callback.run_id}", reason="RUN_NOT_FOUND")
    if run.task_id != callback.task_id:
        raise FailedPrecondition(f"run {run.run_id} is not of task {callback.task_id}", reason="FOREIGN_RUN")
    if not await _ends_by_callback(tx, run):
        raise FailedPrecondition(
            f"the end of run {run.run_id} is reported by its executor {run.executor_id}", reason="NOT_A_BRIDGE_RUN"
        )
    if run.state is RunState.ENDED:
        if run.outcome is not CALLBACK_STATUSES[callback.status][0]:
            raise FailedPrecondition(f"run {run.run_id} has ended as {run.outcome} already", reason="RUN_ENDED")
        return CallbackResult(None, await _status(tx, run))
    recorded = await record_reports(tx, run.executor_id, [report_of(callback, run)], rules, fraction)
    return CallbackResult(recorded if recorded.ended else None, await _status(tx, run))


async def _ends_by_callback(tx: Transaction, run: Run) -> bool:
    """Whether the run's executor leaves the ends of this backend to callbacks, as it last said."""
    for row in await tx.executors():
        if row.executor_id == run.executor_id:
            return any(b["backend"] == run.backend and b.get("ends_by_callback") for b in row.snapshot["backends"])
    return False


async def _status(tx: Transaction, run: Run) -> TaskStatus:
    return (await tx.tasks([run.task_id]))[run.task_id].status
