"""Messages as the JSON of the reference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.callback import CALLBACK_STATUSES
from scheduler_service.http import shapes
from scheduler_service.http.routes import callback_of
from service_runtime.errors import InvalidArgument

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
TASK = "123e4567-e89b-42d3-a456-426614174000"
RUN = "223e4567-e89b-42d3-a456-426614174000"


def test_a_message_is_shown_with_every_field_and_plain_numbers() -> None:
    status = pb.GetStatusResponse(mode="active", term=7, breakers=[pb.Breaker(key="a", state=pb.BREAKER_STATE_HALF_OPEN)])
    status.tick.interval.FromMilliseconds(1500)
    status.queue.add(priority=pb.PRIORITY_P0, status=pb.TASK_STATUS_QUEUED, tasks=3)
    status.stats.window_1h.failure_reasons["draining"] = 2
    shown = shapes.plain(status)
    assert shown["term"] == 7
    assert shown["tick"]["interval"] == 1.5
    assert shown["tick"]["last_success_time"] is None
    assert shown["last_dispatch"] is None
    assert shown["queue"] == [{"priority": "P0", "status": "QUEUED", "tasks": 3, "oldest_due_time": None}]
    assert shown["breakers"][0]["state"] == "HALF_OPEN"
    assert shown["stats"]["window_1h"]["failure_reasons"] == {"draining": 2}
    assert shown["stats"]["window_1h"]["rate"] is None


def test_what_lies_between_windows_of_growing_length_is_told_oldest_first() -> None:
    def window(minutes: int, success: int, attempts: int, failed: int, **reasons: int) -> pb.DispatchStatsWindow:
        made = pb.DispatchStatsWindow(
            decisions=pb.DispatchWindow(success=success, failure_reasons=reasons),
            attempts=pb.DispatchWindow(total=attempts, failed=failed),
        )
        made.length.FromTimedelta(timedelta(minutes=minutes))
        return made

    windows = [
        window(6, 2, 3, 1, executor_failed=1),
        window(12, 2, 4, 2, executor_failed=2, draining=5),
        # Counted a moment later, when the oldest decision had left the window.
        window(18, 1, 3, 2, executor_failed=2, draining=4),
    ]
    assert shapes.buckets(windows, NOW) == [
        {
            "from": "2026-01-31T07:42:00.000Z", "until": "2026-01-31T07:48:00.000Z",
            "started": 0, "reasons": {}, "attempts": 0, "failed_attempts": 0,
        },
        {
            "from": "2026-01-31T07:48:00.000Z", "until": "2026-01-31T07:54:00.000Z",
            "started": 0, "reasons": {"draining": 5, "executor_failed": 1}, "attempts": 1, "failed_attempts": 1,
        },
        {
            "from": "2026-01-31T07:54:00.000Z", "until": "2026-01-31T08:00:00.000Z",
            "started": 2, "reasons": {"executor_failed": 1}, "attempts": 3, "failed_attempts": 1,
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("states", "error", "word", "organ"),
    [
        ([pb.BREAKER_STATE_CLOSED], "", "healthy", "all_closed"),
        ([pb.BREAKER_STATE_CLOSED, pb.BREAKER_STATE_HALF_OPEN], "", "recovering", "has_half_open"),
        ([pb.BREAKER_STATE_OPEN, pb.BREAKER_STATE_HALF_OPEN], "", "degraded", "has_open"),
        ([], "StorageUnavailable: gone", "degraded", "all_closed"),
    ],
)
def test_health_tells_open_half_open_and_failing_apart(
    states: list[pb.BreakerState.ValueType], error: str, word: str, organ: str
) -> None:
    status = pb.GetStatusResponse(breakers=[pb.Breaker(key=str(i), state=state) for i, state in enumerate(states)])
    status.tick.last_error = error
    shown = shapes.health(status, NOW)
    assert (shown["status"], shown["organs"]["circuit_breaker"]["status"]) == (word, organ)
    assert shown["timestamp"] == "2026-01-31T08:00:00.000Z"


def test_what_submitters_wrote_can_be_left_out() -> None:
    event = {"type": "task_failed", "payload": {"title": "secret", "error": "", "tries": 1, "list": [{"result": "secret"}]}}
    hidden = shapes.without_payloads(event)
    assert hidden == {
        "type": "task_failed",
        "payload": {"title": "(hidden)", "error": "", "tries": 1, "list": [{"result": "(hidden)"}]},
    }


@pytest.mark.parametrize("status", sorted(CALLBACK_STATUSES))
def test_a_callback_names_its_attempt_by_our_run_id(status: str) -> None:
    callback = callback_of(
        {"task_id": TASK, "run_id": "cp-123e4567", "checkpoint_id": RUN, "status": status, "attempt": 2, "stderr": None}
    )
    assert (str(callback.task_id), str(callback.run_id), callback.status) == (TASK, RUN, status)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, ("", "")),
        ("text", ("text", "")),
        ({"result": "inner", "error": "why"}, ("inner", "why")),
        ({"findings": [1, 2]}, ('{"findings":[1,2]}', "")),
        (["a\0b"], ('["a\\u0000b"]', "")),
        ("a\0b", ("a\ufffdb", "")),
    ],
)
def test_the_result_of_a_callback(result: object, expected: tuple[str, str]) -> None:
    callback = callback_of({"task_id": TASK, "run_id": RUN, "status": "AI Done", "result": result})
    assert (callback.result, callback.error) == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"status": "in_progress"}, "status"),
        ({"status": None}, "status"),
        ({"status": ["AI Done"]}, "status"),
        ({"task_id": 5}, "task_id"),
        ({"task_id": ""}, "task_id"),
        ({"run_id": "cp-123e4567"}, "run_id"),
        ({"checkpoint_id": "cp-123e4567"}, "checkpoint_id"),
    ],
)
def test_a_callback_that_says_nothing_usable_is_refused_with_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        callback_of({"task_id": TASK, "run_id": RUN, "status": "AI Done", **change})
    assert field in {violation.field for violation in caught.value.violations}
