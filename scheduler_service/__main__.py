"""`scheduler-service`: settings from the environment, then the scheduler until a signal; `--check`: the settings only."""

from __future__ import annotations

import os
import sys

# gRPC's fork handlers and our children do not mix; it must be said before grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from scheduler_service.app import SchedulerApp
from scheduler_service.settings import SchedulerSettings
from service_runtime.lifecycle import run_main
from service_runtime.settings import load_settings
from service_runtime.structured_logging import configure_logging


async def _run() -> int:
    settings = load_settings(SchedulerSettings, os.environ)
    if "--check" in sys.argv[1:]:
        return 0
    configure_logging(settings.log_format, settings.log_level)
    return await SchedulerApp(settings).run()


def main() -> int:
    """The console script."""
    return run_main(_run)


if __name__ == "__main__":
    sys.exit(main())
