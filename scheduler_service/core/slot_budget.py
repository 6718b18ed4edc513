"""Slots: how an executor's seats are divided between people, internal tasks and tasks, and what is left.

Pool B (user) = H + reserve; pool A (internal) = 1 while an internal task is queued or running and the mode is not
team; pool C (tasks) = min(max(0, N - B - A), slots that the pressure leaves). N: effective seats; H: headed sessions.
The formulas are the reference's (2.3). Where the executor would let in fewer, for what it has promised to runs that have not
grown yet, that is the bound: it would refuse the rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import replace

from scheduler_service.core.reasons import Reason

INTERACTIVE_RESERVE = 2
TEAM_SESSIONS = 3


class UserMode(StrEnum):
    """How much people use a machine: no headed session, one or two, three or more."""

    ABSENT = "absent"
    INTERACTIVE = "interactive"
    TEAM = "team"


class ExecutorCapacity(msgspec.Struct, frozen=True):
    """What one live executor last reported (`effective_seats` = max_seats, `sessions` = headed ones) and runs.

    `running_local` counts dispatching and running tasks of local backends that are not internal, from the database,
    `running_internal` the internal ones.
    """

    executor_id: str
    effective_seats: int
    slots_from_resources: int
    sessions: int
    running_local: int
    max_pressure: float
    running_internal: int = 0
    load: str = ""  # why it takes no further run, in its words
    admission_slots: int | None = None  # local runs that it lets be under way at once; None: it does not tell


class UserPool(msgspec.Struct, frozen=True):
    """Pool B: `used` is the sessions seen, `headroom` what is left for further ones."""

    budget: int
    used: int
    mode: UserMode
    headroom: int


class InternalPool(msgspec.Struct, frozen=True):
    """Pool A."""

    budget: int
    used: int


class TaskPool(msgspec.Struct, frozen=True):
    """Pool C."""

    budget: int
    used: int
    available: int


class Pools(msgspec.Struct, frozen=True):
    """The pools of one executor, or of all."""

    total_capacity: int
    user: UserPool
    internal: InternalPool
    task_pool: TaskPool
    max_pressure: float
    effective_slots: int
    load: str = ""

    @property
    def dispatch_allowed(self) -> bool:
        """Whether a local task may start as far as slots go."""
        return self.task_pool.available > 0


class Fleet(msgspec.Struct, frozen=True):
    """The pools of each executor by id, and of all; `total` is None while no executor has a sample."""

    executors: Mapping[str, Pools]
    total: Pools | None


def is_internal(payload: Mapping[str, Any]) -> bool:
    """Whether a task is internal: its payload has a `decomposition`, or `requires_cortex` is true."""
    return bool(payload.get("decomposition")) or payload.get("requires_cortex") is True


def user_mode(sessions: int) -> UserMode:
    """The mode for a number of headed sessions."""
    if sessions >= TEAM_SESSIONS:
        return UserMode.TEAM
    return UserMode.INTERACTIVE if sessions else UserMode.ABSENT


def compute_pools(capacity: ExecutorCapacity, internal_active: bool, reserve: int = INTERACTIVE_RESERVE) -> Pools:
    """The pools of one executor; `internal_active`: an internal task is queued, dispatching or running.

    Internal tasks beyond pool A's budget use pool C, so that they are bounded too; in the reference nothing does.
    """
    mode = user_mode(capacity.sessions)
    user_budget = capacity.sessions + reserve
    internal_budget = 1 if internal_active and mode is not UserMode.TEAM else 0
    left = max(0, capacity.effective_seats - user_budget - internal_budget)
    offered = capacity.slots_from_resources
    if capacity.admission_slots is not None:
        offered = min(offered, capacity.admission_slots)
    budget = min(left, max(0, offered))
    used = capacity.running_local + max(0, capacity.running_internal - internal_budget)
    return Pools(
        total_capacity=capacity.effective_seats,
        user=UserPool(user_budget, capacity.sessions, mode, user_budget - capacity.sessions),
        internal=InternalPool(internal_budget, capacity.running_internal),
        task_pool=TaskPool(budget, used, max(0, budget - used)),
        max_pressure=capacity.max_pressure,
        effective_slots=capacity.slots_from_resources,
        load=capacity.load if offered <= 0 else "",
    )


def sum_pools(pools: Iterable[Pools]) -> Pools | None:
    """The sum over executors, None of nothing.

    `team` only if every executor is in it: one crowded machine does not explain why another is full. What is free is
    the sum of what is free on each, as an overfull machine takes nothing from the others.
    """
    parts = list(pools)
    if not parts:
        return None
    modes = {part.user.mode for part in parts}
    mode = modes.pop() if len(modes) == 1 else UserMode.INTERACTIVE
    return Pools(
        total_capacity=sum(part.total_capacity for part in parts),
        user=UserPool(
            sum(part.user.budget for part in parts),
            sum(part.user.used for part in parts),
            mode,
            sum(part.user.headroom for part in parts),
        ),
        internal=InternalPool(sum(part.internal.budget for part in parts), sum(part.internal.used for part in parts)),
        task_pool=TaskPool(
            sum(part.task_pool.budget for part in parts),
            sum(part.task_pool.used for part in parts),
            sum(part.task_pool.available for part in parts),
        ),
        max_pressure=max(part.max_pressure for part in parts),
        effective_slots=sum(part.effective_slots for part in parts),
        load="; ".join(dict.fromkeys(part.load for part in parts if part.load)),
    )


def cap_task_pool(pools: Pools, budget_cap: int | None) -> Pools:
    """The pools under the operator's ceiling on task slots; a ceiling above the physical one changes nothing."""
    if budget_cap is None or budget_cap >= pools.task_pool.budget:
        return pools
    pool = pools.task_pool
    return replace(
        pools,
        task_pool=TaskPool(budget_cap, pool.used, min(pool.available, max(0, budget_cap - pool.used))),
    )


def compute_fleet(
    capacities: Sequence[ExecutorCapacity],
    internal_active: bool,
    reserve: int = INTERACTIVE_RESERVE,
    budget_cap: int | None = None,
) -> Fleet:
    """The pools of every executor that has a sample, and their sum under the operator's ceiling.

    Pool A is set aside once, on the executor with the most seats, not on each. A start needs room on its executor and
    in the total.
    """
    home = max(capacities, key=lambda c: (c.effective_seats, c.executor_id), default=None)
    executors = {
        capacity.executor_id: compute_pools(capacity, internal_active and capacity is home, reserve) for capacity in capacities
    }
    total = sum_pools(executors.values())
    return Fleet(MappingProxyType(executors), None if total is None else cap_task_pool(total, budget_cap))


def hold_reason(pools: Pools | None) -> Reason | None:
    """Why no local task may start, None when one may. A missing sample means refuse, not no pressure."""
    if pools is None:
        return Reason.POOL_EXHAUSTED
    if pools.dispatch_allowed:
        return None
    if pools.user.mode is UserMode.TEAM:
        return Reason.USER_TEAM_MODE
    return Reason.POOL_EXHAUSTED if pools.task_pool.budget == 0 else Reason.POOL_C_FULL
