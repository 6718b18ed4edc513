"""The numbers that decide: the contract's constants as one value, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from scheduler_service.core.dispatch_checks import CheckSettings
from scheduler_service.core.routing import DEFAULT_ROUTES
from scheduler_service.core.slot_budget import INTERACTIVE_RESERVE
from scheduler_service.core.verdicts import RetrySettings


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """The contract's constants: by part the gates', the retries' and the routing's; the rest one by one."""

    window: timedelta = timedelta(hours=1)
    lease_ttl: timedelta = timedelta(minutes=10)
    interactive_reserve: int = INTERACTIVE_RESERVE
    tick_interval: timedelta = timedelta(seconds=5)
    tick_enabled: bool = True
    task_retention: timedelta = timedelta(days=30)
    event_retention: timedelta = timedelta(days=14)
    audit_retention: timedelta = timedelta(days=365)
    checks: CheckSettings = field(default_factory=CheckSettings)
    retries: RetrySettings = field(default_factory=RetrySettings)
    routes: Mapping[str, str] = field(default_factory=lambda: DEFAULT_ROUTES)

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that tasks are routed to, by name."""
        return tuple(sorted(set(self.routes.values())))
