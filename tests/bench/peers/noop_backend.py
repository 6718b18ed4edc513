"""The backend `noop`, installed as a plug-in is: a run is over as soon as it begins."""

from __future__ import annotations

from collections.abc import Mapping

from bench_started import Started

from executor_service.backends.in_process import InProcess
from executor_service.backends.replies import Ended, completed
from executor_service.core.run import BackendKind, RunSpec
from executor_service.settings import ExecutorSettings


class Noop(InProcess):
    name = "noop"
    kind = BackendKind.SHARED

    def __init__(self, max_runs: int, started: Started) -> None:
        super().__init__()
        self.max_runs = max_runs
        self._started = started

    async def work(self, spec: RunSpec) -> Ended:
        self._started.tell()
        return completed("")


def create(settings: ExecutorSettings, environ: Mapping[str, str]) -> Noop:
    return Noop(int(environ["BENCH_MAX_RUNS"]), Started(environ.get("STARTED_ADDRESS", "")))
