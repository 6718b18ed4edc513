"""What the callback of an HTTP bridge says: its status words, each mapped to an outcome or refused.

The reference took every word but two for "still in progress" and so lost completions (incidents 38); here a word that
is not listed is an error of the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from uuid import UUID

from scheduler_service.core.run import Run, RunReport
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict

BILLING_CAP = "billing_cap"

CALLBACK_STATUSES: Mapping[str, tuple[OutcomeClass, str]] = MappingProxyType(
    {
        "AI Done": (OutcomeClass.COMPLETED, ""),
        "completed": (OutcomeClass.COMPLETED, ""),
        "success": (OutcomeClass.COMPLETED, ""),
        "AI Failed": (OutcomeClass.FAILED, ""),
        "failed": (OutcomeClass.FAILED, ""),
        "timeout": (OutcomeClass.TIMED_OUT, ""),
        "AI Quota Exhausted": (OutcomeClass.FAILED, BILLING_CAP),
    }
)
"""Status word to outcome and error class: the words of the reference's worker and of its later states."""


@dataclass(frozen=True, slots=True)
class Callback:
    """The end of a run as a bridge reports it. `run_id` is what we sent as `checkpoint_id`; `status` is a listed word."""

    run_id: UUID
    task_id: UUID
    status: str
    result: str = ""
    error: str = ""


def report_of(callback: Callback, run: Run) -> RunReport:
    """The callback as a report of its run. A run that has ended has started, whether its start was reported before or not."""
    outcome, error_class = CALLBACK_STATUSES[callback.status]
    failed = outcome is not OutcomeClass.COMPLETED
    return RunReport(
        run_id=run.run_id,
        task_id=run.task_id,
        fence=run.fence,
        live=False,
        verdict=run.verdict or StartVerdict.SUCCESS,
        outcome=outcome,
        result=callback.result,
        error=(callback.error or f"the bridge reported {callback.status}") if failed else "",
        error_class=error_class,
    )
