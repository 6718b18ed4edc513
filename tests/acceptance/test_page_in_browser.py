"""The status page in a real browser, by clicks."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from playwright.async_api import Page, Route, expect

from tests.acceptance.browser import chromium, needs_chromium, new_page, page_of, row, section, violations, watched
from tests.acceptance.programs import DESCRIPTION, Pair, eventually
from tests.fakes.reverse_proxy import proxying

pytestmark = needs_chromium

CHOSEN = "statuses=dispatching,quarantined,queued,running task_types=review"
COUNTING = """#!/bin/sh
i=0
while [ -e "{going}" ]; do i=$((i+1)); printf '\033[32mline %s\033[0m\n' $i; sleep 0.1; done
echo "the last line"
"""


def url(pair: Pair) -> str:
    return f"http://127.0.0.1:{pair.scheduler.http_port}/"


async def call(pair: Pair, name: str, request: Any) -> Any:
    async with pair.calls() as stub:
        return await getattr(stub, name)(request, timeout=10)


async def drain(pair: Pair, reason: str = "deploying 2.4") -> None:
    await call(pair, "SetDrain", pb.SetDrainRequest(enabled=True, source="ci", reason=reason))


async def trip(pair: Pair) -> None:
    """Opens a breaker for ten minutes; a leader that has just begun may not know it yet."""
    request = pb.TripBreakerRequest(key="hk-minimax", reason="drill", duration=Duration(seconds=600))

    async def tripped() -> bool:
        await call(pair, "TripBreaker", request)
        return True

    await eventually(tripped)


async def audited(pair: Pair, method: str) -> list[pb.AuditEntry]:
    """The audit log's entries of one rpc."""
    return list((await call(pair, "ListAuditEntries", pb.ListAuditEntriesRequest(method=method))).entries)


async def confirm(page: Page, button: str, reason: str = "") -> None:
    await page.locator("#ask-reason").fill(reason)
    await page.get_by_role("dialog").get_by_role("button", name=button).click()
    await expect(page.get_by_role("dialog")).to_be_hidden()


async def test_the_page_tells_what_the_scheduler_says(pair: Pair) -> None:
    await pair.until_ended(await pair.submit(2))
    bad = pb.TaskSpec(title="todo", description="x")
    await pair.until_ended([(await call(pair, "SubmitTask", pb.SubmitTaskRequest(task=bad))).task.id])
    await trip(pair)
    await drain(pair)
    await pair.submit(3, priority=pb.PRIORITY_P0)
    async with page_of(url(pair)) as page:
        status = await call(pair, "GetStatus", pb.GetStatusRequest())
        explained = await call(pair, "ExplainDispatch", pb.ExplainDispatchRequest())
        assert status.mode == "draining"
        await expect(page.locator("#banner")).to_have_text(explained.sentence)
        await expect(page).to_have_title("draining - cecelia-dispatch")
        rates = section(page, "Success rate")
        await expect(rates).to_contain_text("100.0 %2 of 2 starts succeeded")
        await expect(row(page, "Success rate", "cecelia-run")).to_contain_text("100.0 %20")
        await expect(row(page, "Queue", "queued").locator("td")).to_have_text(["queued", "3", "0", "0", "3", re.compile("ago$")])
        breaker = row(page, "Breakers", "hk-minimax").locator("td")
        await expect(breaker.nth(1)).to_have_text("OPEN")
        await expect(breaker.nth(3)).to_have_text(re.compile(r"^in \d+ min( \d+ s)?$"))
        before = await breaker.nth(3).text_content()
        await expect(breaker.nth(3)).not_to_have_text(before or "")
        override = row(page, "Overrides", "drain").locator("td")
        await expect(override.nth(1)).to_have_text("ci")
        await expect(override.nth(2)).to_contain_text("127.0.0.1")
        await expect(override.nth(3)).to_have_text("deploying 2.4")
        await expect(override.nth(4)).to_have_text(re.compile("ago$"))
        await expect(override.nth(5)).to_have_text("ended by hand")
        await expect(row(page, "Pools and pressure", "host-a")).to_contain_text("live")
        # The chart's figures are those of the window.
        hour = section(page, "The last hour")
        await hour.get_by_text("The figures: Holds").click()
        held = hour.get_by_role("row").filter(has_text="draining")
        await expect(held).to_contain_text("held")
        sums = [int((await cell.text_content() or "0").replace(",", "")) for cell in await held.locator("td").nth(1).all()]
        now = (await call(pair, "GetDispatchStats", pb.GetDispatchStatsRequest())).window_1h.failure_reasons["draining"]
        assert 0 < sums[0] <= now
        await expect(hour.locator("svg.chart rect.bar.blocked").first).to_be_visible()
        whole = re.compile(r"^Decisions over the last hour: 2 started, [1-9][\d,]* held, 0 failed, 0 rejected$")
        await expect(hour.get_by_role("img", name=whole)).to_be_visible()
        # Each bar is as high as its count is large; the reasons come the most frequent first.
        bars = """(all) => all.map((bar) => [bar.querySelector('title')?.textContent, bar.getAttribute('height')])"""
        drawn = [(title, float(height)) for title, height in await hour.locator("rect.bar").evaluate_all(bars) if title]
        unit = {round(height / int(re.findall(r": (\d+) ", title)[0]), 3) for title, height in drawn}
        assert len(unit) == 1, drawn
        assert len(drawn) > 1
        reasons = hour.get_by_role("img", name="Holds and failures by reason").locator("text")
        said = [re.fullmatch(r"(\w+) \(held\): (\d+)", words) for words in await reasons.all_text_contents()]
        assert [found and found[1] for found in said] == ["draining", "pre_flight_check_failed"]


async def test_the_page_shows_what_the_overview_says_and_counts_on_without_it(pair: Pair) -> None:
    """One overview, altered on its way, and none after it."""
    now = Timestamp()
    now.GetCurrentTime()

    def ago(seconds: int) -> str:
        moment = now.ToDatetime() - timedelta(seconds=seconds)
        return f"{moment:%Y-%m-%dT%H:%M:%S}Z"

    answered = 0

    async def altered(route: Route) -> None:
        nonlocal answered
        answered += 1
        if answered > 1:
            await route.abort()
            return
        answer = await route.fetch()
        body = await answer.json()
        body["page_version"] = "another"
        status = body["status"]
        status["tick"]["last_error"] = "the database is slow"
        depth = {"status": "QUEUED", "tasks": 1}
        status["queue"] = [
            {**depth, "priority": "P0", "oldest_due_time": ago(600)},
            {**depth, "priority": "P1", "oldest_due_time": ago(3_600)},
            {**depth, "priority": "P2", "oldest_due_time": ago(60)},
        ]
        status["slots"]["executors"][0]["task_pool"] = {"budget": 7, "used": 3, "available": 4}
        await route.fulfill(response=answer, json=body)

    async with chromium() as launched:
        context = await launched.new_context()
        # What a shared worker asks for cannot be altered from here.
        await context.add_init_script("delete window.SharedWorker")
        await context.route("**/api/ui/overview", altered)
        page = await new_page(context, url(pair))
        await expect(page.locator("#newer")).to_contain_text("an earlier version")
        await expect(page.locator("#banner.bad")).to_contain_text("The last tick failed: the database is slow.")
        queued = row(page, "Queue", "queued").locator("td")
        await expect(queued.nth(4)).to_have_text("3")
        await expect(queued.nth(5)).to_have_text(re.compile(r"^1 h( \d+ min)? ago$"))
        await expect(row(page, "Queue", "running").locator("td").first).to_have_attribute("data-kind", "idle")
        await expect(row(page, "Pools and pressure", "host-a")).to_contain_text("3 of 7")
        await expect(page.locator("main .trouble").first).to_contain_text("not up to date")
        heard = row(page, "Pools and pressure", "host-a").locator("td").last
        before = await heard.text_content()
        await expect(heard).not_to_have_text(before or "")
        assert await page.get_by_role("button", name="Load the new one").is_visible()


async def test_a_breaker_is_reset_only_after_a_yes(pair: Pair) -> None:
    await trip(pair)

    async def state() -> int:
        return int((await call(pair, "GetBreaker", pb.GetBreakerRequest(key="hk-minimax"))).breaker.state)

    async with page_of(url(pair)) as page:
        reset = row(page, "Breakers", "hk-minimax").get_by_role("button", name="Reset…")
        await reset.click()
        line = page.locator("#ask-line")
        await expect(line).to_have_text("dispatchctl reset hk-minimax")
        await page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
        assert await state() == pb.BREAKER_STATE_OPEN
        # The whole way by keyboard: to the button, into the dialog, and by Enter out of it.
        await reset.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#ask-reason")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(reset).to_be_focused()
        assert await state() == pb.BREAKER_STATE_OPEN
        await page.keyboard.press("Enter")
        await page.keyboard.type("it's mended")
        await expect(line).to_have_text("dispatchctl reset hk-minimax --reason 'it'\\''s mended'")
        await page.keyboard.press("Enter")
        await expect(row(page, "Breakers", "hk-minimax")).to_contain_text("CLOSED")
        await expect(page.locator("#done")).to_have_text("The breaker hk-minimax is CLOSED.")
        await expect(section(page, "Overrides")).to_contain_text("Nothing is overridden.")
        entry = section(page, "Audit log").locator("tbody tr").first
        await expect(entry).to_contain_text("ResetBreaker hk-minimax")
        await expect(entry).to_contain_text("it's mended")
        await expect(entry.locator("td").nth(4)).to_have_text("hk-minimax OPEN")
        await expect(entry.locator("td").nth(5)).to_have_text("hk-minimax CLOSED")
    assert await state() == pb.BREAKER_STATE_CLOSED
    assert [entry.reason for entry in await audited(pair, "ResetBreaker")] == ["it's mended"]


@pytest.mark.long
async def test_each_action_does_what_its_line_says(pair: Pair) -> None:
    """Every dialog is opened and left; what it showed is typed, and the page tells the effect without being asked."""
    until = Timestamp()
    until.GetCurrentTime()
    until.FromDatetime(until.ToDatetime() + timedelta(hours=1))
    await trip(pair)
    await call(pair, "SetBudgetCap", pb.SetBudgetCapRequest(slots=5, reason="demonstration"))
    await call(pair, "SetBillingPause", pb.SetBillingPauseRequest(until_time=until, backend="hk-minimax", reason="quota"))
    await call(pair, "SetSetting", pb.SetSettingRequest(name="OPEN_DURATION_MS", value="600000", reason="try sooner"))
    await drain(pair)
    first, second = await pair.submit(2, task_type="dev")
    others = await pair.submit(3, task_type="review", priority=pb.PRIORITY_P2)

    async def typed(page: Page) -> None:
        line = await page.locator("#ask-line").text_content() or ""
        await page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
        words = shlex.split(line)
        assert words[0] == "dispatchctl"
        env = {**os.environ, "DISPATCH_ADDRESS": f"127.0.0.1:{pair.scheduler.port}", "XDG_CONFIG_HOME": str(pair.folder)}
        done = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *words, "--yes", env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await done.communicate()
        assert done.returncode == 0, (line, said.decode())

    async with page_of(url(pair)) as page:
        overrides, tasks = section(page, "Overrides"), section(page, "Tasks")
        for kind in ("setting", "breaker tripped", "ceiling on slots", "billing pause", "drain"):
            await row(page, "Overrides", kind).first.get_by_role("button", name="End…").click()
            await typed(page)
            await expect(row(page, "Overrides", kind)).to_have_count(0)
        await pair.until_ended([first, second, *others])
        await page.get_by_role("button", name="Drain…").click()
        await typed(page)
        await expect(row(page, "Overrides", "operator")).to_contain_text("drain")
        await expect(overrides).not_to_contain_text("Nothing is overridden.")
        waiting = await pair.submit(1, task_type="dev")
        await row(page, "Tasks", waiting[0]).get_by_role("button", name="Cancel…").click()
        await typed(page)
        await expect(row(page, "Tasks", waiting[0])).to_contain_text("cancelled")
        await row(page, "Tasks", waiting[0]).get_by_role("button", name="Requeue…").click()
        await typed(page)
        await expect(row(page, "Tasks", waiting[0])).to_contain_text("queued")
        more = await pair.submit(3, task_type="review", priority=pb.PRIORITY_P2)
        await tasks.get_by_label("P2").check()
        await tasks.get_by_label("Type").fill("review")
        await tasks.get_by_role("button", name="Cancel all that match…").click()
        await expect(page.get_by_role("dialog")).to_contain_text("Cancel 3 tasks?")
        await typed(page)
        for id_ in more:
            await expect(row(page, "Tasks", id_)).to_contain_text("cancelled")
        await tasks.get_by_label("cancelled").check()
        await tasks.get_by_role("button", name="Requeue all that match…").click()
        await expect(page.locator("#ask-line")).to_have_text("dispatchctl requeue --status cancelled --type review --priority P2")
        await typed(page)
        await expect(tasks).to_contain_text("No task matches.")
    found = await pair.tasks([*more, *waiting])
    assert {task.status for task in found} == {pb.TASK_STATUS_QUEUED}


@pytest.mark.long
async def test_what_is_quarantined_shows_its_findings_and_is_released(pair: Pair) -> None:
    bad = pb.TaskSpec(title="Tidy the importer", description="short")
    task_id = (await call(pair, "SubmitTask", pb.SubmitTaskRequest(task=bad))).task.id
    await pair.until_ended([task_id])
    await drain(pair)
    async with page_of(url(pair)) as page:
        found = row(page, "Quarantine", task_id)
        await expect(found.locator("td").nth(1)).to_have_text("pre_flight_check_failed")
        await expect(found.locator("td").nth(2)).to_contain_text("the description has 5 characters")
        await found.get_by_role("button", name="Release…").click()
        await expect(page.get_by_role("dialog")).to_contain_text("Release this task?")
        await confirm(page, "Release the task", "another look")
        await expect(section(page, "Quarantine")).to_contain_text("Nothing is in quarantine.")
    assert (await pair.tasks([task_id]))[0].status == pb.TASK_STATUS_QUEUED
    assert [entry.reason for entry in await audited(pair, "RequeueTask")] == ["another look"]


@pytest.mark.long
async def test_all_that_match_are_cancelled_after_their_number_was_told(pair: Pair) -> None:
    await drain(pair)
    kept = await pair.submit(2, task_type="dev")
    gone = await pair.submit(70, task_type="review")
    async with page_of(url(pair)) as page:
        tasks = section(page, "Tasks")
        await tasks.get_by_label("Type").fill("review")
        await tasks.get_by_label("Type").press("Enter")
        await expect(tasks.locator("tbody tr")).to_have_count(50)
        await tasks.get_by_role("button", name="Older").click()
        await expect(tasks.locator("tbody tr")).to_have_count(20)
        await expect(tasks).to_contain_text("page 2")
        await tasks.get_by_role("button", name="Newer").click()
        await expect(tasks.locator("tbody tr")).to_have_count(50)
        await expect(tasks).to_contain_text("page 1")
        await tasks.get_by_role("button", name="Cancel all that match…").click()
        await expect(page.get_by_role("dialog")).to_contain_text("Cancel 70 tasks?")
        assert {task.status for task in await pair.tasks(gone[:3])} == {pb.TASK_STATUS_QUEUED}, "counting changes nothing"
        await confirm(page, "Cancel 70 tasks", "wrong branch")
        await expect(page.locator("#done")).to_have_text("70 tasks are cancelled, or will be when their runs have ended.")
        await expect(row(page, "Queue", "queued").locator("td").nth(4)).to_have_text("2")
        await tasks.get_by_label("completed").check()
        await tasks.get_by_role("button", name="Cancel all that match…").click()
        await expect(tasks.get_by_role("alert").first).to_have_text("No task with status completed can be cancelled.")
    assert {task.status for task in await pair.tasks(gone)} == {pb.TASK_STATUS_CANCELLED}
    assert {task.status for task in await pair.tasks(kept)} == {pb.TASK_STATUS_QUEUED}
    (entry,) = await audited(pair, "CancelTasks")
    assert entry.actor.startswith("http:127.0.0.1:")
    assert (entry.reason, entry.target) == ("wrong branch", CHOSEN)
    assert entry.detail["after"]["tasks"]["cancelled"] == 70


async def test_output_comes_live_and_goes_on_after_a_break_without_gap_or_double(pair: Pair) -> None:
    going = pair.folder / "going"
    going.touch()
    pair.command.write_text(COUNTING.format(going=going))
    (task_id,) = await pair.submit()
    async with page_of(url(pair)) as page:
        await row(page, "Running", task_id).get_by_role("button", name="Output").click()
        output = page.get_by_role("log")
        await expect(output).to_contain_text("line 5\n")
        await pair.scheduler.kill()
        await expect(page.locator(".output")).to_contain_text("interrupted")
        seen = len((await output.text_content() or "").splitlines())
        await pair.scheduler.start()
        await expect(output).to_contain_text(f"line {seen + 5}\n")
        going.unlink()
        await expect(page.locator(".output")).to_contain_text("the run has ended; this is all")
        lines = (await output.text_content() or "").splitlines()
        assert lines == [*(f"line {n}" for n in range(1, len(lines))), "the last line"]
        await page.get_by_role("button", name="Close the output").click()
        await expect(output).to_be_hidden()


async def test_a_break_is_told_and_mended(pair: Pair) -> None:
    async with page_of(url(pair)) as page:
        await pair.scheduler.kill()
        connection = page.locator("#connection")
        await expect(connection).to_contain_text("No connection: the scheduler cannot be reached. What you see is old")
        await expect(page.locator("main .trouble").first).to_contain_text("not up to date")
        await pair.scheduler.start()
        await expect(connection).to_have_text("live")
        await expect(page.locator("main .trouble").first).to_be_hidden()
        ids = await pair.submit(1)
        await pair.until_ended(ids)
        await expect(row(page, "Tasks", ids[0])).to_contain_text("completed")
        await expect(row(page, "Tasks", ids[0]).get_by_role("button")).to_have_text(["Output"])


@pytest.mark.long
async def test_a_scheduler_that_has_fallen_silent_is_noticed_and_a_live_one_is_heard(pair: Pair) -> None:
    read = """async (silentMs) => {
        const url = document.querySelector('script[type=module]').src.replace('page.js', 'event_stream.js');
        const { frames } = await import(url);
        window.opened = false;
        try { for await (const frame of frames('api/brain/events', { silentMs })) window.opened ||= frame.type === 'open'; }
        catch (error) { return error.message; }
    }"""
    async with page_of(url(pair)) as page:
        reading = asyncio.ensure_future(page.evaluate(read, 3_000))
        await eventually(lambda: page.evaluate("window.opened"))
        os.kill(pair.scheduler.pid, signal.SIGSTOP)
        try:
            assert await reading == "nothing was heard for 3 s"
        finally:
            os.kill(pair.scheduler.pid, signal.SIGCONT)


@pytest.mark.long
@pytest.mark.parametrize("workers", [True, False])
async def test_one_browser_has_one_stream_however_many_tabs(pair: Pair, workers: bool) -> None:
    tabs = 8 if workers else 2
    async with proxying(pair.scheduler.http_port) as proxy, chromium() as launched:
        context = await launched.new_context()
        if not workers:
            await context.add_init_script("delete window.SharedWorker")
        with watched(context) as wrong:
            pages = [await new_page(context, f"http://127.0.0.1:{proxy.port}/") for _ in range(tabs)]
            assert proxy.open["/api/brain/events"] == (1 if workers else tabs)
            await drain(pair)
            for page in pages:
                await expect(row(page, "Overrides", "drain")).to_contain_text("deploying 2.4")
            await pages[0].close()
            await call(pair, "SetDrain", pb.SetDrainRequest(enabled=False, source="ci"))
            for page in pages[1:]:
                await expect(section(page, "Overrides")).to_contain_text("Nothing is overridden.")
            for page in pages[1:]:
                await page.close()

            async def closed() -> bool:
                return proxy.open["/api/brain/events"] == 0

            await eventually(closed)
        assert wrong == []


@pytest.mark.long
@pytest.mark.parametrize("strips", [True, False])
async def test_the_page_works_below_a_path_behind_either_kind_of_proxy(tmp_path: Path, database_url: str, strips: bool) -> None:
    pair = Pair(tmp_path, database_url, HTTP_BASE_PATH="/ops/dispatch")
    await pair.start()
    try:
        async with proxying(pair.scheduler.http_port, prefix="/ops/dispatch", strips=strips) as proxy:
            for path in ("/ops/dispatch", "/ops/dispatch/"):
                async with page_of(f"http://127.0.0.1:{proxy.port}{path}") as page:
                    await page.get_by_role("button", name="Drain…").click()
                    await confirm(page, "Drain", "behind a proxy")
                    await row(page, "Overrides", "behind a proxy").get_by_role("button", name="End…").click()
                    await confirm(page, "End it")
                    await expect(section(page, "Overrides")).to_contain_text("Nothing is overridden.")
            assert {asked for asked in proxy.total if not asked.startswith("/ops/dispatch")} == set()
    finally:
        await pair.stop()


@pytest.mark.long
async def test_a_page_that_only_reads_and_hides_offers_nothing_and_tells_no_words(tmp_path: Path, database_url: str) -> None:
    pair = Pair(tmp_path, database_url, HTTP_READ_ONLY="true", HTTP_HIDE_PAYLOADS="true")
    await pair.start()
    try:
        done = await pair.submit(title="Secret title of a task")
        await pair.until_ended(done)
        bad = pb.TaskSpec(title="Secret and quarantined", description="secret")
        await pair.until_ended([(await call(pair, "SubmitTask", pb.SubmitTaskRequest(task=bad))).task.id])
        await trip(pair)
        await drain(pair)
        waiting = await pair.submit(1)
        async with page_of(url(pair)) as page:
            await row(page, "Tasks", waiting[0]).get_by_role("button", name="Why?").click()
            await expect(section(page, "Tasks")).to_contain_text("It is held: draining. Its place in the queue: 1.")
            await expect(row(page, "Tasks", done[0])).to_contain_text("completed")
            await expect(row(page, "Quarantine", "pre_flight_check_failed")).to_be_visible()
            await expect(row(page, "Overrides", "drain")).to_be_visible()
            assert "ecret" not in await page.locator("body").inner_text()
            offered = {await one.inner_text() for one in await page.get_by_role("button").all() if await one.is_visible()}
            assert offered == {"Why?"}
    finally:
        await pair.stop()


async def varied(pair: Pair) -> None:
    """Something of each kind to show."""
    pair.write_command(seconds=300)
    await pair.submit(2, task_type="dev")
    await pair.submit(4, task_type="research")
    bad = [pb.TaskSpec(title="todo", description="x"), pb.TaskSpec(title="Tidy the importer")]
    await call(pair, "SubmitTasks", pb.SubmitTasksRequest(tasks=bad))

    async def begun() -> bool:
        status = await call(pair, "GetStatus", pb.GetStatusRequest())
        states = {one.status: one.tasks for one in status.queue}
        open_one = any(one.state == pb.BREAKER_STATE_OPEN for one in status.breakers)
        return open_one and states.get(pb.TASK_STATUS_RUNNING) == 2 and states.get(pb.TASK_STATUS_QUARANTINED) == 2

    await eventually(begun)
    await drain(pair)
    await pair.submit(60, task_type="review")


MODES: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
    "dark phone": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}, "reduced_motion": "reduce"},
}


async def test_axe_finds_nothing_in_any_mode_and_held_and_failed_differ_in_word_colour_and_shape(
    tmp_path: Path, database_url: str
) -> None:
    pair = Pair(tmp_path, database_url, OPEN_DURATION_MS="600000", LEASE_TTL_MS="60000")
    await pair.start()
    try:
        await varied(pair)
        async with chromium() as launched:
            for mode, options in MODES.items():
                context = await launched.new_context(**options)
                page = await new_page(context, url(pair))
                await expect(row(page, "Running", "host-a")).to_have_count(2)
                await expect(row(page, "Quarantine", "todo")).to_be_visible()
                for summary in await page.locator("summary").all():
                    await summary.click()
                await row(page, "Running", "host-a").first.get_by_role("button", name="Output").click()
                assert await violations(page) == [], mode
                wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide == 0, f"{mode}: the page itself must not scroll sideways"
                held = row(page, "Quarantine", "todo").locator("td[data-kind=held]")
                failed = row(page, "Breakers", "hk-minimax").locator("td[data-kind=bad]")
                look = "(cell) => [cell.textContent, getComputedStyle(cell).color, cell.querySelector('path').getAttribute('d')]"
                for one, other in zip(await held.evaluate(look), await failed.evaluate(look), strict=True):
                    assert one != other, mode
                bars = [await page.locator(f".chart .bar.{kind}").first.get_attribute("fill") for kind in ("blocked", "failed")]
                assert len(set(bars)) == 2
                moving = (
                    "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).transitionDuration !== '0s').length"
                )
                if options.get("reduced_motion"):
                    assert await page.evaluate(moving) == 0
                await page.get_by_role("button", name="Drain…").click()
                assert await violations(page) == [], f"{mode}, dialog"
                await context.close()
            context = await launched.new_context(java_script_enabled=False)
            page = await context.new_page()
            await page.goto(url(pair))
            await expect(page.locator("#plain")).to_contain_text("hk-minimax")
            assert await page.locator("meta[http-equiv=refresh]").get_attribute("content") == "5"
    finally:
        await pair.stop()


@pytest.mark.long
async def test_ten_thousand_tasks_are_shown_page_by_page_and_rows_that_stay_are_kept(pair: Pair) -> None:
    await drain(pair)
    async with pair.calls() as stub:
        for _ in range(10):
            specs = [pb.TaskSpec(title=f"Task number {i}", description=DESCRIPTION) for i in range(1_000)]
            await stub.SubmitTasks(pb.SubmitTasksRequest(tasks=specs), timeout=60)
    async with page_of(url(pair)) as page:
        await expect(row(page, "Queue", "queued").locator("td").nth(4)).to_have_text("10,000")
        rows = section(page, "Tasks").locator("tbody tr")
        await expect(rows).to_have_count(50)
        await page.evaluate("document.querySelectorAll('tbody tr').forEach((row) => { row.marked = true; })")
        (newest,) = await pair.submit(1, title="The newest of all")
        await expect(rows.first).to_contain_text(newest)
        await expect(rows).to_have_count(50)
        marked = await rows.evaluate_all("(rows) => rows.map((row) => row.marked === true)")
        assert marked == [False] + [True] * 49, "only the new row was made"
        assert await page.evaluate("document.querySelectorAll('*').length") < 2_500
        await section(page, "Tasks").get_by_role("button", name="Cancel all that match…").click()
        await confirm(page, "Cancel 10,001 tasks", "a flood")
        await expect(page.locator("#done")).to_contain_text("10,001 tasks are cancelled")
