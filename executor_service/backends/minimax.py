"""The MiniMax service: `POST {HK_MINIMAX_URL}/execute`; the answer is the work, so its verdict is the run's end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from executor_service.backends.http_call import JsonCaller, wrong_url
from executor_service.backends.in_process import InProcess
from executor_service.backends.replies import Ended, completed
from executor_service.core.run import BackendKind, RunSpec
from executor_service.settings import ExecutorSettings
from service_runtime.clock import Clock, SystemClock

NAME = "hk-minimax"
TOTAL_S = 120.0


def _work(data: Mapping[str, Any]) -> Ended:
    result = data.get("result", "")
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    usage = data.get("usage")
    return completed(text, usage if isinstance(usage, dict) else {})


class MiniMax(InProcess):
    """The backend `hk-minimax`. `total_s` bounds a whole call, whatever the service does."""

    name = NAME
    kind = BackendKind.SHARED

    def __init__(self, url: str, max_runs: int, clock: Clock, *, total_s: float = TOTAL_S) -> None:
        super().__init__()
        self.max_runs = max_runs
        self._caller = JsonCaller(url, clock, total_s=total_s, most=max_runs)

    def check_configuration(self) -> str:
        """What is wrong with the URL; '' when nothing is."""
        return wrong_url("HK_MINIMAX_URL", self._caller.url)

    async def work(self, spec: RunSpec) -> Ended:
        """Makes the call and judges its answer."""
        body = {"id": spec.task_id, "title": spec.title, "description": spec.description, "task_type": spec.task_type}
        return await self._caller.post("/execute", body, "success", _work)

    async def close(self) -> None:
        """Closes connections."""
        await self._caller.close()


def create(settings: ExecutorSettings, environ: Mapping[str, str]) -> MiniMax:
    """The backend as configured."""
    return MiniMax(settings.hk_minimax_url, settings.hk_minimax_max_runs, SystemClock())
