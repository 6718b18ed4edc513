"""The metrics of the running pair against the contract's table: names, types, labels, and every series there at zero."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import grpc
import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as scheduler_pb

from tests.acceptance.metrics import families, scraped
from tests.acceptance.programs import Pair, eventually

SCHEDULER_RPCS = scheduler_pb.DESCRIPTOR.services_by_name["SchedulerService"]
EXECUTOR_RPCS = executor_pb.DESCRIPTOR.services_by_name["ExecutorService"]
BACKENDS = ("cecelia-run", "hk-minimax")
PRIORITIES = ("P0", "P1", "P2")
ROWS = ("cecelia-run@host-a", "hk-minimax")
STATES = ("CLOSED", "OPEN", "HALF_OPEN")
WINDOWS = ("window_1h", "attempts")
HOLDS = (
    "draining", "billing_pause", "user_team_mode", "pool_exhausted", "pool_c_full", "low_success_rate", "circuit_breaker_open",
    "no_executor", "config_error",
)  # fmt: skip
OUTCOMES = ("completed", "failed", "failed_for_good", "timed_out", "cancelled", "lost", "not_started")
# The contract's reason codes by their kind.
DECISIONS = {
    "dispatched": ("",),
    "blocked": (
        "draining", "billing_pause", "user_team_mode", "pool_exhausted", "pool_c_full", "low_success_rate",
        "circuit_breaker_open", "pre_flight_check_failed",
    ),
    "failed": ("no_executor", "task_not_found", "executor_failed"),
    "rejected": ("already_running", "server_overloaded", "config_error"),
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A row of the contract's table: `series` are all values that its labels take, None where those depend on what ran."""

    type: str
    labels: tuple[str, ...] = ()
    series: frozenset[tuple[str, ...]] | None = frozenset({()})


def each(type_: str, **labels: Iterable[str]) -> Wanted:
    """One series for each combination of the labels' values."""
    return Wanted(type_, tuple(labels), frozenset(product(*labels.values())))


BOTH = {
    "rpc_server_duration_seconds": Wanted("histogram", ("method", "code"), None),
    "build_info": Wanted("gauge", ("version",), None),
    "disk_free_bytes": each("gauge", folder=("data",)),
}
SCHEDULER = {
    "dispatch_decisions": Wanted(
        "counter",
        ("outcome", "reason"),
        frozenset((outcome, reason) for outcome, reasons in DECISIONS.items() for reason in reasons),
    ),
    "dispatch_attempts": each("counter", backend=BACKENDS, outcome=("success", "failure")),
    "window_success_ratio": each("gauge", window=WINDOWS),
    "window_samples": each("gauge", window=WINDOWS),
    "hold_active": each("gauge", reason=HOLDS),
    "hold_observed": each("gauge", reason=("low_success_rate", "circuit_breaker_open")),
    "drain_duration_seconds": Wanted("histogram"),
    # The bare name of a backend with a breaker for each executor is an answer over those: it has a state and no transitions.
    "breaker_state": each("gauge", key=(*ROWS, "cecelia-run"), state=STATES),
    "breaker_transitions": each("counter", key=ROWS, to=STATES),
    "tasks": each("gauge", status=("queued", "dispatching", "running", "quarantined"), priority=PRIORITIES),
    "oldest_due_task_age_seconds": each("gauge", priority=PRIORITIES),
    "task_start_latency_seconds": each("histogram", backend=BACKENDS),
    "tick_duration_seconds": Wanted("histogram"),
    "tick_last_success_timestamp_seconds": Wanted("gauge"),
    "leader": Wanted("gauge"),
    "slots": each("gauge", pool=("user", "internal", "task_pool"), kind=("budget", "used")),
    "override_active": each("gauge", kind=("drain", "billing_pause", "budget_cap", "breaker_tripped")),
    "override_since_timestamp_seconds": each("gauge", kind=("drain", "billing_pause", "budget_cap", "breaker_tripped")),
    **BOTH,
}
EXECUTOR = {
    "runs": each("gauge", backend=BACKENDS, state=("accepted", "running")),
    "run_duration_seconds": each("histogram", backend=BACKENDS, outcome=OUTCOMES),
    "resource_pressure": each("gauge", resource=("cpu", "memory", "swap", "max")),
    "effective_slots": Wanted("gauge"),
    "admission_slots": Wanted("gauge"),
    "resource_stall_ratio": each("gauge", resource=("cpu", "memory")),
    "backend_configured": each("gauge", backend=BACKENDS),
    "process_control": each("gauge", kind=("cgroup", "process_group")),
    **BOTH,
}
# Ticks and health checks go on before anybody has asked for anything.
GO_ON = {"tick_duration_seconds", "rpc_server_duration_seconds"}


def compare(text: str, prefix: str, table: Mapping[str, Wanted]) -> None:
    found = families(text)
    # prometheus_client adds when a counter or histogram was made.
    ours = {name for name in found if not name.endswith("_created")}
    assert ours == {f"{prefix}_{name}" for name in table}
    for name, wanted in table.items():
        family = found[f"{prefix}_{name}"]
        assert family.type == wanted.type, name
        assert family.documentation, name
        counted = {"counter": "_total", "histogram": "_count"}.get(wanted.type, "")
        series = {
            tuple(sample.labels[label] for label in wanted.labels): sample.value
            for sample in family.samples
            if sample.name == family.name + counted and len(sample.labels) == len(wanted.labels)
        }
        assert series, f"{name} has no series"
        assert wanted.series in (None, set(series)), name
        if counted and name not in GO_ON:
            assert not any(series.values()), f"nothing has been submitted, and {name} has counted"


async def test_the_metrics_are_those_of_the_contract_and_there_from_the_start(pair: Pair) -> None:
    async def heard() -> bool:
        return 'key="cecelia-run@host-a"' in await scraped(pair.scheduler)

    await eventually(heard)
    compare(await scraped(pair.scheduler), "cecelia_scheduler", SCHEDULER)
    compare(await scraped(pair.executor), "cecelia_executor", EXECUTOR)
    for program, prefix, service in ((pair.scheduler, "scheduler", SCHEDULER_RPCS), (pair.executor, "executor", EXECUTOR_RPCS)):
        family = families(await scraped(program))[f"cecelia_{prefix}_rpc_server_duration_seconds"]
        measured = {sample.labels["method"] for sample in family.samples if sample.labels["code"] == "OK"}
        assert measured >= {f"/{service.full_name}/{method.name}" for method in service.methods}, "every rpc, called or not"
        assert {sample.labels["code"] for sample in family.samples} <= {code.name for code in grpc.StatusCode}


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
            "room on the disk": value("disk_free_bytes", folder="data") > 0,
        }
        wanted = {
            "dispatched": 2, "put aside": 1, "attempts": 2, "in the window": 2, "rate": 1, "latencies": 2, "quarantined": 1,
            "leader": 1, "room on the disk": True,
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
