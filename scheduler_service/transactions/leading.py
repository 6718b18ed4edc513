"""Who ticks: one row with a holder, a term and a lease. A term belongs to one uninterrupted leadership.

Ticks and renewed leases of runs hold the row FOR KEY SHARE, so that the term is the same when they commit. A renewal changes
neither holder nor term: it takes FOR NO KEY UPDATE, and so never waits behind them. There is one link an executor, and
PostgreSQL lets each new sharer pass whoever waits for more: a renewal that did might wait for longer than its lease.
A change of holder takes FOR UPDATE and waits for all of them, as an override does.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import Leadership, Lock


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
    seen = await tx.leadership()
    renewing = seen.holder == holder
    if not renewing and _is_held(seen, tx.now, lease):
        return seen
    leader = await tx.leadership(Lock.NO_KEY_UPDATE if renewing else Lock.UPDATE)
    # Our time is that of before the wait: what another has written since is looked at by the next call.
    if leader.holder != holder and (renewing or leader != seen):
        return leader
    term = leader.term if leader.holder == holder else leader.term + 1
    mine = Leadership(holder, address, term, tx.now + lease, tick_success_time or leader.tick_success_time, tick_error)
    await tx.save_leadership(mine)
    return mine


def _is_held(leader: Leadership, now: datetime, lease: timedelta) -> bool:
    return leader.lease_until is not None and now < leader.lease_until <= now + 2 * lease


async def resign(tx: Transaction, holder: UUID) -> None:
    """Gives the lease back at once, if it is this holder's."""
    leader = await tx.leadership(Lock.UPDATE)
    if leader.holder == holder:
        await tx.save_leadership(replace(leader, holder=None, address="", lease_until=tx.now))
