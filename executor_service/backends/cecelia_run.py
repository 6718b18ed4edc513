"""The backend `cecelia-run`: behind an HTTP bridge where EXECUTOR_BRIDGE_URL names one, else as processes of our own."""

from __future__ import annotations

from collections.abc import Mapping

from executor_service.backends.http_bridge import HttpBridge
from executor_service.backends.local_bridge import LocalBridge
from executor_service.host.delegation import delegated_group
from executor_service.runs.ports import Backend
from executor_service.settings import ExecutorSettings
from service_runtime.clock import SystemClock


def create(settings: ExecutorSettings, environ: Mapping[str, str]) -> Backend:
    """The backend as configured."""
    if settings.executor_bridge_url is not None:
        return HttpBridge(settings.executor_bridge_url, SystemClock())
    return LocalBridge(settings.cecelia_run_path, settings.passed_through, environ, cgroup=delegated_group())
