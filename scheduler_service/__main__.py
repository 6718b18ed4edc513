"""`scheduler-service`: settings from the environment, then the scheduler until a signal; `--check`: the settings only."""

from __future__ import annotations

import os
import sys

# gRPC's fork handlers and our children do not mix; it must be said before grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import structlog

from scheduler_service.app import SchedulerApp
from scheduler_service.settings import SchedulerSettings
from service_runtime.libpq_environment import libpq_variables
from service_runtime.lifecycle import run_main
from service_runtime.settings import load_settings
from service_runtime.structured_logging import configure_logging


async def _run() -> int:
    settings = load_settings(SchedulerSettings, os.environ)
    if "--check" in sys.argv[1:]:
        return 0
    configure_logging(settings.log_format, settings.log_level)
    if not settings.database_url:
        _forget_libpq_variables()
    return await SchedulerApp(settings).run()


def _forget_libpq_variables() -> None:
    """They are about other databases: of the embedded one we know all, and libpq would read them at every new connection."""
    names = libpq_variables(os.environ)
    for name in names:
        del os.environ[name]
    if names:
        structlog.get_logger(__name__).info("variables_ignored", names=names, because="DATABASE_URL is not set")


def main() -> int:
    """The console script."""
    return run_main(_run)


if __name__ == "__main__":
    sys.exit(main())
