"""The reference's HTTP paths on the running pair: the card's lines as an operator types them, streams, guards, problems."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.http.event_stream import STREAMS_MAX
from tests.acceptance.programs import Pair, eventually

# Every line of the card that asks for something, word for word; the port is the test's own.
CARD_LINES = {
    "the statistics in SQL": "psql -d cecelia << SQL\nSELECT value_json FROM working_memory WHERE key = 'dispatch_stats';\nSQL",
    "the statistics over HTTP": "curl -s http://localhost:5221/api/brain/memory | jq '.[] | select(.key == \"dispatch_stats\")'",
    "the history in SQL": "psql -d cecelia << SQL\nSELECT\n  value_json->'events'->-1 as latest_event,\n"
    "  value_json->'window_1h' as stats\nFROM working_memory\nWHERE key = 'dispatch_stats';\nSQL",
    "the breaker by status": "curl -s http://localhost:5221/api/brain/status/full | "
    "jq '.working_memory | .[] | select(.key == \"circuit_breaker\")'",
    "the breakers by health": "curl -s http://localhost:5221/api/brain/health | jq '.breakers'",
    "the reasons": "curl -s http://localhost:5221/api/brain/memory | "
    "jq '.[] | select(.key == \"dispatch_stats\") | .value_json.window_1h.failure_reasons'",
    "resetting a breaker": "curl -X POST http://localhost:5221/api/brain/circuit-breaker/cecelia-run/reset",
    "the drain": "curl -s http://localhost:5221/api/brain/memory | jq '.[] | select(.key == \"drain\")'",
    "ending the drain": "curl -X POST http://localhost:5221/api/brain/drain/off",
}


@pytest.fixture
async def http(pair: Pair) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pair.scheduler.http_port}", timeout=20, trust_env=False) as client:
        yield client


async def typed(line: str, pair: Pair, database_url: str) -> str:
    """What a shell prints for one of the card's lines."""
    url = urlsplit(database_url)
    env = {
        "PATH": os.environ["PATH"],
        "PGHOST": url.hostname or "",
        "PGPORT": str(url.port),
        "PGUSER": url.username or "",
        "PGPASSWORD": unquote(url.password or ""),
    }
    line = line.replace("localhost:5221", f"localhost:{pair.scheduler.http_port}")
    line = line.replace("psql -d cecelia", f"psql -At -d {shlex.quote(url.path.lstrip('/'))}")
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode == 0, (line, err.decode())
    return out.decode()


async def test_every_line_of_the_card_can_be_typed(pair: Pair, database_url: str) -> None:
    missing = [tool for tool in ("curl", "jq", "psql") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")
    await pair.until_ended([*await pair.submit(2), *await pair.submit(1, title="x")])
    said = {name: await typed(line, pair, database_url) for name, line in CARD_LINES.items()}
    by_sql = json.loads(said["the statistics in SQL"])
    by_http = json.loads(said["the statistics over HTTP"])
    assert by_sql["window_1h"] == by_http["value_json"]["window_1h"]
    window = by_sql["window_1h"]
    # A busy machine may hold tasks for a while, and each such hold counts as a failed decision.
    assert (window["success"], window["failed"]) == (2, window["total"] - 2)
    assert window["rate"] == pytest.approx(2 / window["total"])
    assert len(by_sql["events"]) == window["total"]
    latest, stats = said["the history in SQL"].split("|", 1)
    assert json.loads(latest) == by_sql["events"][-1]
    assert json.loads(stats) == window
    assert json.loads(said["the reasons"]) == window["failure_reasons"]
    assert window["failure_reasons"]["pre_flight_check_failed"] == 1
    row = json.loads(said["the breaker by status"])
    assert row["value_json"]["cecelia-run@host-a"]["state"] == "CLOSED"
    breakers = json.loads(said["the breakers by health"])
    assert {"cecelia-run", "cecelia-run@host-a", "hk-minimax"} == set(breakers)
    assert set(breakers["cecelia-run"]) >= {"state", "failures", "lastFailureAt", "openedAt"}
    reset = json.loads(said["resetting a breaker"])
    assert (reset["success"], reset["key"], reset["state"]["state"]) == (True, "cecelia-run", "CLOSED")
    assert json.loads(said["the drain"])["value_json"]["draining"] is False
    assert json.loads(said["ending the drain"])["draining"] is False


async def test_nobody_chooses_where_a_call_came_from(pair: Pair, http: httpx.AsyncClient) -> None:
    named = {"x-forwarded-for": "root (ipv4:10.0.0.1)", "x-forwarded-proto": "https", "forwarded": "for=10.0.0.1"}
    await http.post("/api/brain/drain", headers=named)
    async with pair.calls() as stub:
        (override,) = (await stub.GetStatus(pb.GetStatusRequest(), timeout=10)).overrides
    assert override.actor.startswith("http:127.0.0.1:")


async def test_streams_end_with_their_readers_and_leave_some_to_the_rpcs(
    pair: Pair, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader_of: list[asyncio.StreamWriter] = []

    async def opened() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", pair.scheduler.http_port)
        reader_of.append(writer)
        writer.write(b"GET /api/brain/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return await reader.readline()

    async with asyncio.timeout(60):
        assert {await opened() for _ in range(STREAMS_MAX)} == {b"HTTP/1.1 200 OK\r\n"}
        assert b" 429 " in await opened()
        async with pair.calls() as stub:
            watching = stub.WatchEvents(pb.WatchEventsRequest(after_event_id=-1), timeout=20)
            await watching.initial_metadata()
            watching.cancel()
    for writer in reader_of:
        writer.transport.abort()

    async def free_again() -> bool:
        async with http.stream("GET", "/api/brain/events") as stream:
            return stream.status_code == 200

    assert await eventually(free_again)


async def test_a_drain_over_http_holds_and_ends(pair: Pair, http: httpx.AsyncClient) -> None:
    started = (await http.post("/api/brain/drain", json={"reason": "deploy", "source": "ci"})).json()
    assert (started["draining"], started["was_draining"], started["remaining"]) == (True, False, 0)
    assert [(one["source"], one["reason"]) for one in started["sources"]] == [("ci", "deploy")]
    again = (await http.post("/api/brain/drain")).json()
    assert {one["source"]: one["reason"] for one in again["sources"]} == {"ci": "deploy", "operator": "http"}
    (id_,) = await pair.submit()
    health = (await http.get("/api/brain/health")).json()
    assert "draining" in health["sentence"]
    only_ours = (await http.post("/api/brain/drain/off")).json()
    assert only_ours["draining"], "another source still drains"
    off = (await http.post("/api/brain/drain/off", json={"source": "ci"})).json()
    assert (off["draining"], off["was_draining"], off["sources"]) == (False, True, [])
    assert (await http.get("/api/brain/drain-status")).json()["draining"] is False
    await pair.until_ended([id_])


async def test_stats_health_slots_and_status_agree_with_the_rpcs(pair: Pair, http: httpx.AsyncClient) -> None:
    empty = (await http.get("/api/brain/dispatch-stats")).json()
    assert empty == {
        "success": True,
        "window_1h": {"total": 0, "success": 0, "failed": 0, "rate": None, "last_updated": None, "failure_reasons": {}},
    }
    await pair.until_ended(await pair.submit(2))
    shown = (await http.get("/api/brain/dispatch-stats")).json()["window_1h"]
    async with pair.calls() as stub:
        window = (await stub.GetDispatchStats(pb.GetDispatchStatsRequest(), timeout=10)).window_1h
        slots = await stub.GetSlots(pb.GetSlotsRequest(), timeout=10)
        tripped = await stub.TripBreaker(pb.TripBreakerRequest(key="hk-minimax", reason="drill"), timeout=10)
    assert (shown["total"], shown["success"], shown["rate"]) == (window.total, 2, window.rate)
    assert (await http.get("/api/brain/slots")).json()["total_capacity"] == slots.total_capacity
    health = (await http.get("/api/brain/health")).json()
    assert (health["status"], health["organs"]["circuit_breaker"]["open"]) == ("degraded", ["hk-minimax"])
    assert health["breakers"]["hk-minimax"]["openedAt"] == tripped.after.opened_time.ToJsonString()[:23] + "Z"
    full = (await http.get("/api/brain/status/full")).json()
    assert (full["leader"], full["draining"], full["tick"]["enabled"]) == (True, False, True)
    assert [o["kind"] for o in full["overrides"]] == ["breaker_tripped"]
    assert {row["key"] for row in full["working_memory"]} == {
        "billing_pause", "circuit_breaker", "dispatch_stats", "drain", "tick_last_dispatch",
    }  # fmt: skip


async def events_of(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream, with the id of its frame."""
    id_ = 0
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            id_ = int(line[4:])
        elif line.startswith("data: "):
            yield {**json.loads(line[6:]), "frame_id": id_}


async def test_events_resume_after_any_id_without_gap_or_double(pair: Pair, http: httpx.AsyncClient) -> None:
    await pair.until_ended(await pair.submit(3))

    async def take(after: str, count: int, **headers: str) -> list[dict[str, Any]]:
        async with asyncio.timeout(20), http.stream("GET", f"/api/brain/events{after}", headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            found: list[dict[str, Any]] = []
            async for event in events_of(response):
                found.append(event)
                if len(found) == count:
                    break
            return found

    everything = await take("?after=0", 7)
    assert [e["id"] for e in everything] == [e["frame_id"] for e in everything] == sorted({e["id"] for e in everything})
    assert sorted(e["type"] for e in everything) == ["executor_up", *["task_completed"] * 3, *["task_dispatched"] * 3]
    middle = everything[2]["id"]
    assert await take("", 4, **{"Last-Event-ID": str(middle)}) == everything[3:]
    chosen = await take("?after=0&types=task_completed", 3)
    assert [e["type"] for e in chosen] == ["task_completed"] * 3


async def test_a_stream_from_now_on_tells_what_comes_and_ends_with_the_scheduler(pair: Pair, http: httpx.AsyncClient) -> None:
    await pair.until_ended(await pair.submit())
    async with asyncio.timeout(30), http.stream("GET", "/api/brain/events") as response:
        events = events_of(response)
        await http.post("/api/brain/drain", json={"reason": "now"})
        assert (await anext(events))["type"] == "drain_started"
        began = time.monotonic()
        ending = asyncio.create_task(pair.scheduler.end())
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert [e async for e in events] == []
        assert time.monotonic() - began < 5, "an open stream must not hold up the end"
        assert await ending == 0


WRONG_REQUESTS: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/api/brain/nothing", {}, 404, "NOT_FOUND"),
    ("GET", "/api/brain/drain", {}, 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/api/brain/drain", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "UNDECODABLE"),
    ("POST", "/api/brain/drain", {"json": [1]}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/brain/drain", {"json": {"until_idle": "yes"}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/brain/drain", {"json": {"reason": "x" * 501}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/brain/drain", {"json": {"reason": "\0"}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/brain/drain", {"json": {"colour": "red"}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/brain/drain", {"data": {"reason": "form"}}, 415, "HTTP_ERROR"),
    ("POST", "/api/brain/drain", {"json": {"reason": "x" * 300_000}}, 413, "HTTP_ERROR"),
    ("POST", "/api/brain/circuit-breaker/nobody/reset", {}, 404, "BREAKER_NOT_FOUND"),
    ("GET", "/api/brain/events?after=-3", {}, 400, "INVALID_ARGUMENT"),
    ("GET", "/api/brain/health", {"headers": {"host": "evil.example"}}, 403, "HOST_NOT_ALLOWED"),
    ("POST", "/api/brain/drain/off", {"headers": {"origin": "http://evil.example"}}, 403, "CROSS_ORIGIN"),
    ("POST", "/api/brain/drain/off", {"headers": {"sec-fetch-site": "cross-site"}}, 403, "CROSS_ORIGIN"),
    ("GET", "/api/ui/tasks?status=sleeping", {}, 400, "INVALID_ARGUMENT"),
    ("GET", "/api/ui/tasks?colour=red", {}, 400, "INVALID_ARGUMENT"),
    ("GET", "/api/ui/tasks?page_size=-1", {}, 400, "INVALID_ARGUMENT"),
    ("GET", "/api/ui/tasks?page_token=foreign", {}, 400, "INVALID_ARGUMENT"),
    ("GET", "/api/ui/tasks/no-uuid/explanation", {}, 400, "INVALID_ARGUMENT"),
    ("GET", "/api/ui/tasks/no-uuid/output", {}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/ui/tasks/cancel", {}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/ui/tasks/cancel", {"json": {"statuses": "queued"}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/ui/tasks/cancel", {"json": {"statuses": [1]}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/ui/tasks/cancel", {"json": {"statuses": ["completed"]}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/ui/tasks/requeue", {"json": {"statuses": ["queued"]}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/ui/tasks/123e4567-e89b-42d3-a456-426614174999/cancel", {}, 404, "TASK_NOT_FOUND"),
    ("POST", "/api/ui/billing-pause/clear", {"json": {"backend": "nobody"}}, 400, "INVALID_ARGUMENT"),
    ("POST", "/api/brain/execution-callback", {"json": {"task_id": "x", "status": "in_progress"}}, 400, "INVALID_ARGUMENT"),
]


async def test_a_wrong_request_gets_a_problem_document(http: httpx.AsyncClient) -> None:
    for method, path, arguments, status, reason in WRONG_REQUESTS:
        response = await http.request(method, path, **arguments)
        case = (method, path, str(arguments)[:60])
        assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), case
        body = response.json()
        assert (body["status"], body["reason"]) == (status, reason), case
        assert body["title"], case
        assert body["detail"], case
    assert (await http.get("/api/brain/drain-status")).json()["draining"] is False, "what was refused changed nothing"


async def test_the_status_page_shows_what_is_in_force(pair: Pair, http: httpx.AsyncClient) -> None:
    async with pair.calls() as stub:
        await stub.SetDrain(pb.SetDrainRequest(enabled=True, reason="<b>maintenance</b>"), timeout=10)

    async def with_the_executor() -> httpx.Response | None:
        found = await http.get("/")
        return found if "cecelia-run@host-a" in found.text else None

    page = await eventually(with_the_executor)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "&lt;b&gt;maintenance&lt;/b&gt;" in page.text


async def test_probes_take_any_host_and_our_own_page_may_write(pair: Pair, http: httpx.AsyncClient) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        assert (await http.get(path, headers={"host": "scheduler.svc:80"})).status_code == 200
    host = f"localhost:{pair.scheduler.http_port}"
    own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert (await http.post("/api/brain/drain/off", headers=own)).status_code == 200


async def test_the_http_side_can_be_named_moved_and_closed(tmp_path: Path, database_url: str) -> None:
    pair = Pair(
        tmp_path, database_url, HTTP_ALLOWED_HOSTS="dispatch.example.org", HTTP_BASE_PATH="/dispatch", HTTP_READ_ONLY="true",
        HTTP_HIDE_PAYLOADS="true",
    )  # fmt: skip
    await pair.start()
    try:
        await pair.until_ended(await pair.submit(title="Secret title of a task"))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pair.scheduler.http_port}", trust_env=False) as http:
            named = {"host": "Dispatch.Example.org:443"}
            for path in ("/dispatch/api/brain/health", "/api/brain/health"):
                assert (await http.get(path, headers=named)).status_code == 200
            assert (await http.get("/dispatch/metrics")).status_code == 200
            refused = await http.post("/api/brain/drain")
            assert (refused.status_code, refused.json()["reason"]) == (403, "READ_ONLY")
            assert "Secret" not in (await http.get("/api/brain/status/full")).text
            assert "Secret" not in (await http.get("/api/brain/memory")).text
            (task,) = (await http.get("/api/ui/tasks")).json()["tasks"]
            assert (task["title"], task["task_type"]) == ("(hidden)", "(hidden)")
            assert (await http.get(f"/api/ui/tasks/{task['id']}/explanation")).json()["sentence"] == "(hidden)"
            hidden = await http.get(f"/api/ui/tasks/{task['id']}/output")
            assert (hidden.status_code, hidden.json()["reason"]) == (403, "PAYLOADS_HIDDEN")

            async def seen() -> str | None:
                async with http.stream("GET", "/api/brain/events?after=0&types=task_completed") as stream:
                    async for line in stream.aiter_lines():
                        if line.startswith("data: "):
                            return line
                return None

            assert '"title":"(hidden)"' in await eventually(seen)
    finally:
        await pair.stop()


async def test_the_page_and_its_files_may_be_kept_as_their_names_say(pair: Pair, http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert page.headers["cache-control"] == "no-store"
    assert "'unsafe" not in page.headers["content-security-policy"]
    named = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    types = {"icon.svg": "image/svg+xml", "style.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
    assert {name.rpartition("/")[2] for name in named} == set(types)
    for name in named:
        found = await http.get(name)
        assert (found.status_code, found.headers["content-type"]) == (200, types[name.rpartition("/")[2]])
        assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["content-security-policy"] == page.headers["content-security-policy"]
        assert (await http.head(name)).status_code == 200
    root = named[0].rpartition("/")[0]
    for path in (f"{root}/nothing.js", "/static/0123456789abcdef/page.js", f"{root}/../page.js", f"{root}/%2e%2e%2froutes.py"):
        assert (await http.get(path)).status_code == 404, path


async def test_the_page_s_own_paths_give_the_answers_of_the_rpcs(pair: Pair, http: httpx.AsyncClient) -> None:
    done = await pair.submit(2, task_type="dev")
    await pair.until_ended(done)
    await http.post("/api/brain/drain")
    waiting = await pair.submit(3, task_type="review", priority=pb.PRIORITY_P0)
    overview = (await http.get("/api/ui/overview")).json()
    assert overview["status"]["sentence"] == (await http.get("/api/brain/health")).json()["sentence"]
    assert sum(bucket["started"] for bucket in overview["hour"]) == 2
    assert len(overview["hour"]) == 10
    assert overview["reasons"]["draining"]["kind"] == "blocked"
    (queued,) = [depth for depth in overview["status"]["queue"] if depth["status"] == "QUEUED"]
    assert (queued["priority"], queued["tasks"]) == ("P0", 3)
    async with pair.calls() as stub:
        first = (await stub.GetTask(pb.GetTaskRequest(task_id=waiting[0]), timeout=10)).task
    assert queued["oldest_due_time"] == first.create_time.ToJsonString()[:23] + "Z"

    page = (await http.get("/api/ui/tasks?status=queued&type=review&priority=P0&page_size=2")).json()
    assert [task["id"] for task in page["tasks"]] == waiting[:0:-1]
    rest = await http.get(f"/api/ui/tasks?status=queued&type=review&priority=P0&page_size=2&page_token={page['next_page_token']}")
    assert [task["id"] for task in rest.json()["tasks"]] == waiting[:1]
    why = (await http.get(f"/api/ui/tasks/{waiting[0]}/explanation")).json()
    assert (why["task_reason"], why["queue_position"]) == ("draining", 1)

    chosen = {"statuses": ["queued"], "task_types": ["review"]}
    counted = (await http.post("/api/ui/tasks/cancel", json={**chosen, "validate_only": True})).json()
    assert (counted["matched"], counted["changed"]) == (3, 0)
    body = {**chosen, "reason": "wrong branch", "request_id": "once"}
    cancelled = (await http.post("/api/ui/tasks/cancel", json=body)).json()
    assert (cancelled["matched"], cancelled["changed"], cancelled["skipped"], cancelled["next_page_token"]) == (3, 3, 0, "")
    assert (await http.post("/api/ui/tasks/cancel", json=body)).json() == cancelled, "a repeated call gets the first answer"
    back = (await http.post("/api/ui/tasks/requeue", json={"statuses": ["cancelled"], "task_types": ["review"]})).json()
    assert back["changed"] == 3
    one = (await http.post(f"/api/ui/tasks/{waiting[0]}/cancel", json={"reason": "not this one"})).json()["task"]
    assert (one["status"], one["outcome"]["error"]) == ("CANCELLED", "cancelled: not this one")
    assert (await http.post(f"/api/ui/tasks/{waiting[0]}/requeue")).json()["task"]["status"] == "QUEUED"
    assert (await http.post("/api/ui/billing-pause/clear", json={"backend": "hk-minimax"})).json()["cleared"] is False
    assert (await http.post("/api/ui/budget-cap/lift")).json()["slots"] is None
    async with pair.calls() as stub:
        asked = pb.SetSettingRequest(name="OPEN_DURATION_MS", value="600000", reason="try sooner")
        await stub.SetSetting(asked, timeout=10)
    (setting,) = (await http.get("/api/ui/overview")).json()["settings"]
    assert (setting["name"], setting["value"], setting["reason"]) == ("OPEN_DURATION_MS", "600000", "try sooner")
    assert (await http.post("/api/ui/settings/OPEN_DURATION_MS/reset")).json()["after"]["origin"] != "override"
    log = (await http.get("/api/ui/audit?page_size=2")).json()
    assert [entry["method"] for entry in log["entries"]] == ["ResetSetting", "SetSetting"]
    older = (await http.get(f"/api/ui/audit?page_size=1&page_token={log['next_page_token']}")).json()["entries"]
    assert [entry["method"] for entry in older] == ["SetBudgetCap"]


async def test_an_output_over_http_ends_with_its_run_and_resumes_at_its_id(pair: Pair, http: httpx.AsyncClient) -> None:
    pair.command.write_text("#!/bin/sh\nprintf 'snow \\342\\230\\203 and more'\n")
    (task_id,) = await pair.submit()
    await pair.until_ended([task_id])

    async def read(**headers: str) -> tuple[str, list[str]]:
        async with asyncio.timeout(30), http.stream("GET", f"/api/ui/tasks/{task_id}/output", headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line async for line in response.aiter_lines()]
        data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        return "".join(piece.get("text", "") for piece in data), lines

    text, lines = await read()
    assert text == "snow ☃ and more"
    assert lines[-3:] == ["event: end", "data: {}", ""]
    assert (await read(**{"Last-Event-ID": "8"}))[0] == " and more"
    assert (await http.get(f"/api/ui/tasks/{'0' * 8}-0000-4000-8000-{'0' * 12}/output")).status_code == 404
    assert (await http.head(f"/api/ui/tasks/{task_id}/output")).status_code == 405
