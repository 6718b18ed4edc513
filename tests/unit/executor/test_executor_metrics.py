"""The executor's metrics: every series from the start, runs by their state, durations by the end that was reported."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry

from executor_service.core.admission import ResourceReport, ResourceSample
from executor_service.core.reservation import Room
from executor_service.core.run import EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport, StartVerdict
from executor_service.metrics import ExecutorMetrics

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = RunSpec("r", "t", 1, "title", "", "dev", "local", {}, timedelta(hours=1), timedelta(0))
ACCEPTED = RunRecord(SPEC, RunState.ACCEPTED, NOW)
RUNNING = ACCEPTED.started(StartReport(StartVerdict.SUCCESS), NOW)
ROOM = Room(3, "for a reason")
REPORT = ResourceReport(True, "", 5, 8, 8, None, 0.1, 0.2, 0.3, 0.4)


class Scraped:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = ExecutorMetrics(self.registry, "1", ["local", "remote"])

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        full = f"cecelia_executor_{name}"
        return {tuple(s.labels.values()): s.value for m in self.registry.collect() for s in m.samples if s.name == full}


def test_every_series_is_there_at_zero_from_the_start() -> None:
    fresh = Scraped()
    backends = ("local", "remote")
    assert fresh.series("runs") == {(backend, state): 0 for backend in backends for state in ("accepted", "running")}
    assert fresh.series("run_duration_seconds_count") == {
        (backend, outcome.value): 0 for backend in backends for outcome in RunOutcome
    }
    assert fresh.series("resource_pressure") == {(resource,): 0 for resource in ("cpu", "memory", "swap", "max")}
    assert fresh.series("effective_slots") == fresh.series("admission_slots") == {(): 0}
    assert fresh.series("resource_stall_ratio") == {("cpu",): 0, ("memory",): 0}
    assert fresh.series("process_control") == {(kind,): 0 for kind in ("cgroup", "process_group")}


def test_runs_are_counted_by_their_state_and_backend_and_no_longer_when_they_have_ended() -> None:
    scraped = Scraped()
    remote = structs.replace(SPEC, backend="remote")
    scraped.metrics.observe(REPORT, ROOM, [ACCEPTED, RUNNING, RUNNING, structs.replace(RUNNING, spec=remote)])
    assert (scraped.series("effective_slots"), scraped.series("admission_slots")) == ({(): 5}, {(): 3})
    assert scraped.series("resource_pressure") == {("cpu",): 0.1, ("memory",): 0.2, ("swap",): 0.3, ("max",): 0.4}
    wanted = {("local", "accepted"): 1, ("local", "running"): 2, ("remote", "accepted"): 0, ("remote", "running"): 1}
    assert scraped.series("runs") == wanted
    scraped.metrics.observe(REPORT, ROOM, [])
    assert not any(scraped.series("runs").values())


def test_stalls_are_shares_and_zero_where_nothing_is_told() -> None:
    scraped = Scraped()
    sample = ResourceSample(NOW, 60.0, 8.0, 16_000, 3_200, 7.0, 0.5, 0, 0, memory_stall_pct=4.0, cpu_stall_pct=25.0)
    scraped.metrics.observe(replace(REPORT, sample=sample), ROOM, [])
    assert scraped.series("resource_stall_ratio") == {("cpu",): 0.25, ("memory",): 0.04}
    scraped.metrics.observe(REPORT, ROOM, [])
    assert scraped.series("resource_stall_ratio") == {("cpu",): 0, ("memory",): 0}


def test_a_duration_is_that_of_the_whole_run_under_its_own_outcome() -> None:
    scraped = Scraped()
    scraped.metrics.run_ended(RUNNING.ended(EndReport(RunOutcome.TIMED_OUT), NOW + timedelta(seconds=7)))
    counted = {labels: n for labels, n in scraped.series("run_duration_seconds_count").items() if n}
    assert counted == {("local", "timed_out"): 1}
    assert scraped.series("run_duration_seconds_sum")[("local", "timed_out")] == 7


@pytest.mark.parametrize(("kinds", "cgroup", "process_group"), [({"cgroup", ""}, 1, 0), ({"process_group"}, 0, 1), ({""}, 0, 0)])
def test_what_holds_processes_together_is_what_a_backend_says_and_nothing_where_none_run(
    kinds: set[str], cgroup: int, process_group: int
) -> None:
    scraped = Scraped()
    scraped.metrics.process_control(kinds)
    assert scraped.series("process_control") == {("cgroup",): cgroup, ("process_group",): process_group}
