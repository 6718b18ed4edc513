"""The audit log: one entry for each override, in the transaction that carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import AuditEntry

AUDITED_METHODS = (
    "CancelTask",
    "CancelTasks",
    "ClearBillingPause",
    "RequeueTask",
    "RequeueTasks",
    "ResetBreaker",
    "ResetSetting",
    "SetBillingPause",
    "SetBudgetCap",
    "SetDrain",
    "SetSetting",
    "TripBreaker",
    "UpdateTask",
)
"""The rpcs that override something."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, why, and under which request_id."""

    actor: str
    reason: str
    request_id: str


async def audit(
    tx: Transaction, method: str, target: str, caller: Caller, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Appends an entry. `before` and `after` are JSON objects of what the override could change, under the same keys."""
    detail = {"before": dict(before), "after": dict(after)}
    await tx.append_audit(AuditEntry(tx.now, caller.actor, method, target, caller.reason, caller.request_id, detail))
