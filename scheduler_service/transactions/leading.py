"""Who ticks: one row with a holder, a term and a lease. A term belongs to one uninterrupted leadership."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler_service.transactions.ports import Leadership, Lock, Transaction


async def acquire_or_renew(
    tx: Transaction,
    holder: UUID,
    address: str,
    lease: timedelta,
    *,
    tick_success_time: datetime | None = None,
    tick_error: str = "",
) -> Leadership:
    """Renews the lease of `holder`, or takes it over when it has run out; returns the row as it is then.

    A lease that ends later than two leases from now was written by a clock that has since gone back: it counts as run out.
    """
    leader = await tx.leadership(Lock.UPDATE)
    until = leader.lease_until
    held = until is not None and tx.now < until <= tx.now + 2 * lease
    if held and leader.holder != holder:
        return leader
    term = leader.term if leader.holder == holder else leader.term + 1
    mine = Leadership(holder, address, term, tx.now + lease, tick_success_time or leader.tick_success_time, tick_error)
    await tx.save_leadership(mine)
    return mine


async def resign(tx: Transaction, holder: UUID) -> None:
    """Gives the lease back at once, if it is this holder's."""
    leader = await tx.leadership(Lock.UPDATE)
    if leader.holder == holder:
        await tx.save_leadership(replace(leader, holder=None, address="", lease_until=tx.now))
