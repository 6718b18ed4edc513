"""The documents as a reader follows them, against a running pair: examples run, and each trouble is walked through on a broken pair."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from tests.acceptance.command_line import cli
from tests.acceptance.programs import DESCRIPTION, Pair, eventually

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "how-to/call-from-your-program.md").read_text(), re.DOTALL)
A, B = "5f6b2c1e-0000-4000-8000-00000000000a", "5f6b2c1e-0000-4000-8000-00000000000b"


def section(page: str, heading: str) -> list[list[str]]:
    """The dispatchctl commands under a heading, up to the next one of its level; as words."""
    text = (DOCS / page).read_text(encoding="utf-8")
    level = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert level is not None, heading
    body = re.split(rf"^#{{1,{len(level[1])}}} ", text[level.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    return [shlex.split(line)[1:] for line in body.splitlines() if line.startswith("    dispatchctl ")]


def run_example(example: str, pair: Pair) -> str:
    """What an example prints when it is a program of its own."""
    code = example.replace("127.0.0.1:50051", f"127.0.0.1:{pair.scheduler.port}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_that_blocks(running: Pair) -> None:
    lines = run_example(EXAMPLES[0], running).splitlines()
    assert lines[-1] == "TASK_STATUS_COMPLETED"


def test_the_example_with_asyncio(running: Pair) -> None:
    assert run_example(EXAMPLES[1], running).strip().endswith(".")


def test_the_example_of_errors(running: Pair) -> None:
    assert run_example(EXAMPLES[2], running) == "INVALID_ARGUMENT ['task.title']\n"
    assert len(EXAMPLES) == 3


def test_the_readme_example(running: Pair) -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(found) == 1
    assert "CLOSED" in run_example(found[0], running)


def test_the_documents_are_served(running: Pair) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.scheduler.http_port}/docs/reason-codes.md", timeout=10) as answer:
        page = answer.read().decode()
    assert "<code>low_success_rate</code>" in page
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_the_tutorial(running: Pair) -> None:
    page = "tutorial/first-alert.md"
    for words in section(page, "2. Your first task"):
        cli(*words, pair=running)
    trip, submit, explain, events, audit = section(page, "3. Stop everything, and ask why")
    cli(*trip, pair=running)
    submitted = cli(*submit, "-o", "json", pair=running)
    assert "cecelia-run" in cli(*explain, pair=running, status=6).stdout
    assert "my first alert" in cli(*events, pair=running).stdout
    assert "my first alert" in cli(*audit, "-o", "json", pair=running).stdout
    reset, _ = section(page, "5. Mend it")
    cli(*reset, pair=running)
    waits = ["task", json.loads(submitted.stdout)["id"], "-o", "json"]

    async def completed() -> bool:
        return bool(json.loads(cli(*waits, pair=running).stdout)["status"] == "TASK_STATUS_COMPLETED")

    asyncio.run(eventually(completed))


async def test_the_success_rate_drops_and_a_breaker_is_stuck(pair: Pair) -> None:
    pair.scheduler._env["OPEN_DURATION_MS"] = "600000"
    await pair.scheduler.end()
    await pair.scheduler.start()
    # A command that is there and cannot be started.
    pair.write_command(interpreter="/nonexistent/interpreter")
    ids = await pair.submit(4)

    async def is_open() -> bool | None:
        async with pair.calls() as stub:
            breaker = (await stub.GetBreaker(pb.GetBreakerRequest(key="cecelia-run"), timeout=10)).breaker
        return breaker.state == pb.BREAKER_STATE_OPEN or None

    await eventually(is_open)
    stats, history, *_ = section("how-to/troubleshoot.md", "The success rate has dropped")
    assert "executor_failed" in cli(*stats, pair=pair).stdout
    assert "executor_failed" in cli(*history, pair=pair).stdout
    breakers, reset = section("how-to/troubleshoot.md", "A breaker is stuck open")
    assert re.search(r"^cecelia-run +open ", cli(*breakers, pair=pair).stdout, re.MULTILINE)
    found = cli("doctor", pair=pair).stdout
    assert re.search(r"warning +breaker cecelia-run +OPEN, opened ", found)
    assert "do: mend the backend, then: dispatchctl reset cecelia-run;" in found
    pair.write_command()
    cli(*reset, pair=pair)
    assert {task.status for task in await pair.until_ended(ids)} == {pb.TASK_STATUS_COMPLETED}


async def test_the_system_drains_and_the_rate_is_empty(pair: Pair) -> None:
    submit, stats = section("how-to/troubleshoot.md", "The success rate is empty")
    before = json.loads(cli(*stats, "-o", "json", pair=pair).stdout)
    assert "rate" not in before["window_1h"]
    cli("drain", "on", "--reason", "deploy", pair=pair)
    (id_,) = await pair.submit(1)
    status, off = section("how-to/troubleshoot.md", "The system drains")
    shown = cli(*status, pair=pair).stdout
    assert "operator" in shown
    assert "deploy" in shown
    cli(*off, pair=pair)
    assert [task.status for task in await pair.until_ended([id_])] == [pb.TASK_STATUS_COMPLETED]
    cli(*submit, "--max-hold", "60s", pair=pair)
    assert json.loads(cli(*stats, "-o", "json", pair=pair).stdout)["window_1h"]["rate"] > 0


def test_the_guard_only_watches_until_the_rate_is_up(running: Pair) -> None:
    watch, stats, back = section("how-to/troubleshoot.md", "The success rate stays low")
    cli(*watch, pair=running)

    def guard() -> str:
        return str(json.loads(cli("settings", "get", "DISPATCH_RATE_GUARD", "-o", "json", pair=running).stdout)["value"])

    assert guard() == "observe"
    cli(*stats, pair=running)
    cli(*back, pair=running)
    assert guard() == "enforce"


@pytest.mark.parametrize("words", section("how-to/troubleshoot.md", "In SQL and over HTTP"))
def test_the_questions_in_sql(words: list[str], running: Pair, at_the_pair: None) -> None:
    answer = cli(*words, pair=running)
    assert "total" in answer.stdout


async def test_the_originals_tasks_are_taken_over_once(pair: Pair, tmp_path: Path) -> None:
    common = {"description": DESCRIPTION, "status": "queued", "priority": "P1", "task_type": "dev"}
    rows = [
        {**common, "id": A, "title": "Second of the original", "payload": {"depends_on": [B], "run_status": "triggered"}},
        {**common, "id": B, "title": "First of the original", "payload": None},
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    dry, real = section("how-to/move-from-the-original.md", "Carry the tasks over")
    named = [str(file) if word == "rows.json" else word for word in dry]
    planned = json.loads(cli(*named, pair=pair).stdout)
    assert [task["task_id"] for task in planned["tasks"]] == [B, A]
    again = [str(file) if word == "rows.json" else word for word in real]
    for _ in range(2):
        cli(*again, pair=pair)
    tasks = await pair.until_ended([A, B])
    assert [task.status for task in tasks] == [pb.TASK_STATUS_COMPLETED] * 2
    assert sorted(pair.starts()) == [A, B]
