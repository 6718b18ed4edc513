"""Capacity, pressure and slots: the reference's figures."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from executor_service.core.admission import (
    NOTHING_HELD,
    AdmissionState,
    Limits,
    ResourceSample,
    assess,
    half_up,
    next_state,
    physical_capacity,
    slots_at,
    two_decimals,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
IDLE = ResourceSample(NOW, 10.0, 8.0, 16_000, 14_000, 0.0, 0.5, 0, 0)


@pytest.mark.parametrize(
    ("total", "cores", "limits", "expected"),
    [
        (16_000, 8, Limits(), 12),  # 0.8 x 8 / 0.5 = 12.8, memory would allow 25
        (4_000, 8, Limits(), 6),  # 0.8 x 4000 / 500 = 6.4
        (100, 0.1, Limits(), 2),  # never below two
        (24_000, 2, Limits(cpu_per_task=0.1), 16),
    ],
)
def test_physical_capacity(total: int, cores: float, limits: Limits, expected: int) -> None:
    assert physical_capacity(total, cores, limits) == expected


@pytest.mark.parametrize(
    ("pressure", "expected"),
    [(0.0, 12), (0.49, 12), (0.5, 8), (0.69, 8), (0.7, 4), (0.89, 4), (0.9, 1), (0.99, 1), (1.0, 0), (1.7, 0), (-0.3, 12)],
)
def test_the_steps_of_pressure(pressure: float, expected: int) -> None:
    assert slots_at(pressure, 12) == expected


def test_a_half_rounds_up_and_not_to_the_even_neighbour() -> None:
    assert [half_up(x) for x in (0.5, 1.5, 2.5, 2.49)] == [1, 2, 3, 2]
    assert two_decimals(0.125) == 0.13
    # a third of 4.5 and more: 2 seats leave at least one slot
    assert slots_at(0.7, 2) == 1
    assert slots_at(0.5, 4) == 3  # 2.67


def test_an_idle_machine_gives_all_its_seats() -> None:
    report = assess(IDLE, Limits(), NOW)
    assert (report.ok, report.reason, report.effective_slots, report.max_seats) == (True, "", 12, 12)
    assert report.cpu_pressure == 0.13  # 10 % of 80 %, a half up
    assert report.mem_pressure == two_decimals(1 - 14_000 / (0.8 * 16_000))
    assert report.mem_min_mb == 3_400


def test_the_operators_ceiling_caps_the_seats_and_never_raises_them() -> None:
    assert assess(IDLE, Limits(budget_cap=3), NOW).effective_slots == 3
    assert assess(IDLE, Limits(budget_cap=99), NOW).effective_slots == 12


@pytest.mark.parametrize("sample", [None, *(replace(IDLE, time=NOW + timedelta(seconds=s)) for s in (-10.001, 10.001))])
def test_a_missing_or_stale_sample_refuses(sample: ResourceSample | None) -> None:
    report = assess(sample, Limits(), NOW)
    assert (report.ok, report.reason, report.effective_slots) == (False, "no_sample", 0)


def test_a_sample_of_ten_seconds_still_counts() -> None:
    assert assess(replace(IDLE, time=NOW - timedelta(seconds=10)), Limits(), NOW).ok


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"cpu_usage_pct": 80.0}, "CPU 80%"), ({"free_mem_mb": 0}, "memory 0 MiB"), ({"swap_used_pct": 70.0}, "swap 70%")],
)
def test_overload_names_its_signal(changes: dict[str, float], named: str) -> None:
    report = assess(replace(IDLE, **changes), Limits(), NOW)  # type: ignore[arg-type]  # fields of the sample
    assert (report.ok, report.effective_slots) == (False, 0)
    assert named in report.reason


def test_cpu_use_is_rounded_before_it_counts() -> None:
    assert assess(replace(IDLE, cpu_usage_pct=79.5), Limits(), NOW).effective_slots == 0
    assert assess(replace(IDLE, cpu_usage_pct=79.4), Limits(), NOW).effective_slots == 1


def after(*samples: ResourceSample) -> AdmissionState:
    state = NOTHING_HELD
    for sample in samples:
        state = next_state(state, sample, Limits())
    return state


def cpu(pct: float) -> ResourceSample:
    return replace(IDLE, cpu_usage_pct=pct)


def stalled(pct: float | None) -> ResourceSample:
    return replace(IDLE, memory_stall_pct=pct)


@pytest.mark.parametrize(
    ("samples", "holding"),
    [
        ([cpu(79)], False),
        ([cpu(80)], True),
        ([cpu(80), cpu(72)], True),  # a pressure of 0.9
        ([cpu(80), cpu(71)], False),
        ([cpu(80), cpu(71), cpu(79)], False),
        ([stalled(9.99)], False),
        ([stalled(10)], True),
        ([stalled(10), stalled(5)], True),
        ([stalled(10), stalled(4.99)], False),
        ([stalled(10), stalled(None)], False),
        ([replace(IDLE, cpu_stall_pct=100.0)], False),
        ([replace(IDLE, swap_used_pct=70.0), IDLE], False),
        ([replace(IDLE, swap_used_pct=70.0), replace(IDLE, swap_used_pct=63.0)], True),
    ],
)
def test_from_a_hard_line_on_it_holds_until_all_is_below_the_soft_ones(samples: list[ResourceSample], holding: bool) -> None:
    assert after(*samples) == AdmissionState(holding)


def test_holding_takes_the_slots_and_changes_no_figure() -> None:
    free, held = assess(cpu(75), Limits(), NOW), assess(cpu(75), Limits(), NOW, AdmissionState(True))
    assert (free.ok, free.effective_slots) == (True, 1)
    assert held.reason == "was overloaded; pressure 0.94 is not yet below 0.9"
    assert replace(held, ok=True, reason="", effective_slots=1) == free


def test_a_stall_says_so_while_all_pressures_are_low() -> None:
    held = assess(stalled(6), Limits(), NOW, AdmissionState(True))
    assert (held.ok, held.effective_slots) == (False, 0)
    assert held.reason == "all work waits for memory 6% of the time; it must come below 5%"


def test_where_the_cpu_does_not_count_a_busy_one_takes_no_slot() -> None:
    busy = replace(IDLE, cpu_usage_pct=100.0)
    assert assess(busy, Limits(), NOW).effective_slots == 0
    limits = Limits(cpu_threshold_pct=1_000_000)
    patient = assess(busy, limits, NOW, next_state(NOTHING_HELD, busy, limits))
    assert (patient.effective_slots, patient.cpu_pressure, patient.cpu_threshold_pct) == (patient.max_seats, 0.0, 1_000_000)
    assert "CPU 100% >= 90%" in assess(busy, Limits(cpu_threshold_pct=90), NOW).reason
