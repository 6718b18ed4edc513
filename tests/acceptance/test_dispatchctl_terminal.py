"""top, doctor and completion against a real pair; `up` beside another, with nothing from before."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import ParseDict

from dispatchctl.__main__ import main
from tests.acceptance.command_line import Capture, cli
from tests.acceptance.programs import Pair
from tests.acceptance.test_starting import environment, processes_below
from tests.acceptance.test_up_stopping import serving

WAIT = ("--wait", "60s")


@pytest.mark.usefixtures("at_the_pair")
def test_a_healthy_pair_is_well(capsys: Capture) -> None:
    assert main(["doctor", *WAIT, "-o", "json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    seen = {(found["category"], found["check"]): found["level"] for found in findings}
    checks = {(category, check.split()[0]) for category, check in seen}
    assert checks == {
        ("scheduler", "reachable"), ("scheduler", "serving"), ("versions", "equal"), ("database", "answers"), ("leader", "there"),
        ("leader", "ticking"), ("executors", "host-a"), ("backends", "cecelia-run"), ("backends", "hk-minimax"),
        ("clocks", "database"), ("clocks", "executor"), ("overrides", "age"), ("disk", "room"), ("dispatch", "starts"),
    }  # fmt: skip
    assert all(seen[category, check] == "ok" for category, check in seen if category != "disk"), seen


def broken(pair: Pair, category: str) -> None:
    """Waits until the doctor names a problem of the category, with a remedy."""
    for _ in range(60):
        findings = json.loads(cli("doctor", "-o", "json", pair=pair, status=1).stdout)["findings"]
        found = [finding for finding in findings if finding["level"] == "problem"]
        assert found
        assert all(finding["remedy"] for finding in found)
        if any(finding["category"] == category for finding in found):
            return
    raise AssertionError(f"the doctor names no problem of {category}: {found}")


async def test_a_broken_pair_is_told_by_what_is_broken(pair: Pair) -> None:
    assert (await asyncio.to_thread(cli, "doctor", *WAIT, pair=pair)).stdout.endswith("all is well\n")
    await pair.executor.kill()
    await asyncio.to_thread(_until_silent, pair)
    await asyncio.to_thread(broken, pair, "executors")
    await pair.scheduler.kill()
    await asyncio.to_thread(broken, pair, "scheduler")


def _until_silent(pair: Pair) -> None:
    """The scheduler takes an executor for live until it has not been heard for ten seconds."""
    for _ in range(120):
        status = ParseDict(json.loads(cli("status", "-o", "json", pair=pair).stdout), pb.GetStatusResponse())
        if not any(executor.live for executor in status.executors):
            return
    raise AssertionError("the executor that was killed is live")


@pytest.mark.usefixtures("at_the_pair")
def test_top_shows_what_was_decided(finished: pb.Task, capsys: Capture) -> None:
    assert main(["top", "-o", "json"]) == 0
    body = json.loads(capsys.readouterr().out)
    kinds = {"status": pb.GetStatusResponse, "running": pb.ListTasksResponse, "decisions": pb.ListDispatchEventsResponse}
    found = {name: ParseDict(body[name], kind()) for name, kind in kinds.items()}
    assert finished.id in {event.task_id for event in found["decisions"].events}  # type: ignore[union-attr]
    assert main(["top"]) == 0
    out = capsys.readouterr().out
    assert "host-a" in out
    assert "success" in out


@pytest.mark.usefixtures("at_the_pair")
def test_bash_completes_what_the_scheduler_knows(finished: pb.Task, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that runs tests is slower than a person's.
    monkeypatch.setattr("dispatchctl.completion.ANSWER_S", 20.0)
    monkeypatch.setenv("_DISPATCHCTL_COMPLETE", "bash_complete")
    for line, words in {"task ": finished.id, "reset hk": "hk-minimax", "settings get WINDOW": "WINDOW_MS"}.items():
        monkeypatch.setenv("COMP_WORDS", f"dispatchctl {line}")
        monkeypatch.setenv("COMP_CWORD", str(len(f"dispatchctl {line}".split(" ")) - 1))
        assert main([]) == 0
        assert words in capsys.readouterr().out.replace("plain,", "").split()


async def test_up_begins_with_nothing_beside_the_old_data(tmp_path: Path) -> None:
    env = environment(tmp_path)
    data = Path(env["DISPATCH_DATA_DIR"])
    data.mkdir(parents=True, exist_ok=True)
    (data / "old").write_text("kept")
    async with serving(tmp_path, "--fresh", "--port-offset", "7", EXECUTOR_DATA_DIR="") as up:
        said = up.said.decode()
        (fresh,) = data.parent.glob(f"{data.name}-20*")
        assert f"go on with it by --data-dir {fresh}" in said.replace("\r\n", " ").replace("\n", " ")
        assert (fresh / "pg_service.conf").exists() or any(fresh.rglob("PG_VERSION"))
        assert [entry.name for entry in data.iterdir()] == ["old"]
        assert os.path.isdir(fresh / "executor")
        up.close_terminal()
        assert await up.ended() == 0
    assert processes_below(tmp_path) == []


@pytest.mark.parametrize(("words", "code"), [(["--fresh"], "data_elsewhere"), (["--port-offset", "65000"], "port_out_of_range")])
def test_what_up_refuses_is_told_before_anything_is_started(tmp_path: Path, words: list[str], code: str) -> None:
    env = environment(tmp_path, DATABASE_URL="postgresql://127.0.0.1:1/x", SCHEDULER_GRPC_ADDRESS="127.0.0.1:50051")
    done = subprocess.run(
        [sys.executable, "-m", "dispatchctl", "up", *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert f"why: {code}" in done.stderr
    assert done.stdout == ""
