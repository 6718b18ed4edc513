"""What executors say of runs, recorded once: verdicts, ends, rejections. Each batch is one transaction.

Guarded by run and fence: late, double and foreign news changes nothing. The window, the breaker, the task and the events
move together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import structs

from scheduler_service.core.billing import END_PAUSES, START_PAUSES, pause_until
from scheduler_service.core.breaker import Breaker, record_failure, record_neutral, record_success
from scheduler_service.core.dispatch_checks import GuardMode
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.events import EventType
from scheduler_service.core.reasons import ATTEMPT_REASONS, Reason, from_executor
from scheduler_service.core.run import DispatchAnswer, Run, RunReport, RunState
from scheduler_service.core.task import ENDED_STATUSES, Task, TaskStatus
from scheduler_service.core.verdicts import OutcomeClass, RunOutcome, StartVerdict, settle_end, settle_start
from scheduler_service.transactions.auditing import Caller
from scheduler_service.transactions.consequences import conclude, emit_breaker_events, emit_task_event
from scheduler_service.transactions.gathering import rules_in_force
from scheduler_service.transactions.overrides import extend_billing_pause
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import BackendState, DispatchEvent, LastDispatch, Lock

PAUSED_BY = "scheduler"
"""Who a pause is by that a service's answer has raised."""


@dataclass(slots=True)
class Recorded:
    """What a batch changed. `settled`: final runs that the executor may forget; `ignored`: late, double and foreign reports."""

    settled: list[UUID] = field(default_factory=list)
    started: list[Run] = field(default_factory=list)
    ended: list[Run] = field(default_factory=list)
    decisions: list[tuple[str, bool, str]] = field(default_factory=list)  # backend, success, reason
    ignored: int = 0
    moved_breakers: list[Breaker] = field(default_factory=list)
    start_latencies: list[tuple[str, float]] = field(default_factory=list)  # backend, seconds from submission to first start


async def record_reports(
    tx: Transaction, executor_id: str, reports: Sequence[RunReport], rules: DispatchRules, fraction: Callable[[], float]
) -> Recorded:
    """Records what one executor reports of its runs. `fraction` gives random numbers in [0, 1) for the back-off."""
    if any(report.verdict_reason in START_PAUSES or report.error_class in END_PAUSES for report in reports):
        # A pause may follow, and the leader row is locked before all others.
        await tx.leadership(Lock.UPDATE)
    starts_only = all(report.verdict in (None, StartVerdict.SUCCESS) for report in reports)
    batch = await _Batch.load(tx, [report.run_id for report in reports], rules, fraction, starts_only=starts_only)
    for report in reports:
        batch.apply(executor_id, report)
    return await batch.save()


async def record_answers(
    tx: Transaction, answers: Sequence[DispatchAnswer], rules: DispatchRules, fraction: Callable[[], float]
) -> Recorded:
    """Records an executor's answers to orders: accepted ones wait for their verdict, rejected ones are over."""
    batch = await _Batch.load(tx, [answer.run_id for answer in answers], rules, fraction)
    for answer in answers:
        batch.answer(answer)
    return await batch.save()


async def record_lost(
    tx: Transaction, run_ids: Sequence[UUID], detail: str, rules: DispatchRules, fraction: Callable[[], float]
) -> Recorded:
    """Gives up runs that are certainly over: their lease has run out, or their executor will never begin them."""
    batch = await _Batch.load(tx, run_ids, rules, fraction)
    for run_id in run_ids:
        batch.lose(run_id, detail)
    return await batch.save()


class _Batch:
    """The rows that a batch of news is about, locked, and what has become of them so far."""

    def __init__(
        self,
        tx: Transaction,
        rules: DispatchRules,
        fraction: Callable[[], float],
        breakers: Mapping[str, Breaker],
        states: Mapping[str, BackendState],
        tasks: Mapping[UUID, Task],
        runs: Mapping[UUID, Run],
    ) -> None:
        self._tx = tx
        self._rules = rules
        self._fraction = fraction
        self._breakers = dict(breakers)
        self._states = dict(states)
        self._tasks = dict(tasks)
        self._runs = dict(runs)
        self._changed_breakers: set[str] = set()
        self._start_successes: dict[str, datetime] = {}
        self._changed_tasks: set[UUID] = set()
        self._changed_runs: set[UUID] = set()
        self._without_executor: set[str] = set()
        self._last: LastDispatch | None = None
        self._pauses: dict[str, tuple[datetime, str]] = {}
        self._result = Recorded()

    @classmethod
    async def load(
        cls,
        tx: Transaction,
        run_ids: Sequence[UUID],
        rules: DispatchRules,
        fraction: Callable[[], float],
        *,
        starts_only: bool = False,
    ) -> _Batch:
        """Locks breakers, then tasks; a run is guarded by its task's lock and read under it.

        `starts_only`: no start has failed, so that it does not matter when the backend's last one succeeded.
        """
        rules = await rules_in_force(tx, rules)
        places = await tx.run_places(run_ids)
        keys = sorted({place.breaker_key for place in places})
        breakers = await tx.breakers(keys, Lock.UPDATE)
        if len(breakers) < len(keys):
            # The row of an executor that was away for long: its outcomes count all the same.
            await tx.add_breakers(keys)
            breakers = await tx.breakers(keys, Lock.UPDATE)
        states = {} if starts_only else await tx.backend_states()
        tasks = await tx.tasks_to_move({place.task_id for place in places})
        return cls(tx, rules, fraction, breakers, states, tasks, await tx.runs(run_ids))

    def apply(self, executor_id: str, report: RunReport) -> None:
        """Takes in one report."""
        run = self._runs.get(report.run_id)
        final = report.outcome is not None
        if final:
            self._result.settled.append(report.run_id)
        if run is None or run.executor_id != executor_id or run.state is RunState.ENDED:
            self._result.ignored += final
            return
        task = self._current_task(run)
        if task is None:
            self._without_task(run, report)
            return
        if report.verdict is None and report.outcome is None:
            self._set_run(run.accepted(self._tx.now))
            return
        if report.verdict is not None and run.verdict is None:
            self._verdict(run, task, report)
        self._end(report)

    def _without_task(self, run: Run, report: RunReport) -> None:
        """A run whose task has gone, or has moved on: it is over, and a probe must not stay claimed for it."""
        if run.verdict is None:
            self._breaker(run, StartVerdict.NEUTRAL)
            if run.task_id not in self._tasks:
                self._record(run, False, Reason.TASK_NOT_FOUND.value, "the task is gone", attempt=False)
        self._set_run(run.ended(report.outcome or OutcomeClass.LOST, self._tx.now, error="its task has moved on"))

    def answer(self, answer: DispatchAnswer) -> None:
        """Takes in one answer to an order."""
        run = self._runs.get(answer.run_id)
        if run is None or run.state is not RunState.DISPATCHING:
            return
        task = self._current_task(run)
        if answer.accepted:
            self._set_run(run.accepted(self._tx.now))
            return
        reason = from_executor(answer.reason)
        self._set_run(
            run.judged(StartVerdict.REJECTED, reason.value, self._tx.now).ended(
                OutcomeClass.NOT_STARTED, self._tx.now, error=answer.detail
            )
        )
        if task is None:
            reason = Reason.TASK_NOT_FOUND
        # Once a tick and backend, like the gate of the same name.
        if reason is not Reason.NO_EXECUTOR or run.backend not in self._without_executor:
            self._record(run, False, reason.value, answer.detail, attempt=reason in ATTEMPT_REASONS)
        if reason is Reason.NO_EXECUTOR:
            self._without_executor.add(run.backend)
        self._breaker(run, StartVerdict.FAILURE if reason in ATTEMPT_REASONS else StartVerdict.REJECTED)
        if task is not None:
            verdict = StartVerdict.FAILURE if reason in ATTEMPT_REASONS else StartVerdict.REJECTED
            self._settle_start(run, task, verdict, reason.value, answer.detail)

    def lose(self, run_id: UUID, detail: str) -> None:
        """Gives one run up."""
        run = self._runs.get(run_id)
        if run is None or run.state is RunState.ENDED:
            return
        lost = RunReport(run.run_id, run.task_id, run.fence, False, outcome=OutcomeClass.LOST, error=detail)
        if run.verdict is None:
            lost = structs.replace(lost, verdict=StartVerdict.NEUTRAL, verdict_reason="lost", verdict_detail=detail)
        self.apply(run.executor_id, lost)

    def _current_task(self, run: Run) -> Task | None:
        """The run's task if the run is its current one."""
        task = self._tasks.get(run.task_id)
        if task is None or task.run_id != run.run_id or task.fence != run.fence or task.status in ENDED_STATUSES:
            return None
        return task

    def _verdict(self, run: Run, task: Task, report: RunReport) -> None:
        verdict = report.verdict
        if verdict is None:
            return
        now = self._tx.now
        run = run.judged(verdict, report.verdict_reason, now, report.start_delay)
        self._set_run(run)
        self._breaker(run, verdict)
        if verdict is StartVerdict.SUCCESS:
            self._record(run, True, "", "", attempt=True)
            self._states[run.backend] = BackendState(run.backend, last_start_success_time=now)
            self._start_successes[run.backend] = now
            self._last = LastDispatch(task.id, task.title, run.run_id, now)
            self._result.started.append(run)
            if task.tries == 0:
                self._result.start_latencies.append((run.backend, (now - task.create_time).total_seconds()))
        elif verdict is StartVerdict.FAILURE:
            self._record(run, False, Reason.EXECUTOR_FAILED.value, report.verdict_detail, attempt=True)
        elif report.verdict_reason in START_PAUSES:
            self._pause(run, START_PAUSES[report.verdict_reason], report, f"{report.verdict_reason}: {report.verdict_detail}")
        self._settle_start(run, task, verdict, report.verdict_reason, report.verdict_detail or report.error, report)
        if verdict is StartVerdict.SUCCESS:
            emit_task_event(self._tx, EventType.TASK_DISPATCHED, self._tasks[task.id], run)

    def _settle_start(
        self, run: Run, task: Task, verdict: StartVerdict, reason: str, detail: str, report: RunReport | None = None
    ) -> None:
        state = self._states.get(run.backend)
        self._set_task(
            settle_start(
                task,
                verdict,
                reason,
                detail=detail,
                backend_last_success_time=state.last_start_success_time if state else None,
                retry_time=report.retry_time if report else None,
                now=self._tx.now,
                fraction=self._fraction(),
                settings=self._rules.retries,
                start_time=run.start_time,
            )
        )

    def _end(self, report: RunReport) -> None:
        run = self._runs[report.run_id]
        if report.outcome is None or run.state is RunState.ENDED:
            return
        ended = run.ended(
            report.outcome,
            self._tx.now,
            exit_code=report.exit_code,
            signal=report.signal,
            error=report.error[:2000],
            usage=report.usage,
        )
        self._set_run(ended)
        self._result.ended.append(ended)
        if ended.verdict is StartVerdict.SUCCESS and report.error_class in END_PAUSES:
            self._pause(run, END_PAUSES[report.error_class], report, f"{report.error_class}: said by a run of task {run.task_id}")
        if ended.is_probe and ended.verdict is None:
            self._breaker(ended, StartVerdict.NEUTRAL)
        task = self._current_task(ended)
        if task is None or (ended.verdict is not None and ended.verdict is not StartVerdict.SUCCESS):
            return
        outcome = RunOutcome(report.outcome, report.exit_code, report.result, report.error, report.error_class, report.retry_time)
        self._set_task(settle_end(task, outcome, self._tx.now, self._fraction(), self._rules.retries))

    def _pause(self, run: Run, length: timedelta, report: RunReport, why: str) -> None:
        until = pause_until(length, report.retry_time, self._tx.now, self._rules.retries.retry_time_limit)
        before = self._pauses.get(run.backend)
        if before is None or before[0] < until:
            self._pauses[run.backend] = until, why[:500]

    def _breaker(self, run: Run, verdict: StartVerdict) -> None:
        before = self._breakers.get(run.breaker_key)
        if before is None:
            return
        now, generation = self._tx.now, run.breaker_generation
        if verdict is StartVerdict.SUCCESS:
            after, events = record_success(before, now, generation, run.run_id)
        elif verdict is StartVerdict.FAILURE:
            after, events = record_failure(before, now, generation, run.run_id, self._rules.checks.breaker)
        else:
            after, events = record_neutral(before, now, generation, run.run_id)
        if after is before:
            return
        self._breakers[run.breaker_key] = after
        self._changed_breakers.add(run.breaker_key)
        if after.state is not before.state:
            self._result.moved_breakers.append(after)
        enforced = self._rules.checks.breaker_guard is GuardMode.ENFORCE
        emit_breaker_events(self._tx, events, enforced=enforced)

    def _record(self, run: Run, success: bool, reason: str, detail: str, *, attempt: bool) -> None:
        self._result.decisions.append((run.backend, success, reason))
        self._tx.record(
            DispatchEvent(
                self._tx.now,
                success,
                reason,
                detail[:500],
                attempt,
                run.backend,
                run.task_id,
                run.run_id,
                run.executor_id,
            )
        )

    def _set_run(self, run: Run) -> None:
        self._runs[run.run_id] = run
        self._changed_runs.add(run.run_id)

    def _set_task(self, task: Task) -> None:
        self._tasks[task.id] = task
        self._changed_tasks.add(task.id)

    async def save(self) -> Recorded:
        """Writes what changed, in lock order, with all that follows from it."""
        tx = self._tx
        await tx.save_breakers([self._breakers[key] for key in sorted(self._changed_breakers)])
        changed = [self._tasks[id_] for id_ in sorted(self._changed_tasks)]
        await tx.save_tasks(changed)
        await tx.save_runs([self._runs[id_] for id_ in sorted(self._changed_runs)])
        if self._last is not None:
            await tx.note_start_successes(self._start_successes, self._last)
        for backend, (until, why) in sorted(self._pauses.items()):
            await extend_billing_pause(tx, backend, until, Caller(PAUSED_BY, why, ""))
        await conclude(tx, list(self._with_runs(task for task in changed if task.status in ENDED_STATUSES)))
        for task, run in self._with_runs(task for task in changed if task.status is TaskStatus.QUEUED):
            if run is not None and run.outcome in (OutcomeClass.FAILED, OutcomeClass.TIMED_OUT):
                emit_task_event(tx, EventType.TASK_FAILED, task, run)
        return self._result

    def _with_runs(self, tasks: Iterable[Task]) -> Iterable[tuple[Task, Run | None]]:
        by_task = {run.task_id: run for run in self._runs.values() if run.state is RunState.ENDED}
        return ((task, by_task.get(task.id)) for task in tasks)
