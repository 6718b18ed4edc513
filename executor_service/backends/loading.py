"""Makes the backends that installed distributions offer (entry points of the group `cecelia_dispatch.backends`).

A plug-in is somebody else's code: what is wrong with it makes that one backend `config_error`, and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import structlog

from executor_service.backends.in_process import InProcess
from executor_service.backends.plugged import Plugged
from executor_service.backends.replies import Ended, lost, words
from executor_service.core.run import BackendKind, RunSpec
from executor_service.runs.ports import Backend
from executor_service.settings import BACKEND_NAME, ExecutorSettings

_log = structlog.get_logger(__name__)

BACKEND_GROUP = "cecelia_dispatch.backends"
OUR_DISTRIBUTION = "cecelia-dispatch"
MAX_RUNS = 10_000
METHODS = ("check_configuration", "prepare", "execute", "reattach", "make_sure_gone", "cancel", "renew", "close")
FLAGS = ("local", "outlives_executor", "ends_by_callback")


class Unusable(InProcess):
    """Stands for a backend that could not be made: everything that is asked of it is answered with the reason."""

    kind = None
    max_runs = 0

    def __init__(self, name: str, why: str) -> None:
        super().__init__()
        self.name = name
        self._why = words(why)

    def check_configuration(self) -> str:
        """Why it could not be made."""
        return self._why

    async def work(self, spec: RunSpec) -> Ended:
        """Never begun: the door refuses what is not configured."""
        return lost(self._why)


class BackendLoader:
    """Looks at what is installed once, and makes backends by name."""

    def __init__(self, settings: ExecutorSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._installed: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=BACKEND_GROUP):
            self._installed.setdefault(entry.name, []).append(entry)

    def offered(self) -> dict[str, Backend]:
        """The backends that EXECUTOR_BACKENDS names, or every one that is installed."""
        names: Iterable[str] = self._settings.backends_offered or self._installed
        return {name: self.make(name) for name in sorted(set(names))}

    def make(self, name: str) -> Backend:
        """A backend; one that cannot be made says why in its configuration."""
        try:
            return self._made(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise anything, and must not stop the others
            why = str(error) if isinstance(error, _WrongBackend) else f"{type(error).__name__}: {error}"
            _log.error("backend_not_made", backend=name, error=why, exc_info=not isinstance(error, _WrongBackend))
            return Unusable(name, why)

    def _made(self, name: str) -> Backend:
        entry = self._entry(name)
        if not BACKEND_NAME.fullmatch(name):
            raise _WrongBackend(f"the entry point {name!r} is no name of a backend, such as my-backend")
        made = entry.load()(self._settings, self._environ)
        wrong = _what_is_wrong(made, name)
        if wrong:
            raise _WrongBackend(f"{entry.value}: {wrong}")
        return Plugged(made)

    def _entry(self, name: str) -> EntryPoint:
        entries = self._installed.get(name, [])
        ours = [entry for entry in entries if entry.dist is not None and entry.dist.name == OUR_DISTRIBUTION]
        if not entries:
            raise _WrongBackend(
                f"EXECUTOR_BACKENDS names {name}, which no installed distribution offers; installed are "
                f"{', '.join(sorted(self._installed))}"
            )
        if len(entries) > 1 and not ours:
            owners = ", ".join(sorted(entry.dist.name if entry.dist is not None else entry.value for entry in entries))
            raise _WrongBackend(f"several distributions offer {name}: {owners}; keep one of them")
        if len(entries) > 1:
            _log.error("backend_name_taken", backend=name, ignored=[e.value for e in entries if e not in ours])
        return (ours or entries)[0]


class _WrongBackend(Exception):
    """What the entry point gave is no backend; the text says what would be."""


def _what_is_wrong(made: Any, name: str) -> str:
    """What keeps an object from being a Backend (runs/ports.py); '' when nothing does."""
    missing = [method for method in METHODS if not callable(getattr(made, method, None))]
    if missing:
        return f"has no method {', '.join(missing)}"
    if getattr(made, "name", None) != name:
        return f"calls itself {getattr(made, 'name', None)!r}; must be {name!r}, the name of its entry point"
    if not isinstance(getattr(made, "kind", None), BackendKind):
        return f"has the kind {getattr(made, 'kind', None)!r}; must be BackendKind.SHARED or BackendKind.PER_EXECUTOR"
    for flag in FLAGS:
        if not isinstance(getattr(made, flag, None), bool):
            return f"has {flag} {getattr(made, flag, None)!r}; must be True or False"
    least, most = 0 if made.local else 1, getattr(made, "max_runs", None)
    if not isinstance(most, int) or isinstance(most, bool) or not least <= most <= MAX_RUNS:
        return f"has max_runs {most!r}; must be {least} to {MAX_RUNS}"
    return ""
