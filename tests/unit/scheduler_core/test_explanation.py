"""One clear sentence for each state of the queue and of a task."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.dispatch_checks import BackendFacts, GateFacts, Verdict, evaluate
from scheduler_service.core.explanation import PLACEMENT, Outlook, StartLimit, about_queue, about_task, open_prerequisites
from scheduler_service.core.reasons import HoldReason, Reason
from scheduler_service.core.slot_budget import ExecutorCapacity, compute_pools
from scheduler_service.core.task import Task, TaskStatus
from tests.fakes.tasks import queued_task

NOW = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)
LATER, LAST = NOW + timedelta(minutes=5), NOW + timedelta(hours=2)
RUN = BackendFacts(backend="cecelia-run", local=True, queued=2, due=2, live_executors=1, breakers=(Breaker("cecelia-run@a"),))
HK = BackendFacts(
    backend="hk-minimax", local=False, queued=1, due=1, live_executors=1, breakers=(Breaker("hk-minimax"),), max_runs=8
)
IDLE = (replace(RUN, queued=0, due=0), replace(HK, queued=0, due=0))
POOLS = compute_pools(ExecutorCapacity("a", 12, 12, 0, 0, 0.1), internal_active=False)
CLEAR = GateFacts(now=NOW, backends=(RUN, HK), pools=POOLS)
OPEN = Breaker("hk-minimax", BreakerState.OPEN, failures=3, opened_time=NOW, reason="failure_threshold_reached")
HK_OPEN = replace(HK, breakers=(OPEN,))
FIRST, SECOND = UUID(int=11), UUID(int=12)
FULL = Verdict(name=PLACEMENT, backend="cecelia-run", holds=True, reason=Reason.POOL_C_FULL, detail="no executor has room left")


def queue_says(facts: GateFacts, *further: Verdict, **outlook: Any) -> str:
    return about_queue(facts, Outlook(verdicts=[*evaluate(facts), *further], **outlook))


@pytest.mark.parametrize(
    ("facts", "outlook", "sentence"),
    [
        (
            CLEAR,
            {"starts": {"hk-minimax": 1, "cecelia-run": 2}},
            "The next tick starts 2 tasks on cecelia-run, 1 task on hk-minimax.",
        ),
        (
            replace(CLEAR, backends=(RUN, HK_OPEN)),
            {"starts": {"cecelia-run": 2}},
            "The next tick starts 2 tasks on cecelia-run; hk-minimax is held, the breaker is open (failure_threshold_reached) until "
            "2026-02-25 12:30:00 UTC (circuit_breaker_open).",
        ),
        (
            CLEAR,
            {"starts": {"cecelia-run": 1}, "put_aside": {FIRST: "the title is blank"}},
            "The next tick starts 1 task on cecelia-run; 1 task put aside, as pre-flight finds fault (pre_flight_check_failed).",
        ),
        (replace(CLEAR, draining=("operator",)), {}, "Nothing starts: draining by operator (draining)."),
        (replace(CLEAR, backends=IDLE), {}, "Nothing is queued."),
        (
            replace(CLEAR, backends=IDLE, draining=("operator",)),
            {},
            "Nothing is queued; a new task would be held: draining by operator (draining).",
        ),
        (
            replace(CLEAR, backends=(replace(RUN, queued=1, due=0), IDLE[1])),
            {},
            "Nothing starts: 1 task waits for a back-off, a time or a prerequisite.",
        ),
        (
            replace(CLEAR, backends=(replace(RUN, due=0), HK_OPEN)),
            {},
            "Nothing starts: 2 tasks wait for a back-off, a time or a prerequisite; hk-minimax is held, the breaker is open "
            "(failure_threshold_reached) until 2026-02-25 12:30:00 UTC (circuit_breaker_open).",
        ),
        (
            replace(CLEAR, backends=(RUN, IDLE[1])),
            {"limits": {"cecelia-run": StartLimit.RAMP}},
            "Nothing starts: starts on cecelia-run ramp up after a hold.",
        ),
    ],
)
def test_the_queue(facts: GateFacts, outlook: dict[str, Any], sentence: str) -> None:
    assert queue_says(facts, **outlook) == sentence


def test_a_backend_without_room_on_any_executor() -> None:
    facts = replace(CLEAR, backends=(RUN, IDLE[1]))
    assert queue_says(facts, FULL) == "Nothing starts: cecelia-run is held, no executor has room left (pool_c_full)."


NAME = f"Task {UUID(int=1)}"
WAITING = {"depends_on": (FIRST, SECOND), "blocked_by": 2}
HELD = replace(CLEAR, backends=(replace(RUN, live_executors=0), HK))


@pytest.mark.parametrize(
    ("changes", "facts", "outlook", "place", "starts", "reason", "clears", "sentence"),
    [
        ({"status": TaskStatus.DISPATCHING, "executor_id": "a"}, CLEAR, {}, 0, False, "", None, "is dispatching on a."),
        ({"status": TaskStatus.RUNNING, "executor_id": "a"}, CLEAR, {}, 0, False, "", None, "is running on a."),
        (
            {"status": TaskStatus.RUNNING, "executor_id": "a", "cancel_requested": True},
            *(CLEAR, {}, 0, False, "", None, "is running on a and is being cancelled."),
        ),
        ({"status": TaskStatus.COMPLETED}, CLEAR, {}, 0, False, "", None, "is completed."),
        ({"status": TaskStatus.CANCELLED, "error": "enough"}, CLEAR, {}, 0, False, "", None, "is cancelled: enough."),
        (
            {"status": TaskStatus.QUARANTINED, "error": "exit status 1", "hold_reason": HoldReason.MAX_TRIES},
            *(CLEAR, {}, 0, False, "max_tries", None, "is quarantined: exit status 1 (max_tries)."),
        ),
        ({}, CLEAR, {"starting": {UUID(int=1): "a"}}, 1, True, "", None, "starts with the next tick on a."),
        (
            {},
            *(CLEAR, {"put_aside": {UUID(int=1): "the title is blank"}}, 1, False, "pre_flight_check_failed", None),
            "is put aside by the next tick: the title is blank (pre_flight_check_failed).",
        ),
        (
            {"next_attempt_time": LATER},
            *(CLEAR, {}, 1, False, "backoff", LATER, "waits for its back-off until 2026-02-25 12:05:00 UTC (backoff)."),
        ),
        (
            {"not_before_time": LATER},
            *(CLEAR, {}, 1, False, "not_before", LATER, "is not to start before 2026-02-25 12:05:00 UTC (not_before)."),
        ),
        (
            {"next_attempt_time": LATER, "not_before_time": LAST},
            *(CLEAR, {}, 1, False, "backoff", LAST),
            "waits for its back-off until 2026-02-25 12:05:00 UTC (backoff) and is not to start before "
            "2026-02-25 14:00:00 UTC (not_before).",
        ),
        (
            WAITING,
            *(CLEAR, {}, 0, False, "dependency", None, f"waits for prerequisite {FIRST} (running) and 1 more (dependency)."),
        ),
        (
            {**WAITING, "depends_on": (SECOND,), "not_before_time": LATER},
            *(CLEAR, {}, 0, False, "dependency", None),
            f"waits for prerequisite {SECOND} (does not exist) (dependency) and is not to start before "
            "2026-02-25 12:05:00 UTC (not_before).",
        ),
        ({"blocked_by": 1}, CLEAR, {}, 0, False, "dependency", None, "waits for prerequisites (dependency)."),
        ({}, HELD, {}, 1, False, "no_executor", None, "is held: cecelia-run: no executor answers for it (no_executor)."),
        (
            {"backend": "hk-minimax"},
            *(replace(CLEAR, backends=(RUN, HK_OPEN)), {}, 1, False, "circuit_breaker_open", NOW + timedelta(minutes=30)),
            "is held: hk-minimax: the breaker is open (failure_threshold_reached) until 2026-02-25 12:30:00 UTC (circuit_breaker_open).",
        ),
        (
            {},
            *(CLEAR, {"starts": {"cecelia-run": 2}, "limits": {"cecelia-run": StartLimit.ROOM}}, 4, False, "", None),
            "waits for its turn: 3 tasks stand before it on cecelia-run, and the next tick starts 2 there, "
            "as many as there is room for.",
        ),
        (
            {},
            *(CLEAR, {"starts": {}, "limits": {"cecelia-run": StartLimit.RAMP}}, 1, False, "", None),
            "waits for its turn: the next tick starts none there, as starts ramp up after a hold.",
        ),
        (
            {},
            *(CLEAR, {"limits": {"cecelia-run": StartLimit.ROOM}, "put_aside": {FIRST: "bad"}}, 2, False, "", None),
            "waits for its turn: 1 task stands before it on cecelia-run, and the next tick starts none there, as many as there is "
            "room for, and puts 1 aside that pre-flight finds fault with.",
        ),
        ({}, CLEAR, {}, 1, False, "", None, "waits for its turn: the next tick starts none there."),
    ],
)
def test_a_task(
    changes: dict[str, Any],
    facts: GateFacts,
    outlook: dict[str, Any],
    place: int,
    starts: bool,
    reason: str,
    clears: datetime | None,
    sentence: str,
) -> None:
    task: Task = queued_task(NOW, **changes)
    said = about_task(task, Outlook(verdicts=evaluate(facts), **outlook), NOW, place, {FIRST: TaskStatus.RUNNING})
    assert (said.starts, said.reason, said.clears_time) == (starts, reason, clears)
    assert said.sentence == f"{NAME} {sentence}"


def test_an_open_prerequisite_is_one_that_has_not_completed() -> None:
    task = queued_task(NOW, depends_on=(FIRST, SECOND))
    assert open_prerequisites(task, {FIRST: TaskStatus.COMPLETED}) == [(SECOND, None)]
    assert open_prerequisites(task, {FIRST: TaskStatus.FAILED, SECOND: TaskStatus.COMPLETED}) == [(FIRST, TaskStatus.FAILED)]
