"""How a service treats what its collector looks after; tried in a process of its own, as it changes the whole interpreter."""

from __future__ import annotations

import subprocess
import sys

from service_runtime.lifecycle import COLLECT_AFTER

PROGRAM = """
import gc
from service_runtime.lifecycle import run_main

async def tell():
    print(gc.get_threshold()[0], gc.get_freeze_count() > 1_000, len(gc.get_objects()) < gc.get_freeze_count(), gc.isenabled())
    return 0

run_main(tell)
"""


def test_a_service_looks_for_cycles_seldom_and_only_among_what_is_new() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == [str(COLLECT_AFTER), "True", "True", "True"]
