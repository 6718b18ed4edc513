"""Prometheus metrics of one registry under one prefix, every closed label set present at zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

RPC_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def distribution_version(name: str) -> str:
    """The installed version of a distribution; `unknown` when it runs uninstalled."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


class MetricSet:
    """Makes metrics in a registry under a prefix such as `cecelia_scheduler`."""

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        self._registry = registry
        self._prefix = prefix

    def counter(self, name: str, help_: str, labels: Mapping[str, Iterable[str]] | None = None) -> Counter:
        """A counter; with labels, one series for each combination of their closed sets."""
        names, rows = _series(labels)
        made = Counter(f"{self._prefix}_{name}", help_, names, registry=self._registry)
        for row in rows:
            made.labels(*row)
        return made

    def gauge(self, name: str, help_: str, labels: Mapping[str, Iterable[str]] | None = None) -> Gauge:
        """A gauge; with labels, one series for each combination of their closed sets."""
        names, rows = _series(labels)
        made = Gauge(f"{self._prefix}_{name}", help_, names, registry=self._registry)
        for row in rows:
            made.labels(*row)
        return made

    def labelled_counter(self, name: str, help_: str, labels: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> Counter:
        """A counter whose rows are named one by one; others may join while the service learns of them."""
        made = Counter(f"{self._prefix}_{name}", help_, tuple(labels), registry=self._registry)
        for row in rows:
            made.labels(*row)
        return made

    def labelled_gauge(self, name: str, help_: str, labels: Sequence[str]) -> Gauge:
        """A gauge whose rows join while the service learns of them."""
        return Gauge(f"{self._prefix}_{name}", help_, tuple(labels), registry=self._registry)

    def histogram(
        self, name: str, help_: str, buckets: Sequence[float], labels: Mapping[str, Iterable[str]] | None = None
    ) -> Histogram:
        """A histogram; with labels, one series for each combination of their closed sets."""
        names, rows = _series(labels)
        made = Histogram(f"{self._prefix}_{name}", help_, names, registry=self._registry, buckets=tuple(buckets))
        for row in rows:
            made.labels(*row)
        return made

    def rpc_durations(self) -> Histogram:
        """`rpc_server_duration_seconds` by method and code."""
        return Histogram(
            f"{self._prefix}_rpc_server_duration_seconds",
            "How long rpcs took.",
            ("method", "code"),
            registry=self._registry,
            buckets=RPC_SECONDS,
        )

    def build_info(self, version_: str) -> None:
        """`build_info`, 1, with the version."""
        self.gauge("build_info", "The running version.", {"version": [version_]}).labels(version_).set(1)


def _series(labels: Mapping[str, Iterable[str]] | None) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    if not labels:
        return (), []
    return tuple(labels), list(product(*labels.values()))
