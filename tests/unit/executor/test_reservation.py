"""How many runs are let in at once, when those that are there have not grown yet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_service.core.admission import NO_SAMPLE, AdmissionState, Limits, ResourceReport, ResourceSample, RunUse, assess
from executor_service.core.reservation import LocalRun, Room, reserved, room

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = Limits()
IDLE = ResourceSample(NOW, 0.0, 8.0, 16_000, 16_000, 0.0, 0.5, 0, 0)
NEW, OLD = NOW + timedelta(seconds=0.5), NOW - timedelta(minutes=5)


def runs(n: int, accept_time: datetime = NEW) -> list[LocalRun]:
    return [LocalRun(f"run-{i}", accept_time) for i in range(n)]


def found(sample: ResourceSample, live: list[LocalRun], limits: Limits = LIMITS) -> Room:
    return room(assess(sample, limits, NOW), live, limits, NOW)


def let_in_at_once(sample: ResourceSample, most: int = 100, limits: Limits = LIMITS) -> int:
    """How many of a burst come in before the next sample."""
    n = 0
    while n < most and not found(sample, runs(n), limits).reason:
        n += 1
    return n


def test_an_idle_machine_lets_all_its_seats_in_at_once() -> None:
    assert let_in_at_once(IDLE) == 12
    assert found(IDLE, runs(12)) == Room(12, "12 of 12 slots are taken")


def test_a_burst_takes_no_more_memory_than_is_free() -> None:
    tight = replace(IDLE, free_mem_mb=3_900)
    assert assess(tight, LIMITS, NOW).effective_slots == 8, "what the reference offers, and lets in at once"
    assert let_in_at_once(tight) == 7
    assert found(tight, runs(7)) == Room(7, "memory 400 MiB left < MEM_PER_TASK_MB=500, with what is reserved for 7 runs")


def test_memory_that_a_run_has_taken_is_reserved_no_longer() -> None:
    grown = {"run-0": RunUse(300.0, 0.0), "run-1": RunUse(900.0, 0.0)}
    sample = replace(IDLE, runs=grown)
    assert reserved(sample, runs(3, OLD), LIMITS, NOW).memory_mb == 200
    assert reserved(sample, runs(3, NOW), LIMITS, NOW).memory_mb == 200 + 500


def test_memory_stays_reserved_for_a_run_that_can_be_seen_and_grows_late() -> None:
    sample = replace(IDLE, runs={"run-0": RunUse(20.0, 0.0)})
    assert reserved(sample, runs(1, OLD), LIMITS, NOW).memory_mb == 480


@pytest.mark.parametrize(("age_s", "expected"), [(29.9, 500), (30, 0)])
def test_what_cannot_be_seen_counts_as_grown_after_a_while(age_s: float, expected: int) -> None:
    live = runs(1, NOW - timedelta(seconds=age_s))
    assert reserved(IDLE, live, LIMITS, NOW).memory_mb == expected


def test_cpu_is_reserved_until_the_mean_shows_it() -> None:
    sample = replace(IDLE, runs={"run-0": RunUse(0.0, 1.0)}, cpu_window_s=5.0)
    # of 0.5 cores 1 s in 5 s is in the mean already
    assert reserved(sample, runs(1, NOW - timedelta(seconds=4.9)), LIMITS, NOW).cpu_cores == pytest.approx(0.3)
    assert reserved(sample, runs(1, NOW - timedelta(seconds=5.0)), LIMITS, NOW).cpu_cores == 0


def test_a_run_that_burns_more_than_its_share_gives_nothing_back() -> None:
    sample = replace(IDLE, runs={"run-0": RunUse(0.0, 50.0), "run-1": RunUse(0.0, 0.0)})
    assert reserved(sample, runs(2, NEW), LIMITS, NOW).cpu_cores == 0.5


def test_a_burst_takes_no_more_cores_than_are_idle_and_half_a_share_is_room() -> None:
    # a pressure of 0.49 offers all twelve seats, and 4.9 cores are idle
    busy = replace(IDLE, cpu_usage_pct=39.0)
    assert assess(busy, LIMITS, NOW).effective_slots == 12
    assert let_in_at_once(busy) == 10
    words = "0.08 cores left for CPU_PER_TASK=0.5, with what is reserved for 10 runs"
    assert found(replace(busy, cpu_usage_pct=36.5), runs(10)) == Room(10, words)


def test_cores_that_may_be_overcommitted_are() -> None:
    assert let_in_at_once(replace(IDLE, cpu_usage_pct=100.0), limits=replace(LIMITS, cpu_threshold_pct=1000)) == 12


def test_both_shortages_are_named() -> None:
    tight = replace(IDLE, cpu_cores=7.5, cpu_usage_pct=39.0, total_mem_mb=6_500, free_mem_mb=4_600)
    reason = found(tight, runs(9)).reason
    assert "memory 100 MiB left" in reason
    assert "0.08 cores left" in reason


def test_never_more_than_the_report_offers() -> None:
    assert found(IDLE, runs(3), Limits(budget_cap=3)) == Room(3, "3 of 3 slots are taken")
    over = replace(IDLE, cpu_usage_pct=90.0)
    assert found(over, []) == Room(0, "CPU 90% >= 80%")
    held = assess(IDLE, LIMITS, NOW, AdmissionState(True))
    assert room(held, [], LIMITS, NOW).slots == 0


def test_no_sample_is_no_room() -> None:
    assert room(ResourceReport(False, NO_SAMPLE, 0, 0, 0, None), [], LIMITS, NOW) == Room(0, NO_SAMPLE)


@pytest.mark.parametrize("small", [{"total_mem_mb": 512, "free_mem_mb": 400}, {"cpu_cores": 0.2}])
def test_a_machine_too_small_for_one_share_takes_one_run_at_a_time(small: dict[str, float]) -> None:
    assert let_in_at_once(replace(IDLE, **small)) == 1  # type: ignore[arg-type]  # fields of the sample


def test_a_machine_that_is_merely_full_does_not() -> None:
    full = replace(IDLE, total_mem_mb=1_250, free_mem_mb=450)
    assert assess(full, LIMITS, NOW).effective_slots == 1
    assert let_in_at_once(full) == 0


@given(
    total=st.integers(600, 64_000),
    used_share=st.floats(0, 1),
    cores=st.floats(0.5, 64),
    cpu_pct=st.floats(0, 100),
    grown=st.lists(st.floats(0, 1_000), max_size=40),
)
def test_no_burst_can_over_commit_memory(total: int, used_share: float, cores: float, cpu_pct: float, grown: list[float]) -> None:
    """When each run keeps to its share, all that is used in the end is at most all that there is."""
    limits = LIMITS
    free = int(total * (1 - used_share))
    sample = replace(IDLE, total_mem_mb=total, free_mem_mb=free, cpu_cores=cores, cpu_usage_pct=cpu_pct)
    sample = replace(sample, runs={f"run-{i}": RunUse(mb, 0.0) for i, mb in enumerate(grown)})
    live = runs(len(grown), OLD)
    still_to_grow = sum(max(0.0, limits.mem_per_task_mb - mb) for mb in grown)
    while not found(sample, live, limits).reason:
        live.append(LocalRun(f"new-{len(live)}", NEW))
    new = len(live) - len(grown)
    assert new == 0 or still_to_grow + new * limits.mem_per_task_mb <= free or limits.mem_per_task_mb > 0.8 * total
    assert len(live) <= max(len(grown), assess(sample, limits, NOW).effective_slots)
