"""Runs tasks as local processes: `$CECELIA_RUN_PATH <task_id> <run_id> <prompt_file>` under a guard of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from executor_service.backends.replies import EXECUTOR_FAILED
from executor_service.core.failure_classes import FailureClass
from executor_service.core.run import (
    RESULT_MAX_BYTES,
    TASK_AT_FAULT,
    BackendKind,
    EndReport,
    RunOutcome,
    RunSpec,
    StartReport,
    StartVerdict,
)
from executor_service.errors import BackendError
from executor_service.host.guarding.control_group import ControlGroup
from executor_service.host.guarding.files import claim, write_file
from executor_service.host.processes import ProcessIdentity, SpawnedGuard, end_leftovers, guard_of
from executor_service.runs.folders import fresh_folder
from executor_service.runs.output import last_bytes
from executor_service.runs.ports import Reporter
from executor_service.runs.regular_files import read_regular

_log = structlog.get_logger(__name__)

NAME = "cecelia-run"
INHERITED = ("PATH", "HOME", "LANG", "TZ")
GRACE_S = 10.0
LOG_MAX_BYTES = 16 * 1024 * 1024
OUTCOME_MAX_BYTES = 64 * 1024
OUTCOME_CLASSES = frozenset(FailureClass) - {FailureClass.UNKNOWN}
LOOK_S = 0.05
RETRY_S = 1.0
GONE_S = 60.0
_KEY = re.compile(r"\W")


class LocalBridge:
    """The backend `cecelia-run`."""

    name = NAME
    kind = BackendKind.PER_EXECUTOR
    local = True
    outlives_executor = True
    ends_by_callback = False
    max_runs = 0

    def __init__(
        self,
        command: str,
        passed_through: tuple[str, ...],
        environ: Mapping[str, str],
        *,
        grace_s: float = GRACE_S,
        cgroup: Path | None = None,
    ) -> None:
        """`cgroup`: the folder in which each run gets a group of its own; None: process groups do."""
        self._command = command
        self._environ = {name: environ[name] for name in (*INHERITED, *passed_through) if name in environ}
        self._grace_s = grace_s
        self._cgroup = cgroup
        self.process_control = "process_group" if cgroup is None else "cgroup"

    def check_configuration(self) -> str:
        """What is wrong with the command; '' when nothing is."""
        if self._resolved() is None:
            return f"CECELIA_RUN_PATH={self._command} is missing or not executable"
        return ""

    def _resolved(self) -> str | None:
        found = shutil.which(self._command, path=self._environ.get("PATH", os.defpath))
        return os.path.abspath(found) if found else None

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:
        """Writes the prompt and what the guard is to do. Raises BackendError when the command is gone."""
        command = self._resolved()
        if command is None:
            raise BackendError(self.check_configuration())
        fresh_folder(run_dir)
        work = run_dir / "work"
        work.mkdir(mode=0o700)
        prompt = run_dir / "prompt.txt"
        prompt.write_text(f"{spec.title}\n\n{spec.description}", encoding="utf-8", errors="replace")
        group = self._group(spec.run_id)
        orders = {
            "argv": [command, spec.task_id, spec.run_id, str(prompt)],
            "env": self._environment(spec, run_dir),
            "cwd": str(work),
            "timeout_s": spec.timeout.total_seconds(),
            "grace_s": self._grace_s,
            "log_max_bytes": LOG_MAX_BYTES,
            "cgroup": group.path if group is not None else "",
        }
        (run_dir / "spec.json").write_text(json.dumps(orders), encoding="utf-8")

    def _environment(self, spec: RunSpec, run_dir: Path) -> dict[str, str]:
        env = dict(self._environ)
        env |= {
            "CECELIA_TASK_ID": spec.task_id,
            "CECELIA_RUN_ID": spec.run_id,
            "CECELIA_TASK_TYPE": spec.task_type,
            "CECELIA_PERMISSION_MODE": spec.permission_mode,
            "CECELIA_MODEL": spec.model,
            "CECELIA_PROVIDER": spec.provider,
            "CECELIA_OUTCOME_FILE": str(run_dir / "outcome.json"),
        }
        if spec.skill:
            env["CECELIA_SKILL"] = spec.skill
        repo_path = spec.payload.get("repo_path")
        if isinstance(repo_path, str) and repo_path:
            env["CECELIA_WORK_DIR"] = repo_path
        skill_env = spec.payload.get("skill_env")
        if isinstance(skill_env, Mapping):
            for key, value in skill_env.items():
                env[f"CECELIA_SKILLENV_{_KEY.sub('', str(key))}"] = str(value)
        return {key: value.replace("\x00", "") for key, value in env.items()}

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        """Starts the guard, and waits for what it writes."""
        self.renew(spec, run_dir, lease_from)
        try:
            spawned = SpawnedGuard(run_dir, self._environ.get("PATH", os.defpath))
        except OSError as error:
            detail = f"the guard cannot be started: {error.strerror}"
            reporter.started(StartReport(StartVerdict.NEUTRAL, "resource", detail))
            return EndReport(RunOutcome.LOST, error=detail, error_class="resource")
        async for _ in spawned.phases():
            self._report_start(run_dir, reporter)
        return await self._ended(spec, run_dir, reporter)

    def _report_start(self, run_dir: Path, reporter: Reporter) -> None:
        if self._phase(run_dir).get("phase") in ("started", "ended"):
            reporter.started(StartReport(StartVerdict.SUCCESS))

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        """Finds the guard again, or what it left behind; a run that was never begun is given up for good."""
        if await self._given_up(run_dir):
            # A folder that somebody has removed says nothing of a guard that had begun: what lives of the run tells itself.
            while not await end_leftovers(spec.run_id, self._group(spec.run_id), GONE_S):
                _log.error("run_not_ended", backend=self.name, task_id=spec.task_id, run_id=spec.run_id)
            return EndReport(RunOutcome.LOST, error="the executor stopped before the run was begun")
        identity = self._guard(run_dir)
        while identity is not None and identity.alive:
            self._report_start(run_dir, reporter)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await identity.wait_gone()
        return await self._ended(spec, run_dir, reporter)

    async def _given_up(self, run_dir: Path) -> bool:
        """Whether no guard had claimed the run, so that none ever will. A full disk must not pass for an answer."""
        given_up = {"pid": 0, "start_ticks": 0, "pid_namespace": "", "boot_id": "", "given_up": True}
        while True:
            try:
                return claim(str(run_dir), given_up)
            except FileNotFoundError:
                return True  # no guard claims it any more: its batch failed half-way, or somebody has removed the folder
            except OSError as error:
                _log.warning("run_not_taken_up_yet", run_id=run_dir.name, error=error.strerror)
                await asyncio.sleep(RETRY_S)

    def _guard(self, run_dir: Path) -> ProcessIdentity | None:
        return guard_of(read_regular(run_dir / "claim", RESULT_MAX_BYTES))

    def _group(self, run_id: str) -> ControlGroup | None:
        return ControlGroup(str(self._cgroup / f"cecelia-run-{run_id}")) if self._cgroup is not None else None

    def _phase(self, run_dir: Path) -> dict[str, Any]:
        try:
            state = json.loads(read_regular(run_dir / "state.json", RESULT_MAX_BYTES))
        except ValueError:
            return {}
        return state if isinstance(state, dict) else {}

    async def _ended(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        state = self._phase(run_dir)
        if state.get("phase") == "failed":
            detail = f"{self._command} is there and cannot be started: {state.get('error')}"
            if state.get("errno") == errno.E2BIG:
                detail = "the task's environment is too large for a command (payload.skill_env)"
                reporter.started(StartReport(StartVerdict.NEUTRAL, TASK_AT_FAULT, detail))
                return EndReport(RunOutcome.FAILED_FOR_GOOD, error=detail, error_class="task")
            reporter.started(StartReport(StartVerdict.FAILURE, EXECUTOR_FAILED, detail))
            return EndReport(RunOutcome.NOT_STARTED, error=detail)
        if state.get("phase") == "cancelled":
            return EndReport(RunOutcome.CANCELLED, error=_text(run_dir / "cancel") or "cancelled")
        self._report_start(run_dir, reporter)
        if state.get("phase") != "ended":
            gone = await end_leftovers(spec.run_id, self._group(spec.run_id), GONE_S)
            _log.warning("guard_died", task_id=spec.task_id, run_id=spec.run_id, nothing_left=gone)
            left = "" if gone else "; some of its processes could not be ended"
            return EndReport(RunOutcome.LOST, error=f"the run's guard process died{left}")
        return self._end_report(run_dir, state)

    async def make_sure_gone(self, spec: RunSpec, run_dir: Path) -> None:
        """Ends the guard and everything below it."""
        identity = self._guard(run_dir)
        if identity is not None:
            identity.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * self._grace_s):
                    await identity.wait_gone()
            identity.signal(signal.SIGKILL)
        await end_leftovers(spec.run_id, self._group(spec.run_id), GONE_S)

    def _end_report(self, run_dir: Path, state: Mapping[str, Any]) -> EndReport:
        exit_code, number = state.get("exit_code"), state.get("signal")
        said = self._said(run_dir)
        base = EndReport(
            RunOutcome.FAILED,
            exit_code=exit_code,
            signal=number,
            result=_text(run_dir / "result"),
            error_class=str(said.get("class", "")),
            retry_time=said.get("retry_time"),
        )
        ended_by = state.get("ended_by")
        own_words = str(said.get("error", ""))
        if ended_by == "timeout":
            return _with(base, RunOutcome.TIMED_OUT, "ended at its time-out")
        if ended_by == "cancel" and not (run_dir / "cancel").exists():
            return _with(base, RunOutcome.LOST, "its guard was told to end, and not by the executor")
        if ended_by == "cancel":
            return _with(base, RunOutcome.CANCELLED, _text(run_dir / "cancel") or "cancelled")
        if ended_by == "lease":
            return _with(base, RunOutcome.LOST, "its lease ran out")
        if exit_code == 0:
            return _with(base, RunOutcome.COMPLETED, "")
        how = f"exit status {exit_code}" if exit_code is not None else f"signal {_signal_name(number)}"
        tail = own_words or _last_line(run_dir)
        return _with(base, RunOutcome.FAILED, f"{how}: {tail}" if tail else how)

    def _said(self, run_dir: Path) -> dict[str, Any]:
        """What the command left in CECELIA_OUTCOME_FILE; nothing when it is not as agreed."""
        raw = read_regular(run_dir / "outcome.json", OUTCOME_MAX_BYTES + 1)
        try:
            data = json.loads(raw.decode("utf-8", "replace")) if len(raw) <= OUTCOME_MAX_BYTES else None
        except (ValueError, RecursionError):
            return {}
        if not isinstance(data, dict) or str(data.get("class")) not in OUTCOME_CLASSES:
            return {}
        said: dict[str, Any] = {"class": data["class"]}
        if isinstance(data.get("error"), str):
            said["error"] = _clean(data["error"])[:2000]
        if isinstance(data.get("retry_time"), str):
            with contextlib.suppress(ValueError, OverflowError):
                moment = datetime.fromisoformat(data["retry_time"])
                said["retry_time"] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        return said

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        """Tells the guard to end the run."""
        try:
            write_file(str(run_dir), "cancel", _clean(reason)[:500].encode("utf-8", "replace"))
        except OSError as error:
            # It is ended all the same; without the word it counts as lost.
            _log.warning("cancel_not_written", task_id=spec.task_id, run_id=spec.run_id, error=error.strerror)
        identity = self._guard(run_dir)
        if identity is not None:
            identity.signal(signal.SIGTERM)

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:
        """Rewrites the lease; the guard looks at it when it is due. Raises BackendError: the one before still holds."""
        ttl = int(spec.lease_ttl.total_seconds() * 1e9)
        temporary = run_dir / f".lease.{os.getpid()}"
        try:
            temporary.write_text(f"{ttl} {lease_from}", encoding="ascii")
            temporary.rename(run_dir / "lease")
        except OSError as error:
            raise BackendError(f"the lease cannot be written: {error.strerror}") from error

    async def close(self) -> None:
        """Nothing to let go of: guards go on by themselves."""


def _with(base: EndReport, outcome: RunOutcome, error: str) -> EndReport:
    return EndReport(outcome, base.exit_code, base.signal, base.result, error, base.error_class, base.retry_time, base.usage)


def _signal_name(number: object) -> str:
    try:
        return signal.Signals(int(str(number))).name
    except ValueError:
        return str(number)


def _clean(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _text(path: Path) -> str:
    # Once more after the cleaning: a byte that is no text becomes three.
    text = _clean(read_regular(path, RESULT_MAX_BYTES).decode("utf-8", "replace"))
    return text.encode()[-RESULT_MAX_BYTES:].decode("utf-8", "ignore")


def _last_line(run_dir: Path) -> str:
    """The last line of the output, shortened: most commands say there why they failed."""
    lines = last_bytes(run_dir, 4096).decode("utf-8", "replace").strip().splitlines()
    return _clean(lines[-1].strip())[:300] if lines else ""
