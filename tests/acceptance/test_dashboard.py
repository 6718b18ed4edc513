"""Every query of the Grafana dashboard, asked of a real Prometheus that scrapes the real pair under load, has data."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from tests.acceptance.monitoring import DEPLOY, Monitor, has_data, prometheus
from tests.acceptance.programs import Pair, Program, eventually

BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "cecelia-dispatch.json").read_text("utf-8"))
KEY = "cecelia-run@host-a"


@pytest.fixture
async def replicas(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Pair, Program]]:
    """A pair, and a second scheduler that stands by."""
    pair = Pair(tmp_path, database_url, LEASE_TTL_MS="60000")
    data_dir = tmp_path / "scheduler-1"
    other = Program(
        "scheduler_service", {**pair.scheduler._env, "DISPATCH_DATA_DIR": str(data_dir)}, data_dir, tmp_path / "scheduler-1.log"
    )
    await pair.start()
    other._env["EXECUTOR_TARGETS"] = f"127.0.0.1:{pair.executor.port}"
    await other.start()
    first = pair.scheduler
    yield pair, other
    # A test may have put the other in its place; both are ended.
    pair.scheduler = first
    await other.end()
    await pair.stop()


def queries() -> Iterator[tuple[str, str]]:
    """Title and PromQL of each panel's and each annotation's query."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for note in BOARD["annotations"]["list"]:
        if "expr" in note:
            yield f"annotation {note['name']}", note["expr"]


@pytest.mark.long
async def test_every_query_has_data(replicas: tuple[Pair, Program], tmp_path: Path) -> None:
    pair, other = replicas
    targets = {"cecelia-scheduler": [pair.scheduler, other], "cecelia-executor": [pair.executor]}
    async with prometheus(tmp_path / "prometheus", targets).running() as server:
        start = time.time()
        await _scraped(server, 3)
        await _work(pair)
        await _overrides(server, pair)
        # Another leads, and works on.
        await pair.scheduler.kill()
        pair.scheduler, dead = other, pair.scheduler
        await _work(pair)
        await dead.start()
        values = await _choices(server)
        empty = dict.fromkeys(queries())
        assert len(empty) > 40

        async def none_is_empty() -> bool:
            for title, expr in list(empty):
                if await has_data(server, _filled(expr, values), start, time.time()):
                    del empty[title, expr]
            return not empty

        try:
            await eventually(none_is_empty)
        except TimeoutError:
            pytest.fail(f"without data: {json.dumps(list(empty), indent=1)}")
        assert not await has_data(server, "cecelia_scheduler_no_such_metric", start, time.time())


async def _scraped(server: Monitor, more: int) -> None:
    """Waits until each target has been scraped so often."""

    async def enough() -> bool:
        found = await server.data("/api/v1/query", query="min(count_over_time(up[10m]))")
        return bool(found["result"]) and float(found["result"][0]["value"][1]) >= wanted

    wanted = 0
    found = await server.data("/api/v1/query", query="min(count_over_time(up[10m]))")
    wanted = more + (int(found["result"][0]["value"][1]) if found["result"] else 0)
    await eventually(enough)


async def _work(pair: Pair) -> None:
    async def submitted() -> list[str]:
        return await pair.submit(20)

    await pair.until_ended(await eventually(submitted))


async def _overrides(server: Monitor, pair: Pair) -> None:
    """Each kind for as long as it takes to be scraped, and lifted again."""
    async with pair.calls() as stub:
        await stub.SetDrain(pb.SetDrainRequest(enabled=True, reason="test"), timeout=10)
        await stub.SetBudgetCap(pb.SetBudgetCapRequest(slots=5, reason="test"), timeout=10)
        await stub.TripBreaker(pb.TripBreakerRequest(key=KEY, reason="test"), timeout=10)

        async def seen() -> bool:
            found = await server.data("/api/v1/query", query="sum(max by (kind) (cecelia_scheduler_override_active))")
            return bool(found["result"]) and float(found["result"][0]["value"][1]) == 3

        await eventually(seen)
        await _scraped(server, 3)
        await stub.ResetBreaker(pb.ResetBreakerRequest(key=KEY, reason="test"), timeout=10)
        await stub.SetBudgetCap(pb.SetBudgetCapRequest(reason="test"), timeout=10)
        await stub.SetDrain(pb.SetDrainRequest(enabled=False, reason="test"), timeout=10)
    await _scraped(server, 3)


async def _choices(server: Monitor) -> dict[str, str]:
    """What each variable of the dashboard offers, all of it chosen, as Grafana fills it in."""
    values = {}
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert asked is not None
            metric, label = asked.groups()
            found = await server.data(f"/api/v1/label/{label}/values", **{"match[]": metric})
            assert found, f"the variable {variable['name']} offers nothing"
            values[variable["name"]] = "|".join(re.escape(value).replace("\\", "\\\\") for value in found)
    assert set(values) == {"backend", "executor"}
    return values


def _filled(expr: str, values: dict[str, str]) -> str:
    """Grafana's variables filled in; its $__rate_interval is four times the scrape interval or more."""
    for name, value in values.items():
        expr = re.sub(rf"\${name}\b", lambda _match, value=value: value, expr)
    return expr.replace("$__rate_interval", "10s")
