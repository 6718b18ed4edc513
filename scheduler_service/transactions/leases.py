"""Leases of runs: extended here before any executor hears of it, and given up here when they have certainly run out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.run import Run, RunState
from scheduler_service.errors import NotLeader
from scheduler_service.transactions.gathering import lease_until_give_up
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import Lock, RunLease


@dataclass(frozen=True, slots=True)
class Renewal:
    """The runs of one executor whose lease was extended, and those that are to be ended."""

    run_ids: tuple[UUID, ...]
    end_runs: tuple[UUID, ...]


async def require_leadership(tx: Transaction, holder: UUID, term: int) -> None:
    """Raises NotLeader unless this holder leads under this term; keeps it so until the commit."""
    leader = await tx.leadership(Lock.KEY_SHARE)
    if leader.holder != holder or leader.term != term:
        raise NotLeader(leader.address)


async def extend_leases(
    tx: Transaction, holder: UUID, term: int, executor_id: str, rules: DispatchRules, disowned: Collection[UUID] = ()
) -> Renewal:
    """Extends the lease of every live run of an executor. The commit comes before the executor is told.

    `disowned` runs it does not know, though it had accepted them: their leases run out, as nobody can end them any more.
    """
    await require_leadership(tx, holder, term)
    runs = [run for run in await tx.live_runs(executor_id) if run.run_id not in disowned]
    # Locked through their tasks, as every change of a run is.
    tasks = await tx.tasks({run.task_id for run in runs}, Lock.UPDATE)
    current = {run.run_id: run for run in (await tx.runs([run.run_id for run in runs])).values()}
    until = tx.now + lease_until_give_up(rules)
    kept: list[Run] = []
    ending: list[UUID] = []
    for run in current.values():
        task = tasks.get(run.task_id)
        if run.state is RunState.ENDED or order_is_stale(run, tx.now, rules):
            continue
        if task is None or task.run_id != run.run_id or task.cancel_requested:
            ending.append(run.run_id)
        if task is not None and task.run_id == run.run_id:
            kept.append(replace(run, lease_until=until, renew_seq=run.renew_seq + 1))
    await tx.save_runs(kept)
    return Renewal(tuple(run.run_id for run in kept), tuple(ending))


def order_is_stale(run: Run, now: datetime, rules: DispatchRules) -> bool:
    """Whether a claim has been unanswered for a quarter of its lease: it is then called off instead of sent again.

    Its lease is not extended either, so that it ends whatever the executor says.
    """
    return run.state is RunState.DISPATCHING and now - run.claim_time > rules.lease_ttl / 4


def has_run_out(lease: RunLease, now: datetime, rules: DispatchRules) -> bool:
    """Whether a lease has run out by the database's clock; the caller adds its own clock's word before giving the run up.

    One longer than any that could have been given was written before the clock went back: it says nothing.
    """
    return lease.lease_until is not None and not now < lease.lease_until <= now + lease_until_give_up(rules)
