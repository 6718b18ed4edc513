"""The rpcs about dispatching: tick, explanation, statistics, slots, status."""

from __future__ import annotations

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.breaker import BreakerSettings, retry_time
from scheduler_service.core.task import TaskStatus
from scheduler_service.rpc.calls import Calls, Context, callers_words
from scheduler_service.rpc.conversions import (
    PRIORITIES,
    STATUSES,
    breaker_message,
    decision_message,
    dispatch_event_message,
    explanation_message,
    override_message,
    pause_message,
    set_slots,
    stats_message,
)
from scheduler_service.rpc.validation import Checker, page_token
from scheduler_service.transactions.reading import StatusView, explain, read_slots, read_stats, read_status
from scheduler_service.transactions.stored import EventFilter
from service_runtime.proto_values import set_duration, set_timestamp, timestamp


class DispatchCalls(Calls):
    """RunTick, ExplainDispatch, GetDispatchStats, ListDispatchEvents, GetSlots and GetStatus."""

    async def RunTick(self, request: pb.RunTickRequest, context: Context) -> pb.RunTickResponse:
        with callers_words():
            decisions = await self._leader.run_tick()
        return pb.RunTickResponse(decisions=[decision_message(decision) for decision in decisions])

    async def ExplainDispatch(self, request: pb.ExplainDispatchRequest, context: Context) -> pb.ExplainDispatchResponse:
        check = Checker()
        task_id = check.uuid("task_id", request.task_id, required=False)
        check.done()
        with callers_words():
            reports = await self._fleet.reports()
            silent = await self._fleet.silent_targets()
        able = [report for report in reports if not report.draining]
        explanation = await self._read(
            lambda tx: explain(tx, able, self._rules, task_id, self._leader.tick_memory), begins_with_standing=True
        )
        return explanation_message(explanation, reports, silent)

    async def GetDispatchStats(self, request: pb.GetDispatchStatsRequest, context: Context) -> pb.GetDispatchStatsResponse:
        check = Checker()
        lengths = check.windows(request.windows)
        check.done()

        async def read() -> pb.GetDispatchStatsResponse:
            found = await self._read(
                lambda tx: read_stats(tx, self._rules, lengths, by_executor=request.by_executor), begins_with_standing=True
            )
            return stats_message(found)

        return await self._shared(request, read)

    async def ListDispatchEvents(self, request: pb.ListDispatchEventsRequest, context: Context) -> pb.ListDispatchEventsResponse:
        check = Checker()
        size = check.page_size(request.page_size)
        chosen = EventFilter(
            check.uuid("task_id", request.task_id, required=False),
            check.reason_code("reason", request.reason),
            request.success if request.HasField("success") else None,
        )
        scope = repr(("events", chosen))
        before = check.page_key(request.page_token, scope)
        check.done()
        found = await self._read(lambda tx: tx.dispatch_events(chosen, before, size + 1))
        page = found[:size]
        return pb.ListDispatchEventsResponse(
            events=[dispatch_event_message(event) for event in page],
            next_page_token=page_token(page[-1].id, scope) if len(found) > size else "",
        )

    async def GetSlots(self, request: pb.GetSlotsRequest, context: Context) -> pb.GetSlotsResponse:
        with callers_words():
            reports = await self._fleet.reports()
        able = [report for report in reports if not report.draining]
        view = await self._read(lambda tx: read_slots(tx, able, self._rules), begins_with_standing=True)
        response = pb.GetSlotsResponse()
        set_slots(response, view, reports)
        return response

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        return await self._shared(request, self._whole_status)

    async def _whole_status(self) -> pb.GetStatusResponse:
        with callers_words():
            reports = await self._fleet.reports()
        able = [report for report in reports if not report.draining]
        view = await self._read(
            lambda tx: read_status(tx, able, self._rules, self._leader.tick_memory), begins_with_standing=True
        )
        rows = view.about.executors
        message = self._status(view)
        set_slots(message.slots, view.slots, reports)
        live = {report.executor_id: report for report in reports}
        for row in rows:
            report = live.get(row.executor_id)
            running = sum(c.n for c in view.slots.facts.live if c.executor_id == row.executor_id)
            message.executors.add(
                executor_id=row.executor_id,
                target=row.target,
                live=report is not None,
                draining=report is not None and report.draining,
                last_heard_time=timestamp(row.last_heard_time),
                running=running,
                backends=[b.backend for b in report.backends if b.configured] if report else [],
                misconfigured=[
                    pb.MisconfiguredBackend(backend=b.backend, detail=b.detail)
                    for b in (report.backends if report else ())
                    if not b.configured
                ],
            )
        with callers_words():
            for target in await self._fleet.silent_targets():
                if all(row.target != target for row in rows):
                    message.executors.add(target=target)
        return message

    def _status(self, view: StatusView) -> pb.GetStatusResponse:
        rules, now = view.rules, view.now
        message = pb.GetStatusResponse(
            mode=_mode(view),
            sentence=view.explanation.sentence,
            leader=self._leader.leading,
            leader_address=view.about.leadership.address,
            term=view.about.leadership.term,
            draining=bool(view.drains),
            billing_pauses=[pause_message(pause) for pause in view.billing_pauses],
            breakers=[breaker_message(b, rules.checks.breaker, now) for b in view.breakers.values()],
            stats=stats_message(view.stats),
            version=self._version,
            cluster_id=str(view.about.cluster_id),
            scheduler_time=timestamp(self._clock.now()),
            database_time=timestamp(now),
        )
        tick = message.tick
        tick.enabled = self._leader.leading and rules.tick_enabled
        tick.last_error = self._leader.tick_error or view.about.leadership.tick_error
        if view.about.leadership.tick_success_time is not None:
            set_timestamp(tick.last_success_time, view.about.leadership.tick_success_time)
        set_duration(tick.interval, rules.tick_interval)
        message.overrides.extend(_overrides(view, rules.checks.breaker))
        for (priority, status), n in sorted(view.queue.items()):
            due = view.oldest_due.get(priority) if status is TaskStatus.QUEUED else None
            message.queue.add(priority=PRIORITIES[priority], status=STATUSES[status], tasks=n, oldest_due_time=timestamp(due))
        if view.about.last_dispatch is not None:
            last = view.about.last_dispatch
            message.last_dispatch.CopyFrom(
                pb.LastDispatch(
                    task_id=str(last.task_id),
                    task_title=last.task_title,
                    run_id=str(last.run_id),
                    dispatched_time=timestamp(last.dispatched_time),
                )
            )
        return message


def _overrides(view: StatusView, settings: BreakerSettings) -> list[pb.Override]:
    found = [override_message("drain", d.source, d.actor, d.reason, d.since_time) for d in view.drains]
    found += [
        override_message("billing_pause", p.backend, p.actor, p.reason, p.since_time, p.until_time) for p in view.billing_pauses
    ]
    cap = view.slots.cap
    if cap.slots is not None:
        found.append(override_message("budget_cap", str(cap.slots), cap.actor, cap.reason, cap.since_time))
    for key, actor in view.tripped_by.items():
        breaker = view.breakers.get(key)
        if breaker is not None:
            found.append(
                override_message(
                    "breaker_tripped", key, actor, breaker.reason, breaker.opened_time, retry_time(breaker, settings, view.now)
                )
            )
    return found


def _mode(view: StatusView) -> str:
    if view.drains:
        return "draining"
    waiting = sum(n for (_, status), n in view.queue.items() if status is TaskStatus.QUEUED)
    if view.explanation.would_dispatch:
        return "dispatching"
    return "held" if waiting else "idle"
