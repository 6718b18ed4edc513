"""What `doctor` makes of the answers of a scheduler and its executors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl import pair_checks as checks
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.findings import Finding, Level
from dispatchctl.pair_checks import Asked, ExecutorAnswer
from service_runtime.proto_values import duration, timestamp

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NONE = timedelta()
TARGET = "127.0.0.1:50052"
AWAY = Failure("the executor cannot be reached", "UNAVAILABLE: refused", "start it", ExitStatus.UNREACHABLE)


def levels(findings: Sequence[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def status(**fields: object) -> pb.GetStatusResponse:
    made = pb.GetStatusResponse(leader=True, term=3, version="1.0", scheduler_time=timestamp(NOW), database_time=timestamp(NOW))
    made.tick.CopyFrom(pb.TickStatus(enabled=True, last_success_time=timestamp(NOW - SECOND), interval=duration(5 * SECOND)))
    made.executors.add(executor_id="vm", target=TARGET, live=True, backends=["cecelia-run"])
    made.MergeFrom(pb.GetStatusResponse(**fields))  # type: ignore[arg-type]
    return made


def answer(offset: timedelta = NONE, took: timedelta = NONE, version: str = "1.0") -> ExecutorAnswer:
    said = executor_pb.CheckAvailabilityResponse(version=version, executor_time=timestamp(NOW + offset))
    said.backends.add(backend="cecelia-run", configured=True)
    return ExecutorAnswer(TARGET, said, NOW, took)


def test_a_scheduler_without_its_database_is_reachable() -> None:
    silent = Failure("cannot show the status", "STORAGE_UNAVAILABLE: the database does not answer", "try again")
    reachable, database = checks.silent_findings("here", silent)
    assert (reachable.level, database.level, database.category) == (Level.OK, Level.PROBLEM, "database")
    (away,) = checks.silent_findings("here", AWAY)
    assert (away.level, away.category, away.remedy) == (Level.PROBLEM, "scheduler", "start it")


def test_versions_are_equal_or_named() -> None:
    assert levels(checks.version_findings("1.0", "1.0", [answer()])) == [Level.OK]
    unreached = ExecutorAnswer(TARGET, AWAY, NOW, NONE)
    assert levels(checks.version_findings("1.0", "1.0", [unreached])) == [Level.OK]
    for own, scheduler, executor in (("1.1", "1.0", "1.0"), ("1.0", "1.1", "1.0"), ("1.0", "1.0", "")):
        (found,) = checks.version_findings(own, scheduler, [answer(version=executor)])
        assert found.level is Level.WARNING
        assert f"executor {TARGET} {executor or 'unknown'}" in found.detail


@pytest.mark.parametrize(
    ("ago", "interval", "level"),
    [(15, 1, Level.OK), (16, 1, Level.PROBLEM), (30, 10, Level.OK), (31, 10, Level.PROBLEM)],
)
def test_a_tick_stands_still_after_three_missed_ones(ago: int, interval: int, level: Level) -> None:
    found = status()
    found.tick.interval.FromTimedelta(interval * SECOND)
    found.tick.last_success_time.FromDatetime(NOW - ago * SECOND)
    assert levels(checks.leader_findings(found)) == [Level.OK, level]


def test_a_leader_is_missing_paused_or_in_trouble() -> None:
    assert levels(checks.leader_findings(pb.GetStatusResponse())) == [Level.PROBLEM]
    other = status()
    other.leader, other.leader_address, other.tick.enabled = False, "10.0.0.5:50051", False
    assert levels(checks.leader_findings(other)) == [Level.OK, Level.OK], "another replica's TICK_ENABLED is not known here"
    paused = status()
    paused.tick.enabled = False
    assert levels(checks.leader_findings(paused)) == [Level.OK, Level.WARNING]
    failing = status()
    failing.tick.last_error = "the disk is full"
    assert levels(checks.leader_findings(failing)) == [Level.OK, Level.WARNING]
    failing.tick.ClearField("last_success_time")
    (_, never) = checks.leader_findings(failing)
    assert never.level is Level.PROBLEM
    assert "the disk is full" in never.detail


def test_executors_are_heard_or_not() -> None:
    assert levels(checks.executor_findings(pb.GetStatusResponse(), [])) == [Level.PROBLEM]
    assert levels(checks.executor_findings(status(), [answer()])) == [Level.OK]
    silent, draining = status(), status()
    silent.executors[0].live = False
    (found,) = checks.executor_findings(silent, [ExecutorAnswer(TARGET, AWAY, NOW, NONE)])
    assert found.level is Level.PROBLEM
    assert "refused" in found.detail
    draining.executors[0].draining = True
    assert levels(checks.executor_findings(draining, [answer()])) == [Level.WARNING]
    assert levels(checks.executor_findings(status(), [ExecutorAnswer(TARGET, AWAY, NOW, NONE)])) == [Level.WARNING]


def test_backends_are_as_the_executor_says_else_as_the_scheduler_heard() -> None:
    heard = status()
    heard.executors[0].misconfigured.add(backend="hk-minimax", detail="no URL")
    assert levels(checks.backend_findings(heard, [answer()])) == [Level.OK]
    found = checks.backend_findings(heard, [ExecutorAnswer(TARGET, AWAY, NOW, NONE)])
    assert levels(found) == [Level.OK, Level.PROBLEM]
    assert found[1].detail == "config_error: no URL"
    wrong = answer()
    assert isinstance(wrong.said, executor_pb.CheckAvailabilityResponse)
    wrong.said.backends.add(backend="other", detail="nothing there")
    assert levels(checks.backend_findings(heard, [wrong])) == [Level.OK, Level.PROBLEM]


@pytest.mark.parametrize(
    ("offset", "took", "level"),
    [
        (2.0, 0.0, Level.OK),
        (2.1, 0.0, Level.WARNING),
        (-2.1, 0.0, Level.WARNING),
        (2.1, 0.1, Level.OK),
        (-2.2, 0.1, Level.WARNING),
    ],
)
def test_clocks_may_be_apart_by_two_seconds_and_what_is_not_known(offset: float, took: float, level: Level) -> None:
    apart, unsure = offset * SECOND, took * SECOND
    database, _ = checks.clock_findings(Asked(status(database_time=timestamp(NOW + apart)), NOW, unsure), [answer()])
    assert database.level is level
    own, executor = checks.clock_findings(Asked(status(), NOW, NONE), [answer(apart, unsure)])
    assert (own.level, executor.level) == (Level.OK, level)


def test_this_machines_own_clock_does_not_count() -> None:
    wrong = NOW + timedelta(hours=5)
    asked = ExecutorAnswer(TARGET, answer().said, wrong, NONE)
    assert levels(checks.clock_findings(Asked(status(), wrong, NONE), [asked])) == [Level.OK, Level.OK]
    later = ExecutorAnswer(TARGET, answer(10 * SECOND).said, wrong + 10 * SECOND, NONE)
    assert levels(checks.clock_findings(Asked(status(), wrong, NONE), [later])) == [Level.OK, Level.OK], "asked later"
    assert levels(checks.clock_findings(Asked(pb.GetStatusResponse(), NOW, NONE), [])) == [Level.SKIPPED]


def test_overrides_older_than_a_day_are_named_with_what_ends_them() -> None:
    found = status()
    day = timedelta(days=1)
    ends = {
        "drain": "drain off --source deploy",
        "billing_pause": "billing clear --backend deploy",
        "budget_cap": "cap off",
        "breaker_tripped": "reset deploy",
    }
    for kind in ends:
        found.overrides.add(kind=kind, scope="deploy", actor="ann", since_time=timestamp(NOW - day))
    assert levels(checks.override_findings(found)) == [Level.OK]
    for override in found.overrides:
        override.since_time.CopyFrom(timestamp(NOW - day - SECOND) or override.since_time)
    old = checks.override_findings(found)
    assert levels(old) == [Level.WARNING] * 4
    assert [one.remedy.removeprefix("end it if it is forgotten: dispatchctl ") for one in old] == list(ends.values())


@pytest.mark.parametrize(
    ("mode", "level"),
    [("dispatching", Level.OK), ("idle", Level.OK), ("held", Level.WARNING), ("draining", Level.WARNING)],
)
def test_what_keeps_tasks_from_being_started_is_told(mode: str, level: Level) -> None:
    (starts,) = checks.dispatch_findings(status(mode=mode, sentence="The sentence."))
    assert (starts.level, starts.detail, bool(starts.remedy)) == (level, "The sentence.", level is Level.WARNING)


def test_each_breaker_that_is_not_closed_is_told_with_what_resets_it() -> None:
    found = status(mode="idle")
    opened, reason = timestamp(NOW - 90 * SECOND), "failure_threshold_reached"
    found.breakers.add(key="cecelia-run", state=pb.BREAKER_STATE_CLOSED)
    found.breakers.add(key="cecelia-run@vm", state=pb.BREAKER_STATE_HALF_OPEN, opened_time=opened, reason=reason)
    found.breakers.add(key="hk-minimax", state=pb.BREAKER_STATE_OPEN, opened_time=opened, reason=reason)
    _, half, whole = checks.dispatch_findings(found)
    assert levels([half, whole]) == [Level.WARNING] * 2
    assert (whole.check, whole.detail) == ("breaker hk-minimax", "OPEN, opened 90s ago: failure_threshold_reached")
    assert half.detail.startswith("HALF_OPEN, opened 90s ago")
    assert "dispatchctl reset cecelia-run@vm;" in half.remedy


def test_loopback_of_another_machine_is_not_asked() -> None:
    targets = [TARGET, "10.0.0.6:50052", ""]
    assert checks.targets_from_here("127.0.0.1:50051", targets) == targets[:2]
    assert checks.targets_from_here("10.0.0.5:50051", targets) == ["10.0.0.6:50052"]
