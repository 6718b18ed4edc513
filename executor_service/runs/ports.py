"""What running needs: backends that carry runs out, and somebody who knows the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from executor_service.core.admission import ResourceReport
from executor_service.core.reservation import LocalRun, Room
from executor_service.core.run import BackendKind, EndReport, RunSpec, StartReport


@dataclass(frozen=True, slots=True)
class BackendState:
    """What a backend could take now. `reason` '' means: a task; `detail` says more of a reason. `kind` None: not known."""

    name: str
    kind: BackendKind | None
    local: bool
    max_runs: int
    running: int
    ends_by_callback: bool
    reason: str
    detail: str

    @property
    def configured(self) -> bool:
        """Whether nothing is wrong with how it is set up."""
        return self.reason != "config_error"


class Reporter(Protocol):
    """Takes in a run's start verdict; the first one counts."""

    def started(self, report: StartReport) -> None: ...


class Backend(Protocol):
    """Carries runs out; docs/backends.md shows how to write one.

    The members are told from other objects by their names when a plug-in is made (backends/loading.py).
    """

    @property
    def name(self) -> str:
        """The name of its entry point."""
        ...

    @property
    def kind(self) -> BackendKind | None:
        """Which breaker counts its failures; None where nobody knows, as of one that could not be made."""
        ...

    @property
    def local(self) -> bool:
        """Whether it runs on this machine: then the machine's slots gate it."""
        ...

    @property
    def max_runs(self) -> int:
        """Its own limit of runs at once; 0: none besides the slots, for local ones only."""
        ...

    @property
    def outlives_executor(self) -> bool:
        """Whether its runs go on without the executor, so that a stop need not wait for them."""
        ...

    @property
    def ends_by_callback(self) -> bool:
        """Whether the ends of its runs come to the scheduler by a callback of whoever runs them, not from here."""
        ...

    def check_configuration(self) -> str:
        """What is wrong with its configuration, in words; '' when nothing is. Probes no remote service."""
        ...

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:
        """Makes the run's folder (runs/folders.py), if it needs one, and writes there what it needs, before it is accepted.

        Raises BackendError and OSError.
        """
        ...

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        """Begins the run, reports its start verdict as soon as it is known, and returns its end.

        `lease_from` is the stamp, in nanoseconds of CLOCK_BOOTTIME, that the lease counts from.
        """
        ...

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        """The end of a run that an earlier process of this executor began."""
        ...

    async def make_sure_gone(self, spec: RunSpec, run_dir: Path) -> None:
        """Ends whatever there is of a run that `execute` or `reattach` lost hold of."""
        ...

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        """Asks for the run's end; `execute` or `reattach` then returns."""
        ...

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:
        """The lease counts from this stamp now. Raises BackendError when that cannot be noted."""
        ...

    async def close(self) -> None:
        """Lets go of connections; runs that outlive the executor go on."""
        ...


class Resources(Protocol):
    """Knows what the machine can take."""

    def report(self) -> ResourceReport: ...
    def room(self, runs: Sequence[LocalRun]) -> Room:
        """How many local runs may be under way at once, of which these are."""
        ...
