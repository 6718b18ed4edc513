"""A run's output as it is on disk, from any byte on, and live while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

OUTPUT_FILE = "output.log"
CHUNK_BYTES = 64 * 1024
LOOK_EVERY_S = 0.2


async def read_output(
    path: Path, offset: int, live: Callable[[], bool], *, follow: bool, look_every_s: float = LOOK_EVERY_S
) -> AsyncGenerator[tuple[int, bytes], None]:
    """Pieces of at most 64 KiB, each with the offset of its first byte.

    Ends at the end of the file; with `follow` not before the run has ended. A run without output has none to give.
    """
    position = offset
    while True:
        # Asked before the look: what was written up to the end of a run is then seen by this look or was seen before.
        going_on = live()
        data = await asyncio.to_thread(_read, path, position)
        if data:
            yield position, data
            position += len(data)
        elif follow and going_on:
            await asyncio.sleep(look_every_s)
        else:
            return


def _read(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(CHUNK_BYTES)
    except FileNotFoundError:
        return b""
