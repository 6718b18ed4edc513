"""Tasks behind an HTTP bridge: launched by the executor, ended by callbacks to the scheduler, never twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cecelia.executor.v1 import executor_service_pb2 as ex
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from tests.acceptance.metrics import samples, scraped
from tests.acceptance.programs import Pair, eventually
from tests.fakes.misbehaving_http_server import MisbehavingServer, plain


@pytest.fixture
async def bridge() -> AsyncIterator[MisbehavingServer]:
    async with MisbehavingServer().running() as running:
        running.behaviour = plain({"ok": True, "pid": "async"})
        yield running


@pytest.fixture
async def bridged(tmp_path: Path, database_url: str, bridge: MisbehavingServer) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path, database_url, EXECUTOR_BRIDGE_URL=bridge.url, RETRY_BACKOFF_MS="1", RETRY_BACKOFF_MAX_MS="2")
    await pair.start()
    yield pair
    await pair.stop()


def orders(bridge: MisbehavingServer) -> list[dict[str, Any]]:
    return [json.loads(body) for _line, _headers, body in bridge.requests]


async def launched(bridge: MisbehavingServer, n: int) -> dict[str, Any]:
    """The n-th order that the bridge was given."""

    async def found() -> dict[str, Any] | None:
        return orders(bridge)[n - 1] if len(bridge.requests) >= n else None

    return await eventually(found)


async def call_back(pair: Pair, order: dict[str, Any], status: str, result: Any = None) -> httpx.Response:
    body = {"task_id": order["task_id"], "checkpoint_id": order["checkpoint_id"], "status": status, "result": result}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pair.scheduler.http_port}", trust_env=False, timeout=20) as http:
        return await http.post("/api/brain/execution-callback", json=body)


async def one(pair: Pair, task_id: str) -> pb.Task:
    (task,) = await pair.tasks([task_id])
    return task


async def running(pair: Pair, task_id: str) -> pb.Task:
    """The task once its start verdict is there."""

    async def begun() -> pb.Task | None:
        task = await one(pair, task_id)
        return task if task.status == pb.TASK_STATUS_RUNNING else None

    return await eventually(begun)


async def test_a_callback_ends_the_task_once(bridged: Pair, bridge: MisbehavingServer) -> None:
    (task_id,) = await bridged.submit(title="Behind the bridge")
    order = await launched(bridge, 1)
    assert order["task_id"] == task_id
    assert order["prompt"].startswith("Behind the bridge\n\n")
    assert (await running(bridged, task_id)).run_id == order["checkpoint_id"]
    # Larger than other bodies may be: the end of a run must not be lost for its length.
    answer = await call_back(bridged, order, "AI Done", {"result": "é" * 100_000 + "a fine result"})
    assert (answer.status_code, answer.json()["changed"]) == (200, True)
    (task,) = await bridged.until_ended([task_id])
    assert task.status == pb.TASK_STATUS_COMPLETED
    assert task.outcome.result.endswith("éa fine result")
    again = await call_back(bridged, order, "AI Done")
    assert (again.status_code, again.json()["changed"]) == (200, False)
    assert (await call_back(bridged, order, "AI Failed")).status_code == 409
    assert (await call_back(bridged, order, "in_progress")).status_code == 400
    foreign = {**order, "task_id": order["checkpoint_id"]}
    assert (await call_back(bridged, foreign, "AI Failed")).status_code == 409
    assert await one(bridged, task_id) == task, "what was refused changed nothing"
    async with bridged.executor_calls() as stub:

        async def let_go() -> bool:
            run = (await stub.GetRun(ex.GetRunRequest(run_id=order["checkpoint_id"]), timeout=10)).run
            assert run.state != ex.RUN_STATE_ENDED or run.outcome == ex.RUN_OUTCOME_COMPLETED
            return run.state == ex.RUN_STATE_ENDED

        assert await eventually(let_go), "the executor gives the slot back long before the lease runs out"
    ended = samples(await scraped(bridged.executor), "cecelia_executor_run_duration_seconds_count")
    assert {labels: n for labels, n in ended.items() if n} == {("cecelia-run", "completed"): 1}, "as the scheduler recorded it"
    assert len(bridge.requests) == 1


async def test_a_failed_try_is_launched_again_under_a_new_id_and_its_old_callbacks_count_no_more(
    bridged: Pair, bridge: MisbehavingServer
) -> None:
    (task_id,) = await bridged.submit()
    first = await launched(bridge, 1)
    await running(bridged, task_id)
    assert (await call_back(bridged, first, "AI Failed", {"error": "tests are red"})).status_code == 200
    second = await launched(bridge, 2)
    assert second["checkpoint_id"] != first["checkpoint_id"]
    assert (await running(bridged, task_id)).tries == 1
    assert (await call_back(bridged, first, "AI Done")).status_code == 409, "the first attempt has ended otherwise"
    assert (await one(bridged, task_id)).status == pb.TASK_STATUS_RUNNING
    assert (await call_back(bridged, second, "AI Done")).status_code == 200
    (task,) = await bridged.until_ended([task_id])
    assert task.status == pb.TASK_STATUS_COMPLETED


async def test_a_killed_executor_waits_on_for_what_it_had_launched(bridged: Pair, bridge: MisbehavingServer) -> None:
    (task_id,) = await bridged.submit()
    order = await launched(bridge, 1)
    await running(bridged, task_id)
    await bridged.executor.kill()
    await bridged.executor.start()
    async with bridged.executor_calls() as stub:
        run = (await stub.GetRun(ex.GetRunRequest(run_id=order["checkpoint_id"]), timeout=10)).run
        assert run.state == ex.RUN_STATE_RUNNING
    assert (await call_back(bridged, order, "success")).json()["changed"] is True
    (task,) = await bridged.until_ended([task_id])
    assert task.status == pb.TASK_STATUS_COMPLETED
    assert len(bridge.requests) == 1, "it was not launched again"


async def test_three_refusals_of_the_bridge_open_the_breaker(bridged: Pair, bridge: MisbehavingServer) -> None:
    bridge.behaviour = plain({"ok": False, "error": "spawn failed"})
    await bridged.submit(3)

    async def opened() -> bool:
        async with bridged.calls() as stub:
            answer = await stub.GetBreaker(pb.GetBreakerRequest(key="cecelia-run@host-a"), timeout=10)
            return bool(answer.breaker.state == pb.BREAKER_STATE_OPEN)

    assert await eventually(opened)
    assert 3 <= len(bridge.requests) <= 6
