"""The executor's gauges of resources."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from executor_service.core.admission import NO_SAMPLE, Limits, ResourceReport, ResourceSample, assess
from executor_service.core.reservation import Room
from executor_service.metrics import ExecutorMetrics

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SAMPLE = ResourceSample(NOW, 60.0, 8.0, 16_000, 3_200, 7.0, 0.5, 0, 0)


def test_resources_as_they_were_measured() -> None:
    registry = CollectorRegistry()
    metrics = ExecutorMetrics(registry, "1", ["cecelia-run"])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cecelia_executor_{name}", labels)

    stalled = replace(SAMPLE, memory_stall_pct=4.0, cpu_stall_pct=25.0)
    metrics.observe(assess(stalled, Limits(), NOW), Room(3, "for a reason"), [])
    assert [value("resource_pressure", resource=name) for name in ("cpu", "memory", "swap", "max")] == [0.75, 0.75, 0.1, 0.75]
    assert (value("effective_slots"), value("admission_slots")) == (4, 3)
    assert (value("resource_stall_ratio", resource="cpu"), value("resource_stall_ratio", resource="memory")) == (0.25, 0.04)
    metrics.observe(ResourceReport(False, NO_SAMPLE, 0, 0, 0, None, 80), Room(0, NO_SAMPLE), [])
    assert (value("effective_slots"), value("admission_slots"), value("resource_stall_ratio", resource="cpu")) == (0, 0, 0)
