"""All wrong settings of both services are told at once, by whichever way they are found."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.settings_check import settings_failure
from dispatchctl.up_plan import load_up_settings

ANY = {f"{service}_{kind}_ADDRESS": "127.0.0.1:0" for service in ("SCHEDULER", "EXECUTOR") for kind in ("GRPC", "HTTP")}


async def test_right_settings_are_no_failure(tmp_path: Path) -> None:
    assert await settings_failure(ANY) is None


async def test_a_wrong_address_does_not_hide_the_services_other_mistakes() -> None:
    with pytest.raises(Failure) as caught:
        await load_up_settings({"SCHEDULER_GRPC_ADDRESS": "x", "WINDOW_MS": "-1", "CPU_PER_TASK": "0"})
    assert caught.value.remedy == "correct or unset SCHEDULER_GRPC_ADDRESS, WINDOW_MS, CPU_PER_TASK"
    assert "must be host:port" in caught.value.why
    assert caught.value.status is ExitStatus.USAGE


async def test_up_names_the_mistakes_of_both_services(tmp_path: Path) -> None:
    env = {**ANY, "WINDOW_MS": "-1", "MEM_PER_TASK_MB": "x", "LOG_LEVEL": "loud", "DISPATCH_DATA_DIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatchctl", "up", env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    lines = err.decode().splitlines()
    assert [line[:7] for line in lines] == ["error: ", "  why: ", "   do: "]
    assert "config_error" in lines[1]
    assert all(lines[1].count(f"{name}=") == 1 for name in ("WINDOW_MS", "MEM_PER_TASK_MB", "LOG_LEVEL"))
