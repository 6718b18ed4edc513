"""The status page of a status."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.http.status_page import PageSetup, status_page

SETUP = PageSetup("/dispatch", "/static/0123", read_only=True, hide_payloads=False)


def cells(html: str) -> dict[str, list[list[str]]]:
    """The rows of each table by its heading. Our page is XML but for its void elements."""
    body = html[html.index("<main") : html.index("</body>")]
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for element in ET.fromstring(body):
        if element.tag == "h2":
            heading = element.text or ""
            found[heading] = []
        elif element.tag == "table":
            found[heading] = [[cell.text or "" for cell in row] for row in element.iter("tr")][1:]
    return found


def test_the_page_tells_what_the_status_says() -> None:
    status = pb.GetStatusResponse(mode="held", sentence="Nothing starts: drained by ann.", version="1.2")
    status.breakers.add(key="hk-minimax", state=pb.BREAKER_STATE_OPEN, failures=3, reason="failure_threshold_reached")
    status.breakers[0].retry_time.FromJsonString("2026-01-31T08:00:00Z")
    status.overrides.add(kind="drain", scope="operator", actor="ann", reason="maintenance")
    status.queue.add(priority=pb.PRIORITY_P0, status=pb.TASK_STATUS_QUEUED, tasks=3)
    status.executors.add(executor_id="host-a", live=True, draining=True, running=2, backends=["cecelia-run", "hk-minimax"])
    status.stats.window_1h.total, status.stats.window_1h.success, status.stats.window_1h.failed = 4, 1, 3
    status.stats.window_1h.rate = 0.25
    status.stats.window_1h.failure_reasons["draining"] = 1
    status.stats.window_1h.failure_reasons["pool_c_full"] = 2
    status.slots.task_pool.budget, status.slots.task_pool.used = 9, 2
    status.slots.backends.add(backend="hk-minimax", budget=8, used=1)
    status.slots.backends.add(backend="cecelia-run", local=True, budget=9, used=2)
    html = status_page(status, SETUP)
    assert "<strong>Nothing starts: drained by ann.</strong>" in html
    shown = cells(html)
    assert shown["Breakers"] == [["hk-minimax", "OPEN", "3", "2026-01-31T08:00:00.000Z", "failure_threshold_reached"]]
    assert shown["Overrides"] == [["drain", "operator", "ann", "maintenance", "-", "ended by hand"]]
    assert shown["Queue"] == [["queued", "P0", "3"]]
    assert shown["Executors"] == [["host-a", "stopping", "2", "cecelia-run, hk-minimax", "-"]]
    assert shown["The last hour"][0] == ["all decisions", "4", "1", "3", "25.0%", "pool_c_full 2, draining 1"]
    assert shown["The last hour"][1] == ["starts", "0", "0", "0", "-", "-"]
    assert shown["Slots"][2:] == [["tasks", "9", "2"], ["hk-minimax", "8", "1"]]


def test_what_callers_wrote_is_text_and_nothing_else() -> None:
    status = pb.GetStatusResponse(sentence="<script>alert(1)</script>")
    status.overrides.add(kind="drain", actor="<img src=x>", reason="a & b")
    html = status_page(status, SETUP)
    assert html.count("<script") == 1
    assert '<script type="module" src="/dispatch/static/0123/page.js"></script>' in html
    assert "<img" not in html
    assert cells(html)["Overrides"][0][2:4] == ["<img src=x>", "a & b"]
    assert cells(html)["Breakers"] == []
