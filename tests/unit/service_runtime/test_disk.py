"""The room that a folder has left, as a gauge shows it."""

from __future__ import annotations

import asyncio
import shutil
from math import isnan
from pathlib import Path

import pytest

from service_runtime.disk import free_bytes, watch_free_bytes


def test_the_room_is_what_an_unprivileged_writer_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> object:
        asked.append(path)
        return shutil._ntuple_diskusage(1000, 600, 300)  # type: ignore[attr-defined]  # total, used, free

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert free_bytes(tmp_path) == 300
    assert asked == [tmp_path]


def test_of_a_folder_that_is_not_there_nothing_is_said(tmp_path: Path) -> None:
    assert isnan(free_bytes(tmp_path / "missing"))


async def test_it_is_shown_at_once_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("service_runtime.disk.LOOK_EVERY_S", 0.0)
    shown: asyncio.Queue[float] = asyncio.Queue()
    watching = asyncio.create_task(watch_free_bytes(tmp_path, shown.put_nowait))
    async with asyncio.timeout(10):
        assert await shown.get() > 0
        assert await shown.get() > 0
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
