"""The output on disk: written by the guard's Log, read by its readers, whatever was cut out between."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_service.host.guarding.log import LOG_SEGMENTS, Log
from executor_service.runs import output
from executor_service.runs.output import last_bytes, output_size, read_output, read_piece


def kept(folder: Path) -> dict[int, int]:
    """Every byte that is kept, by its offset."""
    found: dict[int, int] = {}
    position = 0
    while True:
        position, data = read_piece(folder, position)
        if not data:
            return found
        found |= {position + i: byte for i, byte in enumerate(data)}
        position += len(data)


@given(most=st.integers(16, 400), sizes=st.lists(st.integers(1, 150), max_size=20))
def test_head_and_tail_are_kept_and_the_rest_is_counted(
    tmp_path_factory: pytest.TempPathFactory, most: int, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    log, whole = Log(str(folder), most), bytearray()
    for size in sizes:
        data = bytes((len(whole) + i) % 251 for i in range(size))
        whole += data
        log.write(data)
    found = kept(folder)
    assert all(whole[offset] == byte for offset, byte in found.items()), "an offset counts all that was written"
    assert len(found) <= most
    assert len(whole) - len(found) == log.dropped
    segment = max(1, (most - most // 2) // LOG_SEGMENTS)
    sure = set(range(min(len(whole), most // 2))) | set(range(max(0, len(whole) - segment * (LOG_SEGMENTS - 1)), len(whole)))
    assert sure <= set(found)
    assert output_size(folder) == len(whole)
    assert last_bytes(folder, 10) == bytes(whole[-len(last_bytes(folder, 10)) :] if whole else b"")


def test_a_full_disk_leaves_a_gap_that_the_next_piece_tells_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(str(tmp_path), 1_000)
    log.write(b"before")
    write = os.write

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.write(b"lost")
    monkeypatch.setattr(os, "write", write)
    log.write(b"after")
    assert (log.dropped, read_piece(tmp_path, 0), read_piece(tmp_path, 6)) == (4, (0, b"before"), (10, b"after"))


def test_room_is_made_at_the_logs_cost(tmp_path: Path) -> None:
    log = Log(str(tmp_path), 100)
    log.write(b"x" * 90)
    log.make_room()
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]


async def collected(folder: Path, offset: int = 0, *, tail_bytes: int = 0) -> list[tuple[int, bytes]]:
    reading = read_output(folder, offset, lambda: False, tail_bytes=tail_bytes, follow=True)
    return [piece async for piece in reading]


async def test_it_is_read_from_the_start_from_any_byte_and_from_the_tail(tmp_path: Path) -> None:
    Log(str(tmp_path), 10_000).write(b"0123456789")
    assert await collected(tmp_path) == [(0, b"0123456789")]
    assert await collected(tmp_path, 7) == [(7, b"789")]
    assert await collected(tmp_path, tail_bytes=3) == [(7, b"789")]
    assert await collected(tmp_path, 9, tail_bytes=3) == [(9, b"9")]
    assert await collected(tmp_path, tail_bytes=100) == [(0, b"0123456789")]
    assert await collected(tmp_path, 10) == await collected(tmp_path / "gone") == []


async def test_a_follower_gets_what_comes_and_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LOOK_FIRST_S", 0.001)
    log, alive = Log(str(tmp_path), 60), True
    reading = read_output(tmp_path, 0, lambda: alive, follow=True)
    log.write(b"a" * 30)
    assert await anext(reading) == (0, b"a" * 30)
    waiting = asyncio.ensure_future(anext(reading))
    log.write(b"b" * 3)
    async with asyncio.timeout(10):
        assert await waiting == (30, b"b" * 3)
    log.write(b"c" * 100)
    alive = False
    rest = [piece async for piece in reading]
    assert rest[0][0] > 33, "what was let go of is passed over"
    assert rest[-1][0] + len(rest[-1][1]) == 133


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
async def test_what_a_command_puts_in_its_place_is_no_output(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "output.log"
    (tmp_path / "secret").write_text("of somebody else")
    if kind == "link":
        path.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    async with asyncio.timeout(10):
        assert await collected(tmp_path) == []
    assert output_size(tmp_path) == 0
