"""How much room a folder has left, for a gauge."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from math import nan
from pathlib import Path

LOOK_EVERY_S = 15.0


def free_bytes(folder: Path) -> float:
    """What an unprivileged writer may still write to the folder's file system; NaN if that cannot be told."""
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return nan


async def watch_free_bytes(folder: Path, show: Callable[[float], object]) -> None:
    """Shows it every LOOK_EVERY_S, for as long as it runs. Off the loop: a network folder may not answer."""
    while True:
        show(await asyncio.to_thread(free_bytes, folder))
        await asyncio.sleep(LOOK_EVERY_S)
