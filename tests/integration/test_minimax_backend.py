"""The MiniMax backend against a real server that also misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from executor_service.backends.http_call import BODY_MAX_BYTES
from executor_service.backends.minimax import MiniMax
from executor_service.core.run import EndReport, RunOutcome, RunSpec, StartReport, StartVerdict
from service_runtime.clock import SystemClock
from tests.fakes.misbehaving_http_server import (
    Behaviour,
    MisbehavingServer,
    answer,
    drip,
    drip_head,
    endless,
    interim,
    plain,
    raw,
    silent,
)

SPEC = RunSpec(
    "123e4567-e89b-42d3-a456-426614174000",
    "223e4567-e89b-42d3-a456-426614174000",
    1,
    "A title",
    "A description",
    "talk",
    "hk-minimax",
    {},
    timedelta(hours=1),
    timedelta(0),
)
NOWHERE = Path("unused")


class Reports:
    def __init__(self) -> None:
        self.seen: list[StartReport] = []

    def started(self, report: StartReport) -> None:
        self.seen.append(report)


@pytest.fixture
async def server() -> AsyncIterator[MisbehavingServer]:
    async with MisbehavingServer().running() as running:
        yield running


async def call(url: str, spec: RunSpec = SPEC, total_s: float = 5.0) -> tuple[StartReport, EndReport]:
    backend, reports = MiniMax(url, 4, SystemClock(), total_s=total_s), Reports()
    try:
        async with asyncio.timeout(20):
            end = await backend.execute(spec, NOWHERE, 0, reports)
    finally:
        await backend.close()
    (start,) = reports.seen
    return start, end


async def test_a_good_answer_is_the_work(server: MisbehavingServer) -> None:
    server.behaviour = plain(
        {"success": True, "task_id": "x", "result": "谢谢", "usage": {"prompt_tokens": 7}, "skill_loaded": False}
    )
    start, end = await call(server.url)
    assert (start.verdict, end.outcome, end.result, end.usage) == (
        StartVerdict.SUCCESS,
        RunOutcome.COMPLETED,
        "谢谢",
        {"prompt_tokens": 7},
    )
    line, headers, body = server.requests[0]
    assert line.startswith("POST /execute HTTP/1.1")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"id": SPEC.task_id, "title": "A title", "description": "A description", "task_type": "talk"}


BAD: dict[str, Behaviour] = {
    "success false": plain({"success": False, "error": "no model"}),
    "success missing": plain({"result": "x"}),
    "500": plain({"success": False, "error": "boom"}, 500),
    "503 as HTML": answer(503, b"<html>down</html>", "text/html"),
    "HTML 200": answer(200, b"<html>login</html>", "text/html"),
    "JSON that is not": answer(200, b"{"),
    "a list": plain([1]),
    "204 empty": raw(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n"),
    "wrong type": answer(200, b'{"success": true}', "text/plain"),
    "truncated": raw(b'HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"success"'),
    "cut": raw(b""),
    "not HTTP": raw(b"SSH-2.0-OpenSSH\r\n"),
    "redirect": answer(302, b"", "text/plain", Location="http://127.0.0.1:9/"),
    "endless": endless(),
    "gzip bomb": answer(200, gzip.compress(b"0" * 50_000_000), Content_Encoding="gzip"),
    "too large": answer(200, b'{"success": true, "result": "' + b"x" * BODY_MAX_BYTES + b'"}'),
    "drip": drip(0.3),
    "head that drips": drip_head(0.05),
    "interim answers only": interim(0.05),
}


@pytest.mark.parametrize("behaviour", BAD.values(), ids=BAD.keys())
async def test_what_is_wrong_with_the_service_is_its_failure(server: MisbehavingServer, behaviour: Behaviour) -> None:
    server.behaviour = behaviour
    start, end = await call(server.url, total_s=1.5)
    assert (start.verdict, start.reason, end.outcome) == (StartVerdict.FAILURE, "executor_failed", RunOutcome.NOT_STARTED)
    assert 0 < len(start.detail) <= 500
    assert len(server.requests) == 1, "a failed call is not repeated here"


async def test_silence_ends_at_the_total_time(server: MisbehavingServer) -> None:
    done = asyncio.Event()
    server.behaviour = silent(done)
    start, _end = await call(server.url, total_s=0.3)
    done.set()
    assert start.verdict is StartVerdict.FAILURE
    assert "0.3 s" in start.detail


async def test_a_refused_connection_is_its_failure() -> None:
    start, _end = await call("http://127.0.0.1:9")
    assert (start.verdict, start.reason) == (StartVerdict.FAILURE, "executor_failed")


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (401, "bad key", "auth"),
        (403, "no", "auth"),
        (429, "slow down", "rate_limit"),
        (429, "quota exceeded", "billing_cap"),
        (402, "pay", "billing_cap"),
        (500, "insufficient balance", "billing_cap"),
        (200, "quota exceeded", "billing_cap"),
        (400, "spending cap reached", "billing_cap"),
    ],
)
async def test_quota_and_credentials_are_nobodys_failure(server: MisbehavingServer, status: int, error: str, reason: str) -> None:
    server.behaviour = plain({"success": False, "error": error}, status, Retry_After="60")
    before = datetime.now(UTC)
    start, end = await call(server.url)
    assert (start.verdict, start.reason, end.outcome) == (StartVerdict.NEUTRAL, reason, RunOutcome.NOT_STARTED)
    if reason != "auth":
        assert end.retry_time is not None
        assert before + timedelta(seconds=59) < end.retry_time < before + timedelta(seconds=80)


@pytest.mark.parametrize(
    "header",
    ["Thu, 01 Jan 1960 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -0100", "9" * 40, "soon", "-5", "Thu, 32 Foo 2026 00:00:00 GMT"],
)
async def test_a_retry_after_that_makes_no_sense_stops_nothing(server: MisbehavingServer, header: str) -> None:
    server.behaviour = plain({"success": False, "error": "slow down"}, 429, Retry_After=header)
    start, end = await call(server.url)
    assert (start.verdict, start.reason, end.outcome) == (StartVerdict.NEUTRAL, "rate_limit", RunOutcome.NOT_STARTED)


async def test_an_answer_without_a_result_has_an_empty_one(server: MisbehavingServer) -> None:
    server.behaviour = plain({"success": True})
    _start, end = await call(server.url)
    assert (end.outcome, end.result) == (RunOutcome.COMPLETED, "")


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_any_other_4xx_is_a_proper_answer(server: MisbehavingServer, status: int) -> None:
    server.behaviour = plain({"success": False, "error": "not like this"}, status)
    start, end = await call(server.url)
    assert (start.verdict, end.outcome) == (StartVerdict.SUCCESS, RunOutcome.FAILED_FOR_GOOD)
    assert "not like this" in end.error


async def test_the_tasks_own_time_out_is_not_the_services_fault(server: MisbehavingServer) -> None:
    done = asyncio.Event()
    server.behaviour = silent(done)
    short = RunSpec(*(SPEC.run_id, SPEC.task_id, 1, "t", "d", "talk", "hk-minimax", {}, timedelta(seconds=0.2), timedelta(0)))
    start, end = await call(server.url, short)
    done.set()
    assert (start.verdict, start.reason, end.outcome) == (StartVerdict.NEUTRAL, "timed_out", RunOutcome.TIMED_OUT)


SLOW: dict[str, Behaviour] = {
    "silent": silent(asyncio.Event()),
    "drip": drip(0.3),
    "head that drips": drip_head(0.05),
    "interim answers only": interim(0.05),
    "half an answer": raw(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"),
}


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW.keys())
async def test_a_cancelled_call_is_broken_off_at_once(server: MisbehavingServer, behaviour: Behaviour) -> None:
    async def stay(writer: asyncio.StreamWriter, body: bytes) -> None:
        await behaviour(writer, body)
        await asyncio.Event().wait()

    server.behaviour = stay
    backend, reports = MiniMax(server.url, 4, SystemClock()), Reports()
    work = asyncio.ensure_future(backend.execute(SPEC, NOWHERE, 0, reports))
    # Far shorter than the call's 120 s: it is the cancellation that ends it.
    async with asyncio.timeout(10):
        await server.asked.wait()
        await backend.cancel(SPEC, NOWHERE, "enough")
        end = await work
        await server.left.wait()
    await backend.close()
    (start,) = reports.seen
    assert (start.verdict, start.reason, end.outcome, end.error) == (
        StartVerdict.NEUTRAL,
        "cancelled",
        RunOutcome.CANCELLED,
        "enough",
    )


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full: another one hangs while it connects."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def test_a_call_that_cannot_connect_is_broken_off_too(full_port: int) -> None:
    backend, reports = MiniMax(f"http://127.0.0.1:{full_port}", 4, SystemClock()), Reports()
    work = asyncio.ensure_future(backend.execute(SPEC, NOWHERE, 0, reports))
    async with asyncio.timeout(5):
        for _ in range(100):
            await asyncio.sleep(0)
        await backend.cancel(SPEC, NOWHERE, "enough")
        end = await work
    await backend.close()
    assert end.outcome is RunOutcome.CANCELLED


async def test_a_call_that_cannot_connect_ends_at_the_total_time(full_port: int) -> None:
    start, _end = await call(f"http://127.0.0.1:{full_port}", total_s=0.3)
    assert (start.verdict, start.reason) == (StartVerdict.FAILURE, "executor_failed")


async def test_the_verdict_says_that_the_call_has_gone_on_since_the_acceptance(server: MisbehavingServer) -> None:
    start, _end = await call(server.url)
    assert start.known_at_end


async def test_a_call_does_not_outlive_the_executor() -> None:
    backend, reports = MiniMax("http://127.0.0.1:9", 4, SystemClock()), Reports()
    end = await backend.reattach(SPEC, NOWHERE, reports)
    await backend.close()
    assert (reports.seen[0].verdict, end.outcome) == (StartVerdict.NEUTRAL, RunOutcome.LOST)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "not a url", "http://host:0"])
async def test_a_wrong_url_is_a_matter_of_configuration(url: str) -> None:
    backend = MiniMax(url, 4, SystemClock())
    assert "HK_MINIMAX_URL" in backend.check_configuration()
    await backend.close()
