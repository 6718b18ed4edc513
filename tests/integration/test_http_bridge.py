"""The HTTP bridge as a backend, against a real server that also misbehaves."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from executor_service.backends.cecelia_run import create
from executor_service.backends.http_bridge import TRIGGERED, HttpBridge
from executor_service.backends.http_call import BODY_MAX_BYTES
from executor_service.backends.local_bridge import LocalBridge
from executor_service.core.run import EndReport, RunOutcome, RunSpec, StartReport, StartVerdict
from executor_service.settings import ExecutorSettings
from service_runtime.clock import SystemClock
from tests.fakes.misbehaving_http_server import Behaviour, MisbehavingServer, answer, drip, endless, plain, raw, silent

SPEC = RunSpec(
    "123e4567-e89b-42d3-a456-426614174000",
    "223e4567-e89b-42d3-a456-426614174000",
    1,
    "A title",
    "A description",
    "dev",
    "cecelia-run",
    {"repo_path": "/repo", "skill_env": {"DEPTH": 3}},
    timedelta(hours=1),
    timedelta(0),
    model="m-1",
    permission_mode="plan",
)
LAUNCHED = plain({"ok": True, "task_id": "x", "checkpoint_id": "y", "pid": "async"})


class Reports:
    def __init__(self) -> None:
        self.seen: list[StartReport] = []
        self.told = asyncio.Event()

    def started(self, report: StartReport) -> None:
        self.seen.append(report)
        self.told.set()


@pytest.fixture
async def server() -> AsyncIterator[MisbehavingServer]:
    async with MisbehavingServer().running() as running:
        running.behaviour = LAUNCHED
        yield running


async def refused(url: str, folder: Path, spec: RunSpec = SPEC, total_s: float = 5.0) -> tuple[StartReport, EndReport]:
    """The verdict and the end of a call that launches nothing."""
    backend, reports = HttpBridge(url, SystemClock(), total_s=total_s), Reports()
    try:
        async with asyncio.timeout(20):
            end = await backend.execute(spec, folder, 0, reports)
    finally:
        await backend.close()
    (start,) = reports.seen
    assert not (folder / TRIGGERED).exists()
    return start, end


async def test_a_launch_goes_on_until_the_scheduler_says_that_it_is_over(server: MisbehavingServer, tmp_path: Path) -> None:
    backend, reports = HttpBridge(server.url, SystemClock()), Reports()
    work = asyncio.ensure_future(backend.execute(SPEC, tmp_path, 0, reports))
    async with asyncio.timeout(10):
        await reports.told.wait()
        assert reports.seen == [StartReport(StartVerdict.SUCCESS)]
        assert not work.done()
        await backend.cancel(SPEC, tmp_path, "not a live run of the scheduler")
        end = await work
    await backend.close()
    assert end.outcome is RunOutcome.CANCELLED
    line, headers, body = server.requests[0]
    assert line.startswith("POST /trigger-cecelia HTTP/1.1")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "task_id": SPEC.task_id,
        "checkpoint_id": SPEC.run_id,
        "prompt": "A title\n\nA description",
        "task_type": "dev",
        "permission_mode": "plan",
        "repo_path": "/repo",
        "model": "m-1",
        "provider": SPEC.provider,
        "extra_env": {"DEPTH": "3"},
    }


async def test_the_next_process_of_the_executor_waits_on(server: MisbehavingServer, tmp_path: Path) -> None:
    backend, reports = HttpBridge(server.url, SystemClock()), Reports()
    work = asyncio.ensure_future(backend.execute(SPEC, tmp_path, 0, reports))
    async with asyncio.timeout(10):
        await reports.told.wait()
    work.cancel()
    await backend.close()
    again, told = HttpBridge(server.url, SystemClock()), Reports()
    waiting = asyncio.ensure_future(again.reattach(SPEC, tmp_path, told))
    async with asyncio.timeout(10):
        await told.told.wait()
        assert told.seen == [StartReport(StartVerdict.SUCCESS)]
        await again.cancel(SPEC, tmp_path, "over")
        assert (await waiting).outcome is RunOutcome.CANCELLED
    await again.close()
    assert len(server.requests) == 1, "it is not launched again"


@pytest.mark.parametrize("noted", [None, "{", "[]", '{"deadline": "soon"}'])
async def test_a_launch_that_was_not_noted_is_lost_and_nobodys_failure(tmp_path: Path, noted: str | None) -> None:
    if noted is not None:
        (tmp_path / TRIGGERED).write_text(noted)
    backend, reports = HttpBridge("http://127.0.0.1:9", SystemClock()), Reports()
    async with asyncio.timeout(10):
        end = await backend.reattach(SPEC, tmp_path, reports)
    await backend.close()
    assert (reports.seen[0].verdict, end.outcome) == (StartVerdict.NEUTRAL, RunOutcome.LOST)


async def test_no_end_within_the_tasks_time_is_a_time_out(server: MisbehavingServer, tmp_path: Path) -> None:
    backend, reports = HttpBridge(server.url, SystemClock()), Reports()
    async with asyncio.timeout(10):
        end = await backend.execute(replace(SPEC, timeout=timedelta(seconds=0.5)), tmp_path, 0, reports)
    await backend.close()
    assert (reports.seen[0].verdict, end.outcome) == (StartVerdict.SUCCESS, RunOutcome.TIMED_OUT)
    assert "no end within 0.5 s" in end.error


async def test_a_disk_that_takes_nothing_does_not_lose_the_launch(server: MisbehavingServer, tmp_path: Path) -> None:
    backend, reports = HttpBridge(server.url, SystemClock()), Reports()
    work = asyncio.ensure_future(backend.execute(SPEC, tmp_path / "gone", 0, reports))
    async with asyncio.timeout(10):
        await reports.told.wait()
        assert reports.seen[0].verdict is StartVerdict.SUCCESS
        await backend.cancel(SPEC, tmp_path, "over")
        await work
    await backend.close()


BAD: dict[str, Behaviour] = {
    "ok false": plain({"ok": False, "error": "spawn failed"}),
    "ok missing": plain({"task_id": "x"}),
    "ok as text": plain({"ok": "true"}),
    "500": plain({"ok": False, "error": "boom"}, 500),
    "503 as HTML": answer(503, b"<html>down</html>", "text/html"),
    "HTML 200": answer(200, b"<html>login</html>", "text/html"),
    "JSON that is not": answer(200, b"{"),
    "204 empty": raw(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n"),
    "cut": raw(b""),
    "redirect": answer(302, b"", "text/plain", Location="http://127.0.0.1:9/"),
    "endless": endless(),
    "gzip": answer(200, gzip.compress(b"0" * 50_000_000), Content_Encoding="gzip"),
    "too large": answer(200, b'{"ok": true, "pid": "' + b"x" * BODY_MAX_BYTES + b'"}'),
    "drip": drip(0.3),
}


@pytest.mark.parametrize("behaviour", BAD.values(), ids=BAD.keys())
async def test_what_is_wrong_with_the_bridge_is_its_failure(
    server: MisbehavingServer, tmp_path: Path, behaviour: Behaviour
) -> None:
    server.behaviour = behaviour
    start, end = await refused(server.url, tmp_path, total_s=1.5)
    assert (start.verdict, start.reason, end.outcome) == (StartVerdict.FAILURE, "executor_failed", RunOutcome.NOT_STARTED)
    assert len(server.requests) == 1, "a failed call is not repeated here"


async def test_silence_and_a_refused_connection_are_its_failure(server: MisbehavingServer, tmp_path: Path) -> None:
    done = asyncio.Event()
    server.behaviour = silent(done)
    start, _end = await refused(server.url, tmp_path, total_s=0.3)
    done.set()
    assert (start.verdict, start.reason) == (StartVerdict.FAILURE, "executor_failed")
    start, _end = await refused("http://127.0.0.1:9", tmp_path)
    assert (start.verdict, start.reason) == (StartVerdict.FAILURE, "executor_failed")


@pytest.mark.parametrize(("status", "reason"), [(401, "auth"), (403, "auth"), (429, "rate_limit")])
async def test_credentials_and_limits_are_nobodys_failure(
    server: MisbehavingServer, tmp_path: Path, status: int, reason: str
) -> None:
    server.behaviour = plain({"ok": False, "error": "no"}, status)
    start, end = await refused(server.url, tmp_path)
    assert (start.verdict, start.reason, end.outcome) == (StartVerdict.NEUTRAL, reason, RunOutcome.NOT_STARTED)


async def test_a_400_is_a_proper_answer_to_a_task_that_will_not_do(server: MisbehavingServer, tmp_path: Path) -> None:
    server.behaviour = plain({"ok": False, "error": "prompt is required"}, 400)
    start, end = await refused(server.url, tmp_path)
    assert (start.verdict, end.outcome) == (StartVerdict.SUCCESS, RunOutcome.FAILED_FOR_GOOD)
    assert "prompt is required" in end.error


async def test_a_cancel_before_the_answer_breaks_the_call_off(server: MisbehavingServer, tmp_path: Path) -> None:
    done = asyncio.Event()
    server.behaviour = silent(done)
    backend, reports = HttpBridge(server.url, SystemClock()), Reports()
    work = asyncio.ensure_future(backend.execute(SPEC, tmp_path, 0, reports))
    async with asyncio.timeout(10):
        await server.asked.wait()
        await backend.cancel(SPEC, tmp_path, "enough")
        end = await work
    done.set()
    await backend.close()
    assert (reports.seen[0].verdict, end.outcome) == (StartVerdict.NEUTRAL, RunOutcome.CANCELLED)


@pytest.mark.parametrize("url", ["ftp://host", "http://", "not a url", "http://host:0", "ftp://me:hunter2@host"])
async def test_a_wrong_url_is_a_matter_of_configuration(url: str) -> None:
    backend = create(ExecutorSettings(executor_bridge_url=url), {})
    assert isinstance(backend, HttpBridge)
    assert "EXECUTOR_BRIDGE_URL" in backend.check_configuration()
    assert "hunter2" not in backend.check_configuration()
    await backend.close()


def test_without_a_url_the_command_runs_here() -> None:
    assert isinstance(create(ExecutorSettings(), {}), LocalBridge)
