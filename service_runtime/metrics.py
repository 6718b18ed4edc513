"""Prometheus metrics of one registry under one prefix, every closed label set present at zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from math import nan

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

RPC_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def distribution_version(name: str) -> str:
    """The installed version of a distribution; `unknown` when it runs uninstalled."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class MadeMetric:
    """A metric as docs/metrics.md tells it; a label with None takes values that the service learns of while it runs."""

    name: str
    kind: str
    help: str
    labels: Mapping[str, tuple[str, ...] | None]


class MetricSet:
    """Makes metrics in a registry under a prefix such as `cecelia_scheduler`."""

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        self._registry = registry
        self._prefix = prefix
        self.made: list[MadeMetric] = []

    def _note(self, name: str, kind: str, help_: str, labels: Mapping[str, Iterable[str] | None]) -> str:
        full = f"{self._prefix}_{name}"
        closed = {label: None if values is None else tuple(values) for label, values in labels.items()}
        self.made.append(MadeMetric(full, kind, help_, closed))
        return full

    def counter(self, name: str, help_: str, labels: Mapping[str, Iterable[str]] | None = None) -> Counter:
        """A counter; with labels, one series for each combination of their closed sets."""
        names, rows = _series(labels)
        made = Counter(self._note(name, "counter", help_, labels or {}), help_, names, registry=self._registry)
        for row in rows:
            made.labels(*row)
        return made

    def gauge(self, name: str, help_: str, labels: Mapping[str, Iterable[str]] | None = None) -> Gauge:
        """A gauge; with labels, one series for each combination of their closed sets."""
        names, rows = _series(labels)
        made = Gauge(self._note(name, "gauge", help_, labels or {}), help_, names, registry=self._registry)
        for row in rows:
            made.labels(*row)
        return made

    def labelled_counter(self, name: str, help_: str, labels: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> Counter:
        """A counter whose rows are named one by one; others may join while the service learns of them."""
        rows = [tuple(row) for row in rows]
        values = {label: sorted({row[i] for row in rows}) or None for i, label in enumerate(labels)}
        made = Counter(self._note(name, "counter", help_, values), help_, tuple(labels), registry=self._registry)
        for row in rows:
            made.labels(*row)
        return made

    def labelled_gauge(self, name: str, help_: str, labels: Sequence[str]) -> Gauge:
        """A gauge whose rows join while the service learns of them."""
        full = self._note(name, "gauge", help_, dict.fromkeys(labels))
        return Gauge(full, help_, tuple(labels), registry=self._registry)

    def histogram(
        self, name: str, help_: str, buckets: Sequence[float], labels: Mapping[str, Iterable[str]] | None = None
    ) -> Histogram:
        """A histogram; with labels, one series for each combination of their closed sets."""
        names, rows = _series(labels)
        made = Histogram(
            self._note(name, "histogram", help_, labels or {}), help_, names, registry=self._registry, buckets=tuple(buckets)
        )
        for row in rows:
            made.labels(*row)
        return made

    def free_bytes(self, folder: str) -> Gauge:
        """`disk_free_bytes` of one folder by its name, not its path; NaN until it is known."""
        help_ = "Room left on the file system of a folder; NaN if that cannot be told."
        made = self.gauge("disk_free_bytes", help_, {"folder": [folder]}).labels(folder)
        made.set(nan)
        return made

    def rpc_durations(self) -> Histogram:
        """`rpc_server_duration_seconds` by method and code."""
        help_, labels = "How long rpcs took.", ("method", "code")
        return Histogram(
            self._note("rpc_server_duration_seconds", "histogram", help_, dict.fromkeys(labels)),
            help_,
            labels,
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
