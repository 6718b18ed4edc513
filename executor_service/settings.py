"""The executor's settings: the contract's constants from the environment, right or not made at all."""

from __future__ import annotations

import re
import socket
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from executor_service.core.admission import Limits
from service_runtime.settings import HostPort, Milliseconds, ServiceSettings

_DAY_MS = 86_400_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
BACKEND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ExecutorSettings(ServiceSettings):
    """Every setting of the executor, under the contract's names."""

    empty_is_a_value: ClassVar[frozenset[str]] = frozenset({"session_process_name"})

    executor_grpc_address: HostPort = Field("127.0.0.1:50052", description="where gRPC is served")
    executor_http_address: HostPort = Field("127.0.0.1:5222", description="where HTTP is served")
    executor_id: str = Field(default_factory=socket.gethostname, description="the executor's name")
    executor_data_dir: str = Field(
        "~/.local/share/cecelia-dispatch/executor", min_length=1, description="folder of the journal and the runs"
    )
    executor_backends: str = Field(
        "", max_length=10_000, description="backends that it offers, comma-separated; empty: every installed one"
    )
    hk_minimax_url: str = Field("http://100.86.118.99:5226", description="the MiniMax service")
    hk_minimax_max_runs: int = Field(8, ge=1, le=10_000, description="MiniMax runs at once")
    executor_bridge_url: str | None = Field(None, description="URL of an HTTP bridge that runs the command; unset: run here")
    cecelia_run_path: str = Field("cecelia-run", min_length=1, description="command of the local bridge")
    cecelia_run_env: str = Field("", max_length=10_000, description="further variables passed through, comma-separated")
    session_process_name: str = Field("claude", description="process counted as an interactive session")
    cecelia_budget_slots: int | None = Field(None, ge=1, le=1_000_000, description="ceiling on slots")
    mem_per_task_mb: int = Field(
        500, ge=1, le=100_000_000, description="memory a task, reserved for its run until the run has taken it"
    )
    cpu_per_task: float = Field(
        0.5, gt=0, le=10_000, description="cores a task, reserved for its run until the mean of 10 s shows what it takes"
    )
    cpu_threshold_pct: float = Field(
        80, gt=0, le=1_000_000, description="CPU use in percent at which nothing is started; far above 100: CPU does not count"
    )
    executor_drain_ms: Annotated[int, Field(ge=0, le=_DAY_MS)] = Field(30_000, description="drain before runs are ended")
    executor_end_runs_on_stop: bool = Field(False, description="end what still runs when the executor stops")
    run_retention_ms: Milliseconds = Field(7 * _DAY_MS, description="how long ended runs are kept")
    log_format: Literal["json", "console"] = Field("console", description="json or console")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")

    @field_validator("executor_id")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("must be 1 to 128 letters, digits, dots, dashes and underscores, beginning with a letter or digit")
        return value

    @field_validator("executor_backends")
    @classmethod
    def _backend_names(cls, value: str) -> str:
        wrong = [name for name in _split(value) if not BACKEND_NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"names {wrong[0]!r}; must be names of backends, such as cecelia-run,hk-minimax")
        return value

    @field_validator("cecelia_run_env")
    @classmethod
    def _variables(cls, value: str) -> str:
        wrong = [name for name in _split(value) if not _VARIABLE.fullmatch(name)]
        if wrong:
            raise ValueError(f"names {wrong[0]!r}, which is no variable's name")
        return value

    @property
    def backends_offered(self) -> tuple[str, ...]:
        """The backends that it offers; none named: every installed one."""
        return tuple(_split(self.executor_backends))

    @property
    def passed_through(self) -> tuple[str, ...]:
        """Names of further variables for the command."""
        return tuple(_split(self.cecelia_run_env))

    @property
    def limits(self) -> Limits:
        """The numbers of admission."""
        return Limits(self.mem_per_task_mb, self.cpu_per_task, self.cecelia_budget_slots, self.cpu_threshold_pct)

    @property
    def drain(self) -> timedelta:
        """How long a stop waits before it ends runs."""
        return timedelta(milliseconds=self.executor_drain_ms)


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
