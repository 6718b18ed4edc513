"""The metrics of the running pair against the contract's table: names, types, labels, and every series there at zero."""

from __future__ import annotations

import asyncio
import shutil

import httpx
import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.programs import Pair, Program, eventually

SCHEDULER_RPCS = scheduler_pb.DESCRIPTOR.services_by_name["SchedulerService"]
EXECUTOR_RPCS = executor_pb.DESCRIPTOR.services_by_name["ExecutorService"]
BACKENDS = {"cecelia-run", "hk-minimax"}
PRIORITIES = {"P0", "P1", "P2"}
KEYS = {"cecelia-run", "cecelia-run@host-a", "hk-minimax"}
STATES = {"CLOSED", "OPEN", "HALF_OPEN"}

# The contract's table: type, and of each label its closed set (None: not closed by us).
SCHEDULER: dict[str, tuple[str, dict[str, set[str] | None]]] = {
    "dispatch_decisions": (
        "counter",
        {
            "outcome": {"dispatched", "failed", "rejected", "blocked"},
            "reason": {
                "", "draining", "billing_pause", "user_team_mode", "pool_exhausted", "pool_c_full", "low_success_rate",
                "circuit_breaker_open", "pre_flight_check_failed", "no_executor", "task_not_found", "executor_failed",
                "already_running", "server_overloaded", "config_error",
            },
        },
    ),
    "dispatch_attempts": ("counter", {"backend": BACKENDS, "outcome": {"success", "failure"}}),
    "window_success_ratio": ("gauge", {"window": {"window_1h", "attempts"}}),
    "window_samples": ("gauge", {"window": {"window_1h", "attempts"}}),
    "hold_active": (
        "gauge",
        {
            "reason": {
                "draining", "billing_pause", "user_team_mode", "pool_exhausted", "pool_c_full", "low_success_rate",
                "circuit_breaker_open", "no_executor", "config_error",
            }
        },
    ),
    "hold_observed": ("gauge", {"reason": {"low_success_rate", "circuit_breaker_open"}}),
    "drain_duration_seconds": ("histogram", {}),
    "breaker_state": ("gauge", {"key": KEYS, "state": STATES}),
    "breaker_transitions": ("counter", {"key": KEYS, "to": STATES}),
    "tasks": ("gauge", {"status": {"queued", "dispatching", "running", "quarantined"}, "priority": PRIORITIES}),
    "oldest_due_task_age_seconds": ("gauge", {"priority": PRIORITIES}),
    "task_start_latency_seconds": ("histogram", {"backend": BACKENDS}),
    "tick_duration_seconds": ("histogram", {}),
    "tick_last_success_timestamp_seconds": ("gauge", {}),
    "leader": ("gauge", {}),
    "slots": ("gauge", {"pool": {"user", "internal", "task_pool"}, "kind": {"budget", "used"}}),
    "override_active": ("gauge", {"kind": {"drain", "billing_pause", "budget_cap", "breaker_tripped"}}),
    "rpc_server_duration_seconds": ("histogram", {"method": None, "code": None}),
    "build_info": ("gauge", {"version": None}),
}  # fmt: skip
EXECUTOR: dict[str, tuple[str, dict[str, set[str] | None]]] = {
    "runs": ("gauge", {"backend": BACKENDS, "state": {"accepted", "running"}}),
    "run_duration_seconds": (
        "histogram",
        {
            "backend": BACKENDS,
            "outcome": {"completed", "failed", "failed_for_good", "timed_out", "cancelled", "lost", "not_started"},
        },
    ),
    "resource_pressure": ("gauge", {"resource": {"cpu", "memory", "swap", "max"}}),
    "effective_slots": ("gauge", {}),
    "process_control": ("gauge", {"kind": {"cgroup", "process_group"}}),
    "rpc_server_duration_seconds": ("histogram", {"method": None, "code": None}),
    "build_info": ("gauge", {"version": None}),
}


async def scraped(program: Program) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"http://127.0.0.1:{program.http_port}/metrics")
        assert response.status_code == 200
        return response.text


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def compare(text: str, prefix: str, table: dict[str, tuple[str, dict[str, set[str] | None]]]) -> None:
    found = families(text)
    # prometheus_client adds when a counter or histogram was made.
    ours = {name for name in found if not name.endswith("_created")}
    assert ours == {f"{prefix}_{name}" for name in table}
    for name, (type_, labels) in table.items():
        family = found[f"{prefix}_{name}"]
        assert family.type == type_, name
        assert family.documentation, name
        samples = [s for s in family.samples if s.name.endswith(("_total", "_count")) or type_ == "gauge"]
        assert samples, f"{name} has no series"
        for label, values in labels.items():
            shown = {sample.labels[label] for sample in samples}
            assert values is None or shown == values, (name, label)
        for sample in samples:
            assert set(sample.labels) == set(labels), name


async def test_the_metrics_are_those_of_the_contract_and_there_from_the_start(pair: Pair) -> None:
    async def heard() -> bool:
        return 'key="cecelia-run@host-a"' in await scraped(pair.scheduler)

    await eventually(heard)
    compare(await scraped(pair.scheduler), "cecelia_scheduler", SCHEDULER)
    compare(await scraped(pair.executor), "cecelia_executor", EXECUTOR)
    for program, prefix, service in ((pair.scheduler, "scheduler", SCHEDULER_RPCS), (pair.executor, "executor", EXECUTOR_RPCS)):
        family = families(await scraped(program))[f"cecelia_{prefix}_rpc_server_duration_seconds"]
        measured = {sample.labels["method"] for sample in family.samples}
        assert measured >= {f"/{service.full_name}/{method.name}" for method in service.methods}, "every rpc, called or not"


async def test_the_metrics_move_with_the_work(pair: Pair) -> None:
    await pair.until_ended([*await pair.submit(2), *await pair.submit(1, title="x")])

    async def moved() -> dict[str, float] | None:
        found = families(await scraped(pair.scheduler))

        def value(name: str, **labels: str) -> float:
            family = found[f"cecelia_scheduler_{name}".removesuffix("_total").removesuffix("_count")]
            wanted = f"cecelia_scheduler_{name}"
            return next(s.value for s in family.samples if s.name == wanted and s.labels == labels)

        seen = {
            "dispatched": value("dispatch_decisions_total", outcome="dispatched", reason=""),
            "put aside": value("dispatch_decisions_total", outcome="blocked", reason="pre_flight_check_failed"),
            "attempts": value("dispatch_attempts_total", backend="cecelia-run", outcome="success"),
            "in the window": value("window_samples", window="attempts"),
            "rate": value("window_success_ratio", window="attempts"),
            "latencies": value("task_start_latency_seconds_count", backend="cecelia-run"),
            "quarantined": value("tasks", status="quarantined", priority="P1"),
            "leader": value("leader"),
        }
        wanted = {
            "dispatched": 2, "put aside": 1, "attempts": 2, "in the window": 2, "rate": 1, "latencies": 2, "quarantined": 1,
            "leader": 1,
        }  # fmt: skip
        return seen if seen == wanted else None

    assert await eventually(moved)


async def test_promtool_finds_nothing_to_say(pair: Pair) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed here (Debian: apt-get install prometheus)")
    await pair.until_ended(await pair.submit(2))
    for program in (pair.scheduler, pair.executor):
        process = await asyncio.create_subprocess_exec(
            "promtool", "check", "metrics",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(30):
            said, _ = await process.communicate((await scraped(program)).encode())
        assert (process.returncode, said.decode()) == (0, "")
