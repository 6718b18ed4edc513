"""The scheduler's settings: the contract's constants from the environment, right or not made at all."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator

from scheduler_service.core.breaker import BreakerSettings
from scheduler_service.core.dispatch_checks import CheckSettings, GuardMode
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.routing import BACKEND_NAME, DEFAULT_ROUTES
from scheduler_service.core.slot_budget import INTERACTIVE_RESERVE
from scheduler_service.core.tuning import TUNABLES, Configured, Origin, SettingValue
from scheduler_service.core.verdicts import RetrySettings
from service_runtime.http_app import HttpPolicy
from service_runtime.http_server import OPERATIONAL_PATHS
from service_runtime.settings import HostPort, Milliseconds, ServiceSettings, load_settings

_DAY_MS = 86_400_000
_HOST_NAME = re.compile(r"\*|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_TASK_TYPE = re.compile(r"\*|[^\s,=*]{1,128}")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
Targets = Annotated[str, Field(max_length=10_000)]


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _routes(value: str) -> dict[str, str]:
    """Type (lower case) to backend. Raises ValueError that names the wrong pair."""
    routes: dict[str, str] = {}
    for pair in _listed(value):
        type_, equals, backend = (part.strip() for part in pair.partition("="))
        if not equals or not _TASK_TYPE.fullmatch(type_) or not BACKEND_NAME.fullmatch(backend):
            raise ValueError(f"has the pair {pair!r}; must be type=backend, such as talk=hk-minimax or *=cecelia-run")
        if type_.lower() in routes:
            raise ValueError(f"has the pair {pair!r}, and the type {type_.lower()!r} before")
        routes[type_.lower()] = backend
    if not routes:
        raise ValueError("has no pair; must be type=backend, such as *=cecelia-run")
    return routes


def _span(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def _plain(value: Any) -> SettingValue:
    plain: SettingValue = value.value if isinstance(value, Enum) else value
    return plain


class SchedulerSettings(ServiceSettings):
    """Every setting of the scheduler, under the contract's names."""

    database_url: SecretStr | None = Field(None, description="libpq URL; unset: the embedded PostgreSQL")
    dispatch_data_dir: str = Field(
        "~/.local/share/cecelia-dispatch", min_length=1, description="folder of the embedded PostgreSQL"
    )
    scheduler_grpc_address: HostPort = Field("127.0.0.1:50051", description="where gRPC is served")
    scheduler_http_address: HostPort = Field("127.0.0.1:5221", description="where HTTP is served")
    executor_targets: Targets = Field("127.0.0.1:50052", description="gRPC targets of executors, comma-separated")

    dispatch_routes: str = Field(
        ",".join(f"{type_}={backend}" for type_, backend in DEFAULT_ROUTES.items()),
        max_length=10_000,
        description="which backend runs a type of task, type=backend comma-separated; *: every other type, or they are refused",
    )

    window_ms: Annotated[int, Field(ge=1, le=7 * _DAY_MS)] = Field(3_600_000, description="the rolling window")
    dispatch_rate_threshold: float = Field(0.3, ge=0, le=1, description="share of successful starts below which it holds")
    dispatch_min_sample: int = Field(10, ge=1, le=1_000_000, description="attempts from which on the share is judged")
    dispatch_rate_guard: GuardMode = Field(GuardMode.ENFORCE, description="enforce, observe or off, for the success rate")
    low_rate_probe_interval_ms: Milliseconds = Field(60_000, description="one task passes in each while the share is low")
    dispatch_breaker_guard: GuardMode = Field(GuardMode.ENFORCE, description="enforce, observe or off, for the breakers")
    failure_threshold: int = Field(3, ge=1, le=1_000, description="consecutive failures that open a breaker")
    open_duration_ms: Milliseconds = Field(1_800_000, description="how long a breaker stays open")
    interactive_reserve: int = Field(INTERACTIVE_RESERVE, ge=0, le=10_000, description="slots kept for people")
    retry_backoff_ms: Milliseconds = Field(1_000, description="first back-off")
    retry_backoff_max_ms: Milliseconds = Field(300_000, description="longest back-off")
    lease_ttl_ms: Annotated[int, Field(ge=1_000, le=7 * _DAY_MS)] = Field(600_000, description="a run's lease")
    leader_lease_ms: Annotated[int, Field(ge=300, le=600_000)] = Field(3_000, description="the leader's lease")
    tick_interval_ms: Annotated[int, Field(ge=50, le=3_600_000)] = Field(5_000, description="time between clock ticks")
    tick_enabled: bool = Field(True, description="false: only RunTick dispatches")
    task_retention_ms: Milliseconds = Field(30 * _DAY_MS, description="how long ended tasks are kept")
    log_format: Literal["json", "console"] = Field("console", description="json or console")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    event_retention_ms: Milliseconds = Field(14 * _DAY_MS, description="how long decisions and events are kept")
    audit_retention_ms: Annotated[int, Field(ge=_DAY_MS, le=3_660 * _DAY_MS)] = Field(
        365 * _DAY_MS, description="how long the audit log is kept"
    )

    http_allowed_hosts: str = Field(
        "", max_length=10_000, description="host names served besides loopback names and IP literals, comma-separated; *: any"
    )
    http_base_path: str = Field("", max_length=200, description="where the HTTP paths begin behind a proxy, such as /dispatch")
    http_read_only: bool = Field(False, description="true: HTTP writes are refused")
    http_hide_payloads: bool = Field(False, description="true: HTTP leaves out what submitters of tasks wrote")

    @field_validator("http_allowed_hosts")
    @classmethod
    def _host_names(cls, value: str) -> str:
        wrong = [name for name in _listed(value) if not _HOST_NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"names {wrong[0]!r}; must be host names without scheme and port, such as dispatch.example.org")
        return value

    @field_validator("http_base_path")
    @classmethod
    def _a_path(cls, value: str) -> str:
        if value and not _PATH.fullmatch(value):
            raise ValueError("must begin with / and not end with it, of letters, digits and . _ ~ - only, such as /dispatch")
        return value

    @field_validator("dispatch_routes")
    @classmethod
    def _pairs(cls, value: str) -> str:
        _routes(value)
        return value

    @field_validator("executor_targets")
    @classmethod
    def _at_least_one(cls, value: str) -> str:
        targets = _listed(value)
        if not targets:
            raise ValueError("must name at least one gRPC target, such as 127.0.0.1:50052")
        if len(set(targets)) != len(targets):
            raise ValueError("names a target twice")
        return ",".join(targets)

    @property
    def targets(self) -> tuple[str, ...]:
        """The executors' targets."""
        return tuple(self.executor_targets.split(","))

    @property
    def http_policy(self) -> HttpPolicy:
        """Who may ask over HTTP."""
        return HttpPolicy(
            allowed_hosts=frozenset(name.lower() for name in _listed(self.http_allowed_hosts)),
            base_path=self.http_base_path,
            read_only=self.http_read_only,
            open_paths=OPERATIONAL_PATHS,
        )

    def configured(self) -> dict[str, Configured]:
        """The settings that can change at run time as they are without an override, by name."""
        return {name: self._configured(name.lower()) for name in TUNABLES}

    def _configured(self, field: str) -> Configured:
        origin = Origin.ENVIRONMENT if field in self.model_fields_set else Origin.DEFAULT
        meaning = type(self).model_fields[field].description or ""
        return Configured(_plain(getattr(self, field)), origin, meaning)

    @classmethod
    def value_of(cls, name: str, text: str) -> SettingValue:
        """The value that a setting has if the environment says `text`. Raises SettingsError with its words."""
        return _plain(getattr(load_settings(cls, {name: text}), name.lower()))

    @property
    def rules(self) -> DispatchRules:
        """The numbers that decide."""
        return DispatchRules(
            window=_span(self.window_ms),
            routes=_routes(self.dispatch_routes),
            lease_ttl=_span(self.lease_ttl_ms),
            interactive_reserve=self.interactive_reserve,
            tick_interval=_span(self.tick_interval_ms),
            tick_enabled=self.tick_enabled,
            task_retention=_span(self.task_retention_ms),
            event_retention=_span(self.event_retention_ms),
            audit_retention=_span(self.audit_retention_ms),
            checks=CheckSettings(
                rate_threshold=self.dispatch_rate_threshold,
                min_sample=self.dispatch_min_sample,
                rate_guard=self.dispatch_rate_guard,
                low_rate_probe_interval=_span(self.low_rate_probe_interval_ms),
                breaker_guard=self.dispatch_breaker_guard,
                breaker=BreakerSettings(self.failure_threshold, _span(self.open_duration_ms)),
            ),
            retries=RetrySettings(_span(self.retry_backoff_ms), _span(self.retry_backoff_max_ms)),
        )
