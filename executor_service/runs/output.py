"""A run's output as its guard keeps it on disk: the head, the newest pieces of the tail, and a gap between them if it grew large.

Offsets count the bytes that the run has written, kept or not.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from executor_service.runs.regular_files import read_regular, size_of_regular

HEAD_FILE = "output.log"
CHUNK_BYTES = 64 * 1024
# A silent run is looked at less and less often, as many may be followed at once.
LOOK_FIRST_S = 0.1
LOOK_LAST_S = 1.0
_PIECE = re.compile(r"output-([0-9]{1,20})\.log")


async def read_output(
    folder: Path,
    offset: int,
    live: Callable[[], bool],
    *,
    tail_bytes: int = 0,
    follow: bool,
) -> AsyncGenerator[tuple[int, bytes], None]:
    """Pieces of at most 64 KiB, each with the offset of its first byte; what is not kept is passed over.

    `tail_bytes` begins so many bytes before the end, if that is later than `offset`. Ends at the end of the output; with
    `follow` not before the run has ended. A run without output has none to give.
    """
    position = offset
    if tail_bytes:
        position = max(offset, await asyncio.to_thread(output_size, folder) - tail_bytes)
    pause = LOOK_FIRST_S
    while True:
        # Asked before the look: what was written up to the end of a run is then seen by this look or was seen before.
        going_on = live()
        position, data = await asyncio.to_thread(read_piece, folder, position)
        if data:
            yield position, data
            position += len(data)
            pause = LOOK_FIRST_S
        elif follow and going_on:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_LAST_S)
        else:
            return


def output_size(folder: Path) -> int:
    """How many bytes the run has written, as far as they are on disk."""
    return max((start + size_of_regular(path) for start, path in _files(folder)), default=0)


def last_bytes(folder: Path, most: int) -> bytes:
    """The newest bytes that are kept in one piece."""
    for _start, path in reversed(_files(folder)):
        if data := read_regular(path, most, from_end=True):
            return data
    return b""


def read_piece(folder: Path, position: int) -> tuple[int, bytes]:
    """At most 64 KiB from a byte on, or from the next one that is kept; with the offset of the first. Nothing at the end."""
    files = _files(folder)
    for index, (start, path) in enumerate(files):
        end = files[index + 1][0] if index + 1 < len(files) else None
        if end is not None and position >= end:
            continue
        data = read_regular(path, CHUNK_BYTES, offset=max(0, position - start))
        if data:
            return max(position, start), data
        # A later file was there before this look: nothing more comes into this one.
    return position, b""


def _files(folder: Path) -> list[tuple[int, Path]]:
    """The files of the output with their first byte, in order."""
    found = [(0, folder / HEAD_FILE)]
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return found
    found += [(int(match[1]), folder / match[0]) for name in names if (match := _PIECE.fullmatch(name))]
    return sorted(found)
