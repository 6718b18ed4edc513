"""The pools: the reference's arithmetic, its reasons, and the sum over executors."""

from typing import Any

import pytest
from msgspec.structs import replace

from scheduler_service.core.reasons import Reason
from scheduler_service.core.slot_budget import (
    ExecutorCapacity,
    Pools,
    UserMode,
    cap_task_pool,
    compute_fleet,
    compute_pools,
    hold_reason,
    is_internal,
    sum_pools,
    user_mode,
)

IDLE = ExecutorCapacity("alpha", 12, 12, 0, 0, 0.1)


def pools(internal_active: bool = False, reserve: int = 2, **changes: Any) -> Pools:
    return compute_pools(replace(IDLE, **changes), internal_active, reserve)


@pytest.mark.parametrize(
    ("sessions", "mode"),
    [
        (0, UserMode.ABSENT),
        (1, UserMode.INTERACTIVE),
        (2, UserMode.INTERACTIVE),
        (3, UserMode.TEAM),
        (9, UserMode.TEAM),
    ],
)
def test_mode(sessions: int, mode: UserMode) -> None:
    assert user_mode(sessions) is mode


@pytest.mark.parametrize(
    ("seats", "from_resources", "sessions", "internal", "user", "a", "c"),
    [
        (12, 12, 0, False, 2, 0, 10),
        (12, 12, 0, True, 2, 1, 9),
        (12, 12, 1, False, 3, 0, 9),
        (12, 12, 2, True, 4, 1, 7),
        (12, 12, 3, True, 5, 0, 7),
        (12, 4, 0, False, 2, 0, 4),
        (12, 0, 0, False, 2, 0, 0),
        (12, -1, 0, False, 2, 0, 0),
        (2, 2, 0, False, 2, 0, 0),
        (5, 5, 3, False, 5, 0, 0),
        (4, 4, 9, False, 11, 0, 0),
    ],
)
def test_budgets(seats: int, from_resources: int, sessions: int, internal: bool, user: int, a: int, c: int) -> None:
    result = pools(internal, effective_seats=seats, slots_from_resources=from_resources, sessions=sessions)
    assert (result.user.budget, result.internal.budget, result.task_pool.budget) == (user, a, c)
    assert (result.user.used, result.user.headroom) == (sessions, 2)
    assert (result.total_capacity, result.effective_slots, result.max_pressure) == (seats, from_resources, 0.1)


@pytest.mark.parametrize(("admission", "budget"), [(None, 10), (99, 10), (4, 4), (0, 0)])
def test_what_the_executor_lets_in_bounds_the_task_pool(admission: int | None, budget: int) -> None:
    result = pools(admission_slots=admission, load="memory is short")
    assert result.task_pool.budget == budget
    assert result.effective_slots == 12, "the reference's figure stays"
    assert result.load == ("memory is short" if budget == 0 else "")


def test_no_reserve() -> None:
    assert pools(reserve=0).task_pool.budget == 12
    assert pools(reserve=0, sessions=1).user.budget == 1


@pytest.mark.parametrize(("running", "available", "allowed"), [(0, 10, True), (9, 1, True), (10, 0, False), (15, 0, False)])
def test_use(running: int, available: int, allowed: bool) -> None:
    result = pools(running_local=running)
    assert (result.task_pool.used, result.task_pool.available, result.dispatch_allowed) == (running, available, allowed)


def test_internal_tasks_beyond_their_pool_use_the_task_pool() -> None:
    assert pools(True, running_internal=1).task_pool.used == 0
    result = pools(True, running_internal=4, running_local=2)
    assert (result.internal.used, result.task_pool.used) == (4, 5)
    assert pools(False, running_internal=2).task_pool.used == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"slots_from_resources": 0}, Reason.POOL_EXHAUSTED),
        ({"running_local": 10}, Reason.POOL_C_FULL),
        ({"sessions": 3}, None),
        ({"sessions": 3, "running_local": 7}, Reason.USER_TEAM_MODE),
        ({"sessions": 3, "slots_from_resources": 0}, Reason.USER_TEAM_MODE),
        ({"sessions": 2, "slots_from_resources": 0}, Reason.POOL_EXHAUSTED),
    ],
)
def test_hold_reason(changes: dict[str, Any], reason: Reason | None) -> None:
    assert hold_reason(pools(**changes)) is reason


def test_a_missing_sample_refuses() -> None:
    assert hold_reason(None) is Reason.POOL_EXHAUSTED
    fleet = compute_fleet([], internal_active=True)
    assert (fleet.executors, fleet.total) == ({}, None)
    assert sum_pools([]) is None


class TestFleet:
    def test_the_sum(self) -> None:
        full = replace(IDLE, executor_id="beta", effective_seats=4, running_local=5, max_pressure=0.8, sessions=1)
        fleet = compute_fleet([IDLE, full], internal_active=False)
        assert fleet.total is not None
        assert (fleet.total.total_capacity, fleet.total.effective_slots, fleet.total.max_pressure) == (16, 24, 0.8)
        pool = fleet.total.task_pool
        assert (pool.budget, pool.used, pool.available) == (11, 5, 10)
        assert (fleet.total.user.budget, fleet.total.user.used, fleet.total.user.headroom) == (5, 1, 4)
        assert fleet.total.user.mode is UserMode.INTERACTIVE
        assert set(fleet.executors) == {"alpha", "beta"}

    def test_one_team_does_not_explain_another_full_machine(self) -> None:
        crowded = replace(IDLE, executor_id="beta", sessions=3, running_local=9)
        full = replace(IDLE, running_local=10)
        assert hold_reason(compute_fleet([crowded, full], False).total) is Reason.POOL_C_FULL
        alone = compute_fleet([crowded], False)
        assert hold_reason(alone.total) is Reason.USER_TEAM_MODE

    def test_pool_a_is_set_aside_once(self) -> None:
        small = replace(IDLE, executor_id="beta", effective_seats=4)
        fleet = compute_fleet([small, IDLE], internal_active=True)
        assert fleet.total is not None
        assert fleet.total.internal.budget == 1
        assert fleet.executors["alpha"].internal.budget == 1

    @pytest.mark.parametrize(
        ("cap", "budget", "available"), [(None, 10, 7), (10, 10, 7), (99, 10, 7), (5, 5, 2), (3, 3, 0), (1, 1, 0)]
    )
    def test_the_operators_ceiling(self, cap: int | None, budget: int, available: int) -> None:
        fleet = compute_fleet([replace(IDLE, running_local=3)], False, budget_cap=cap)
        assert fleet.total is not None
        assert (fleet.total.task_pool.budget, fleet.total.task_pool.available) == (budget, available)

    def test_a_ceiling_never_adds_room(self) -> None:
        uneven = sum_pools([pools(running_local=10), pools(effective_seats=4, running_local=0)])
        assert uneven is not None
        assert uneven.task_pool.available == 2
        assert cap_task_pool(uneven, 11).task_pool.available == 1


@pytest.mark.parametrize(
    ("payload", "internal"),
    [
        ({}, False),
        ({"decomposition": "okr"}, True),
        ({"decomposition": ""}, False),
        ({"requires_cortex": True}, True),
        ({"requires_cortex": "true"}, False),
    ],
)
def test_internal_tasks(payload: dict[str, Any], internal: bool) -> None:
    assert is_internal(payload) is internal
