"""The settings that can change while the scheduler runs, and the rules as they are under overrides.

Changed at run time is what each decision reads anew. What executors, replicas or sockets were told cannot change under them: the
length of a lease is counted by clocks elsewhere, a replica needs its leader's lease before it can read anything, and addresses,
folders and the HTTP side belong to one process. Whoever changes settings must not shorten the record of it. Those are read at the
start only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from scheduler_service.core.dispatch_checks import GuardMode
from scheduler_service.core.dispatch_rules import DispatchRules

SettingValue = bool | int | float | str
"""A setting as it is stored; a time span in ms."""

MILLISECONDS = "ms"
MODE = "mode"


@dataclass(frozen=True, slots=True)
class Tunable:
    """Where a setting stands in the rules: the names of the fields on the way; and the unit of its value."""

    path: tuple[str, ...]
    unit: str


def _tunable(path: str, unit: str = "") -> Tunable:
    return Tunable(tuple(path.split(".")), unit)


TUNABLES: Mapping[str, Tunable] = MappingProxyType(
    {
        "WINDOW_MS": _tunable("window", MILLISECONDS),
        "DISPATCH_RATE_THRESHOLD": _tunable("checks.rate_threshold", "share"),
        "DISPATCH_MIN_SAMPLE": _tunable("checks.min_sample", "attempts"),
        "DISPATCH_RATE_GUARD": _tunable("checks.rate_guard", MODE),
        "LOW_RATE_PROBE_INTERVAL_MS": _tunable("checks.low_rate_probe_interval", MILLISECONDS),
        "DISPATCH_BREAKER_GUARD": _tunable("checks.breaker_guard", MODE),
        "FAILURE_THRESHOLD": _tunable("checks.breaker.failure_threshold", "failures"),
        "OPEN_DURATION_MS": _tunable("checks.breaker.open_duration", MILLISECONDS),
        "INTERACTIVE_RESERVE": _tunable("interactive_reserve", "slots"),
        "RETRY_BACKOFF_MS": _tunable("retries.base", MILLISECONDS),
        "RETRY_BACKOFF_MAX_MS": _tunable("retries.maximum", MILLISECONDS),
        "TICK_INTERVAL_MS": _tunable("tick_interval", MILLISECONDS),
        "TICK_ENABLED": _tunable("tick_enabled"),
        "TASK_RETENTION_MS": _tunable("task_retention", MILLISECONDS),
        "EVENT_RETENTION_MS": _tunable("event_retention", MILLISECONDS),
    }
)
"""One row a setting, under the contract's names."""


def tuned(rules: DispatchRules, overrides: Mapping[str, SettingValue]) -> DispatchRules:
    """The rules with these settings in place of their own. A name of another version of this program says nothing here."""
    for name, value in overrides.items():
        if name in TUNABLES:
            rules = _put(rules, TUNABLES[name].path, _in_rules(TUNABLES[name], value))
    return rules


def _in_rules(tunable: Tunable, value: SettingValue) -> Any:
    if tunable.unit == MILLISECONDS:
        return timedelta(milliseconds=float(value))
    return GuardMode(str(value)) if tunable.unit == MODE else value


def _put(part: Any, path: tuple[str, ...], value: Any) -> Any:
    field, *below = path
    return replace(part, **{field: _put(getattr(part, field), tuple(below), value) if below else value})


def text_of(value: SettingValue) -> str:
    """A value as an environment variable would say it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Origin(StrEnum):
    """Where a setting's value comes from; wire values."""

    DEFAULT = "default"
    ENVIRONMENT = "environment"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class Configured:
    """What a setting is without an override: its value, whence, and what it means."""

    value: SettingValue
    origin: Origin
    meaning: str
