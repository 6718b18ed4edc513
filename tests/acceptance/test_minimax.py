"""A MiniMax that takes its time: it fills its own limit and no slot, ends when it is cancelled, and its time and figures are kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cecelia.executor.v1 import executor_service_pb2 as ex
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict

from tests.acceptance.command_line import cli
from tests.acceptance.programs import Pair, eventually
from tests.fakes.misbehaving_http_server import MisbehavingServer, Writer, plain


class SlowMiniMax(MisbehavingServer):
    """Answers once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()
        self.behaviour = self._late

    async def _late(self, writer: Writer, body: bytes) -> None:
        await self.let_go.wait()
        usage = {"prompt_tokens": 12, "completion_tokens": 30}
        await plain({"success": True, "result": json.loads(body)["title"], "usage": usage})(writer, body)


@pytest.fixture
async def slow() -> AsyncIterator[SlowMiniMax]:
    made = SlowMiniMax()
    async with made.running():
        yield made


@pytest.fixture
async def pair(tmp_path: Path, database_url: str, slow: SlowMiniMax) -> AsyncIterator[Pair]:
    """Room for one local task and for two MiniMax runs."""
    made = Pair(tmp_path, database_url, HK_MINIMAX_URL=slow.url, HK_MINIMAX_MAX_RUNS="2", CECELIA_BUDGET_SLOTS="1")
    await made.start()
    yield made
    slow.let_go.set()
    await made.stop()


async def under_way(slow: SlowMiniMax, calls: int) -> None:
    async def asked() -> bool:
        return len(slow.requests) >= calls

    await eventually(asked)


async def test_a_slow_minimax_takes_no_local_slot(pair: Pair, slow: SlowMiniMax) -> None:
    talks = await pair.submit(4, task_type="talk")
    await under_way(slow, 2)
    done = await pair.until_ended(await pair.submit(1))
    assert {task.status for task in done} == {pb.TASK_STATUS_COMPLETED}
    assert len(slow.requests) == 2, "its own limit"
    async with pair.executor_calls() as stub:
        there = (await stub.CheckAvailability(ex.CheckAvailabilityRequest(), timeout=10)).backends
    (full,) = (backend for backend in there if backend.backend == "hk-minimax")
    assert (full.available, full.reason, full.configured, full.running) == (False, "server_overloaded", True, 2)
    slow.let_go.set()
    assert {task.status for task in await pair.until_ended(talks)} == {pb.TASK_STATUS_COMPLETED}
    async with pair.calls() as stub:
        breaker = (await stub.GetBreaker(pb.GetBreakerRequest(key="hk-minimax"), timeout=10)).breaker
    assert (breaker.state, breaker.failures) == (pb.BREAKER_STATE_CLOSED, 0)


async def test_a_cancelled_call_ends_while_the_service_still_thinks(pair: Pair, slow: SlowMiniMax) -> None:
    (id_,) = await pair.submit(task_type="talk")
    await under_way(slow, 1)
    async with pair.calls() as stub:
        await stub.CancelTask(pb.CancelTaskRequest(task_id=id_, reason="not needed"), timeout=10)
    (task,) = await pair.until_ended([id_])
    assert task.status == pb.TASK_STATUS_CANCELLED
    async with asyncio.timeout(10):
        await slow.left.wait()
    assert not slow.let_go.is_set()


async def test_its_time_counts_from_the_call_and_its_figures_are_kept(pair: Pair, slow: SlowMiniMax) -> None:
    (id_,) = await pair.submit(title="Say something", task_type="talk")
    await under_way(slow, 1)
    thinking = datetime.now(UTC)
    slow.let_go.set()
    (task,) = await pair.until_ended([id_])
    assert task.outcome.result == "Say something"
    assert task.start_time.ToDatetime(UTC) < thinking < task.end_time.ToDatetime(UTC)
    assert MessageToDict(task.usage) == {"prompt_tokens": 12, "completion_tokens": 30}
    async with pair.executor_calls() as stub:
        run = (await stub.GetRun(ex.GetRunRequest(run_id=task.run_id), timeout=10)).run
    assert run.start_time.ToDatetime(UTC) < thinking < run.end_time.ToDatetime(UTC)
    shown = await asyncio.to_thread(cli, "task", id_, pair=pair)
    assert "usage          completion_tokens 30, prompt_tokens 12" in shown.stdout
    told = json.loads((await asyncio.to_thread(cli, "task", id_, "-o", "json", pair=pair)).stdout)
    assert told["usage"] == {"prompt_tokens": 12, "completion_tokens": 30}
