"""Starting badly: one clear line and a non-zero exit. And `dispatchctl up`, from start to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

DEADLINE_S = 120.0
ROOT = Path(__file__).resolve().parents[2]


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= {f"{service}_{kind}_ADDRESS": "127.0.0.1:0" for service in ("SCHEDULER", "EXECUTOR") for kind in ("GRPC", "HTTP")}
    env |= {
        "DISPATCH_DATA_DIR": str(tmp_path / "scheduler"),
        "EXECUTOR_DATA_DIR": str(tmp_path / "executor"),
        "EXECUTOR_ID": "host-a",
        "HK_MINIMAX_URL": "http://127.0.0.1:9",
    }
    return {**env, **changes}


async def ended(module: str, env: dict[str, str]) -> tuple[int, list[str]]:
    """A program that cannot start: its exit status and what it said in errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env, cwd=ROOT
    )
    async with asyncio.timeout(DEADLINE_S):
        _out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode or 0, [line for line in err.decode().splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("module", ["scheduler_service", "executor_service"])
async def test_wrong_settings_are_all_named(tmp_path: Path, module: str) -> None:
    service = module.split("_")[0].upper()
    wrong = {f"{service}_GRPC_ADDRESS": "nowhere", f"{service}_HTTP_ADDRESS": "127.0.0.1:99999", "LOG_LEVEL": "loud"}
    status, lines = await ended(module, environment(tmp_path, **wrong))
    assert status == 2
    assert {line.removeprefix("error: ").split("=")[0] for line in lines} == set(wrong)


@pytest.mark.parametrize("module", ["scheduler_service", "executor_service"])
@pytest.mark.parametrize("kind", ["GRPC", "HTTP"])
async def test_a_taken_port_is_named_with_its_setting(tmp_path: Path, module: str, kind: str) -> None:
    setting = f"{module.split('_')[0].upper()}_{kind}_ADDRESS"
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        status, lines = await ended(module, environment(tmp_path, **{setting: address}))
    assert status == 1
    assert len(lines) == 1
    assert f"{setting}={address}" in lines[0]


@pytest.mark.parametrize(
    ("module", "setting"), [("scheduler_service", "DISPATCH_DATA_DIR"), ("executor_service", "EXECUTOR_DATA_DIR")]
)
async def test_an_unwritable_data_folder_is_named(tmp_path: Path, module: str, setting: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    status, lines = await ended(module, environment(tmp_path, **{setting: str(tmp_path / "file" / "below")}))
    assert status == 1
    assert len(lines) == 1
    assert setting in lines[0]


async def test_a_database_that_does_not_answer_is_given_up_after_thirty_seconds(tmp_path: Path) -> None:
    status, lines = await ended("scheduler_service", environment(tmp_path, DATABASE_URL="postgresql://u@127.0.0.1:9/none"))
    assert status == 1
    assert len(lines) == 1
    assert "30 s" in lines[0]


async def test_a_second_executor_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    env = environment(tmp_path)
    first = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "executor_service", env=env, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not (tmp_path / "executor" / "ports.json").exists():
                await asyncio.sleep(0.05)
        status, lines = await ended("executor_service", env)
        assert status == 1
        assert "in use by another executor" in lines[0]
    finally:
        first.send_signal(signal.SIGTERM)
        await first.wait()


async def test_up_shows_the_samples_and_leaves_no_process_behind(tmp_path: Path) -> None:
    env = environment(tmp_path, SESSION_PROCESS_NAME="", CPU_THRESHOLD_PCT="1000000")  # others may be busy on this machine
    del env["HK_MINIMAX_URL"], env["EXECUTOR_DATA_DIR"]
    for _ in range(2):  # the second time finds the data of the first
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dispatchctl", "up", "--samples", str(ROOT / "deploy/examples"), "--once", "--within", "100s",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=env, cwd=tmp_path,
        )  # fmt: skip
        async with asyncio.timeout(DEADLINE_S):
            out, _ = await process.communicate()
        text = out.decode()
        assert process.returncode == 0, text
        assert "CPU_PER_TASK" in text
        for word in ("started", "completed", "quarantined", "pre_flight_check_failed", "window_1h", "hk-minimax"):
            assert word in text, text
    assert processes_below(tmp_path) == []


async def test_samples_that_do_not_end_in_time_are_listed_a_line_each(tmp_path: Path) -> None:
    env = environment(tmp_path, MEM_PER_TASK_MB="10000000")
    del env["EXECUTOR_DATA_DIR"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatchctl", "up", "--samples", str(ROOT / "deploy/examples"), "--once", "--within", "2s",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=env, cwd=tmp_path,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        _, err = await process.communicate()
    lines = err.decode().splitlines()
    assert process.returncode == 1
    assert "  Fix the login page: queued, not completed" in lines
    assert "  Prepare the release notes: queued, not completed (dependency)" in lines
    assert [line[:7] for line in lines[-3:]] == ["error: ", "  why: ", "   do: "]
    assert "timed_out" in lines[-2]
    assert processes_below(tmp_path) == []


def processes_below(folder: Path) -> list[str]:
    """Processes that name this folder in their command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    data = (entry / name).read_bytes()
                except OSError:
                    continue
                if str(folder).encode() in data:
                    found.append(f"{entry.name}: {data[:200]!r}")
    return found
