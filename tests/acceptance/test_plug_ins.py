"""The backend that docs/backends.md writes, installed beside the executor: it works, and what is wrong with it stays with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cecelia.executor.v1 import executor_service_pb2 as ex
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.acceptance.command_line import cli
from tests.acceptance.programs import Pair, Program, channel_to, eventually
from tests.fakes.plug_ins import code_of_the_page, install

ROUTES = "lines=line-worker,*=cecelia-run"


class LineService:
    """Answers each line with its title in capitals, once `open`; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            asked = json.loads(await reader.readline())
            self.asked.append(asked)
            await self.open.wait()
            answer = {"error": "no"} if asked["title"] == "Refuse this one" else {"result": asked["title"].upper()}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()


@pytest.fixture
async def service() -> AsyncIterator[LineService]:
    made = LineService()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    made.open.set()
    server.close()


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """Where the page's backend is installed, and one whose import fails."""
    folder = tmp_path / "installed"
    install(folder, "line-worker-plugin", {"line_worker": code_of_the_page()}, {"line-worker": "line_worker:create"})
    install(folder, "broken-plugin", {"plug_broken": "import no_such_module_at_all"}, {"broken": "plug_broken:create"})
    return str(folder)


@contextlib.asynccontextmanager
async def started(tmp_path: Path, database_url: str, **settings: str) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path, database_url, DISPATCH_ROUTES=ROUTES, **settings)
    try:
        await pair.start()
        yield pair
    finally:
        await pair.stop()


async def availability(pair: Pair) -> dict[str, ex.BackendAvailability]:
    async with pair.executor_calls() as stub:
        found = await stub.CheckAvailability(ex.CheckAvailabilityRequest(), timeout=10)
    return {backend.backend: backend for backend in found.backends}


async def answer_of(program: Program, path: str) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        found = await http.get(f"http://127.0.0.1:{program.http_port}{path}")
    assert found.status_code == 200
    return dict(found.json())


async def health_of(pair: Pair, backend: str) -> str:
    async with channel_to(pair.executor.port) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=f"cecelia.executor.v1.ExecutorService/{backend}")
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name((await stub.Check(request, timeout=10)).status))


async def test_the_backend_of_the_page_runs_tasks(
    tmp_path: Path, database_url: str, service: LineService, installed: str
) -> None:
    async with started(tmp_path, database_url, PYTHONPATH=installed, LINE_WORKER=service.address) as pair:
        (line,) = await pair.submit(title="A line to work on", task_type="lines")
        (refused,) = await pair.submit(title="Refuse this one", task_type="Lines")
        (local,) = await pair.submit(title="A local task")
        done, failed, other = await pair.until_ended([line, refused, local])
        assert (done.status, done.backend, done.outcome.result) == (pb.TASK_STATUS_COMPLETED, "line-worker", "A LINE TO WORK ON")
        assert MessageToDict(done.usage) == {"characters": 17}
        assert (failed.status, failed.outcome.error) == (pb.TASK_STATUS_FAILED, "no")
        assert (other.status, other.backend) == (pb.TASK_STATUS_COMPLETED, "cecelia-run")
        assert {asked["title"] for asked in service.asked} == {"A line to work on", "Refuse this one"}

        there = (await availability(pair))["line-worker"]
        assert (there.available, there.kind, there.local, there.max_runs) == (True, ex.BACKEND_KIND_SHARED, False, 2)
        async with pair.calls() as stub:
            breakers = (await stub.ListBreakers(pb.ListBreakersRequest(), timeout=10)).breakers
            assert {b.key for b in breakers} == {"cecelia-run", "cecelia-run@host-a", "line-worker", "broken", "hk-minimax"}
            stats = await stub.GetDispatchStats(pb.GetDispatchStatsRequest(), timeout=10)
            assert stats.attempts_by_backend["line-worker"].success == 2
            paused = await stub.SetBillingPause(_pause("line-worker"), timeout=10)
            assert paused.pause.backend == "line-worker"
        shown = await asyncio.to_thread(cli, "task", line, pair=pair)
        assert "usage          characters 17" in shown.stdout


def _pause(backend: str) -> pb.SetBillingPauseRequest:
    request = pb.SetBillingPauseRequest(backend=backend, reason="for a test")
    request.until_time.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    return request


async def test_its_own_limit_fills_and_takes_no_local_slot(
    tmp_path: Path, database_url: str, service: LineService, installed: str
) -> None:
    service.open.clear()
    async with started(
        tmp_path, database_url, PYTHONPATH=installed, LINE_WORKER=service.address, CECELIA_BUDGET_SLOTS="1"
    ) as pair:
        lines = await pair.submit(3, task_type="lines")
        await pair.until_ended(await pair.submit(1))

        async def full() -> pb.BackendSlots | None:
            async with pair.calls() as stub:
                events = await stub.ListDispatchEvents(pb.ListDispatchEventsRequest(reason="pool_c_full"), timeout=10)
                slots = await stub.GetSlots(pb.GetSlotsRequest(), timeout=10)
            (own,) = (backend for backend in slots.backends if backend.backend == "line-worker")
            return own if any(event.backend == "line-worker" for event in events.events) else None

        own = await eventually(full)
        assert (own.local, own.budget, own.used) == (False, 2, 2)

        async def both() -> bool:
            return len(service.asked) == 2

        await eventually(both)
        service.open.set()
        assert {task.status for task in await pair.until_ended(lines)} == {pb.TASK_STATUS_COMPLETED}


async def test_its_breaker_opens_and_no_other(tmp_path: Path, database_url: str, installed: str) -> None:
    async with started(tmp_path, database_url, PYTHONPATH=installed, LINE_WORKER="127.0.0.1:9") as pair:
        await pair.submit(3, task_type="lines")

        async def opened() -> dict[str, pb.Breaker] | None:
            async with pair.calls() as stub:
                found = {b.key: b for b in (await stub.ListBreakers(pb.ListBreakersRequest(), timeout=10)).breakers}
            return found if found["line-worker"].state == pb.BREAKER_STATE_OPEN else None

        found = await eventually(opened)
        assert found["line-worker"].failures == 3
        assert {key for key, one in found.items() if one.state != pb.BREAKER_STATE_CLOSED} == {"line-worker"}
        (task,) = await pair.until_ended(await pair.submit(1))
        assert task.status == pb.TASK_STATUS_COMPLETED
        async with pair.calls() as stub:
            after = (await stub.ResetBreaker(pb.ResetBreakerRequest(key="line-worker", reason="a test"), timeout=10)).after
        assert after.state == pb.BREAKER_STATE_CLOSED


async def test_what_is_wrong_is_shown_everywhere_and_stops_nothing(tmp_path: Path, database_url: str, installed: str) -> None:
    settings = {
        "PYTHONPATH": installed,
        "EXECUTOR_BACKENDS": "cecelia-run,hk-minimax,line-worker,broken,clsuter",
        "HK_MINIMAX_URL": "htp://here",
    }
    wrong = {
        "broken": "ModuleNotFoundError: No module named 'no_such_module_at_all'",
        "clsuter": "EXECUTOR_BACKENDS names clsuter, which no installed distribution offers",
        "hk-minimax": "HK_MINIMAX_URL=htp://here is no http or https URL with a host",
        "line-worker": "LINE_WORKER= is not host:port",
    }
    async with started(tmp_path, database_url, **settings) as pair:
        (local,) = await pair.until_ended(await pair.submit(1))
        assert local.status == pb.TASK_STATUS_COMPLETED
        await pair.submit(1, task_type="lines")

        async def held() -> list[pb.DispatchEvent] | None:
            async with pair.calls() as stub:
                found = await stub.ListDispatchEvents(pb.ListDispatchEventsRequest(reason="config_error"), timeout=10)
            return list(found.events) or None

        event = (await eventually(held))[0]
        assert (event.backend, event.attempt) == ("line-worker", False)
        assert wrong["line-worker"] in event.detail

        there = await availability(pair)
        assert {name for name, backend in there.items() if backend.configured} == {"cecelia-run"}
        for name, words in wrong.items():
            assert (there[name].available, there[name].reason) == (False, "config_error")
            assert words in there[name].detail
        async with pair.calls() as stub:
            status = await stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        assert {one.backend for one in status.executors[0].misconfigured} == set(wrong)
        assert {b.state for b in status.breakers} == {pb.BREAKER_STATE_CLOSED}
        assert status.stats.attempts.failed == 0

        notes = (await answer_of(pair.executor, "/readyz"))["notes"]
        assert len(notes) == len(wrong)
        assert f"config_error: hk-minimax: {wrong['hk-minimax']}" in notes
        backends = (await answer_of(pair.scheduler, "/api/brain/health"))["organs"]["backends"]
        assert backends["status"] == "config_error"
        assert {one["backend"] for one in backends["misconfigured"]} == set(wrong)
        assert [await health_of(pair, name) for name in ("cecelia-run", "line-worker", "broken")] == [
            "SERVING",
            "NOT_SERVING",
            "NOT_SERVING",
        ]
        shown = await asyncio.to_thread(cli, "status", pair=pair)
        assert "CONFIG ERROR ON" in shown.stdout
        assert wrong["line-worker"] in shown.stdout
        listed = await asyncio.to_thread(cli, "backends", pair=pair)
        assert all(name in listed.stdout for name in wrong)


async def test_a_type_that_no_route_takes_is_refused(tmp_path: Path, database_url: str) -> None:
    pair = Pair(tmp_path, database_url, DISPATCH_ROUTES="talk=hk-minimax,dev=cecelia-run")
    try:
        await pair.start()
        refused = await asyncio.to_thread(
            cli, "submit", "--title", "An unknown type", "--description", "x" * 60, "--type", "tlak", pair=pair, status=2
        )
        assert "DISPATCH_ROUTES" in refused.stderr
        assert "'tlak'" in refused.stderr
        assert "dev, talk" in refused.stderr
        (task,) = await pair.until_ended(await pair.submit(1))
        assert task.status == pb.TASK_STATUS_COMPLETED
    finally:
        await pair.stop()


async def test_an_executor_alone_runs_it_too(tmp_path: Path, service: LineService, installed: str) -> None:
    pair = Pair(tmp_path, "unused", PYTHONPATH=installed, LINE_WORKER=service.address, EXECUTOR_BACKENDS="line-worker")
    try:
        await pair.executor.start()
        assert set(await availability(pair)) == {"line-worker"}
        run_id = str(uuid4())
        request = ex.DispatchTasksRequest(
            runs=[ex.RunRequest(run_id=run_id, task_id=str(uuid4()), title="Alone", task_type="lines", backend="line-worker")]
        )

        async def ended() -> ex.Run | None:
            async with pair.executor_calls() as stub:
                (result,) = (await stub.DispatchTasks(request, timeout=10)).results
                assert result.accepted, result
                run = (await stub.GetRun(ex.GetRunRequest(run_id=run_id), timeout=10)).run
            return run if run.state == ex.RUN_STATE_ENDED else None

        run = await eventually(ended)
        assert (run.outcome, run.result, MessageToDict(run.usage)) == (ex.RUN_OUTCOME_COMPLETED, "ALONE", {"characters": 5})
        assert len(service.asked) == 1, "sent again, the same run is not run again"
    finally:
        await pair.stop()
