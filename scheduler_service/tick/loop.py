"""The tick loop: by the clock, woken by news, or on request; never two at once, never stuck."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.reasons import Reason, from_executor
from scheduler_service.core.run import DispatchAnswer, ExecutorReport, LeaderIdentity, RunOrder
from scheduler_service.errors import ExecutorUnreachable, NotLeader, StorageUnavailable
from scheduler_service.tick.executor_link import ExecutorLink
from scheduler_service.tick.ports import Observer
from scheduler_service.transactions.gathering import backend_report
from scheduler_service.transactions.planning import Decision, TickKind, TickMemory
from scheduler_service.transactions.ports import Database
from scheduler_service.transactions.recording import record_answers
from scheduler_service.transactions.ticking import TickRequest, TickResult, take_tick
from service_runtime.clock import Clock
from service_runtime.ids import new_id

_log = structlog.get_logger(__name__)

TICK_DEADLINE_S = 10.0
FIRST_REPORT_S = 3.0
FIRST_TICK_S = 1.0
RAMP_STEP_S = 1.0
WOKEN_GAP_S = 0.005
OFF_GAP_S = 0.05
"""The gap while TICK_ENABLED is false: whoever submits wakes a loop that starts nothing, and pays for it."""


Taken = tuple[TickResult, Mapping[str, ExecutorLink]]
"""What a tick decided, and the executors that it decided for."""


class TickLoop:
    """Ticks for one leadership. `last_error`: what went wrong in the last tick, '' when nothing; `memory`: for the next one.

    `rules` are those of the environment; each tick reads what operators have changed.
    """

    def __init__(
        self,
        database: Database,
        rules: DispatchRules,
        links: Sequence[ExecutorLink],
        clock: Clock,
        observer: Observer,
        holder: UUID,
        identity: LeaderIdentity,
    ) -> None:
        self._database = database
        self._rules = rules
        self._links = links
        self._clock = clock
        self._observer = observer
        self._holder = holder
        self._identity = identity
        self._interval_s = rules.tick_interval.total_seconds()
        self.memory = TickMemory(new_leader=True)
        self._news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._clock_ticks = False
        self.last_error = ""
        self.succeeded = False

    def wake(self) -> None:
        """Something may be startable now."""
        self._news.set()

    async def run(self) -> None:
        """Ticks until cancelled; while TICK_ENABLED is false it only ends overrides that are over.

        Raises NotLeader when another replica has taken over.
        """
        # A leader that has not looked for executors yet must not record that there are none.
        await self._first_reports(FIRST_TICK_S)
        async with asyncio.TaskGroup() as sending:
            last_clock = -math.inf
            while True:
                now = self._clock.monotonic()
                kind = TickKind.CLOCK if now >= last_clock + self._interval_s else TickKind.WOKEN
                if kind is TickKind.CLOCK:
                    last_clock = now
                taken = await self._tick_or_log(kind)
                if taken is not None:
                    sending.create_task(self._send_all(*taken))
                    if taken[0].hurry:
                        self.wake()
                result = taken[0] if taken is not None else None
                gap = OFF_GAP_S if result is not None and not result.taken else WOKEN_GAP_S
                # The tick may have read another interval.
                await self._rest(gap, last_clock + self._interval_s, more=result is not None and result.more)

    async def _tick_or_log(self, kind: TickKind) -> Taken | None:
        self._news.clear()
        try:
            return await self._tick(kind)
        except (StorageUnavailable, TimeoutError) as error:
            self.last_error = f"{type(error).__name__}: {error}"
            _log.warning("tick_failed", kind=kind.value, error=self.last_error)
        except NotLeader:
            raise
        except Exception as error:  # noqa: BLE001 - one bad row must not stop every other task; health and status show it
            self.last_error = f"{type(error).__name__}: {error}"
            _log.error("tick_broke", kind=kind.value, exc_info=error)
        return None

    async def _rest(self, gap: float, next_clock: float, *, more: bool) -> None:
        wait = next_clock - self._clock.monotonic()
        if more:
            wait = min(wait, RAMP_STEP_S)
        await asyncio.sleep(gap)
        try:
            async with asyncio.timeout(max(0.0, wait - gap)):
                await self._news.wait()
        except TimeoutError:
            return

    async def run_tick(self) -> list[Decision]:
        """One tick now, its orders sent; waits for a tick under way, and first for executors not heard yet (at most 3 s).

        Raises NotLeader, StorageUnavailable.
        """
        await self._first_reports(FIRST_REPORT_S)
        result, links = await self._tick(TickKind.RUN)
        answers = await self._send_all(result, links)
        return [*result.decisions, *(_decision(order, *answers.get(order.run_id, _NO_ANSWER)) for order in result.orders)]

    async def _first_reports(self, seconds: float) -> None:
        """Returns when every executor has been heard, or after this time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(link.first_report.wait() for link in self._links))

    async def _tick(self, kind: TickKind) -> Taken:
        async with self._one_at_a_time:
            started = self._clock.monotonic()
            links = self._able()
            reports = tuple(report for report, _ in links.values())
            request = TickRequest(self._holder, self._identity.term, kind, reports, self.memory, self._rules, new_id)
            try:
                async with asyncio.timeout(TICK_DEADLINE_S):
                    result = await self._database.run(lambda tx: take_tick(tx, request))
            except Exception:
                if kind is TickKind.RUN or self._clock_ticks:
                    self._observer.tick_failed()
                raise
            self.memory = result.memory
            for order in result.orders:
                links[order.executor_id][1].in_flight.add(order.run_id)
            self.last_error = ""
            self._interval_s = result.rules.tick_interval.total_seconds()
            self._observer.drains_ended(result.ended_drains)
            if result.taken:
                self.succeeded = True
                self._observer.breakers_moved(result.probed)
                self._observer.ticked(self._clock.monotonic() - started, result)
            elif self._clock_ticks:
                # Switched off: what the tick before held nobody holds any more.
                self._observer.tick_failed()
            if kind is not TickKind.RUN:
                self._clock_ticks = result.taken
            return result, {name: link for name, (_, link) in links.items()}

    def _able(self) -> dict[str, tuple[ExecutorReport, ExecutorLink]]:
        """Executors that could take something, by id: heard within 10 s and not draining."""
        return {
            link.report.executor_id: (link.report, link)
            for link in self._links
            if link.live and link.report is not None and not link.report.draining
        }

    # --- sending

    async def _send_all(self, result: TickResult, links: Mapping[str, ExecutorLink]) -> dict[UUID, _Answered]:
        """What was answered to the orders, by run."""
        by_executor: dict[str, list[RunOrder]] = {}
        for order in result.orders:
            by_executor.setdefault(order.executor_id, []).append(order)
        sent = await asyncio.gather(*(self._send(links[name], mine) for name, mine in by_executor.items()))
        return {run_id: answer for answers in sent for run_id, answer in answers.items()}

    async def _send(self, link: ExecutorLink, orders: Sequence[RunOrder]) -> dict[UUID, _Answered]:
        """Sends claimed orders. No answer leaves them dispatching: the link sends the same run_ids again."""
        try:
            stamp = link.stamp
            if stamp is None:
                raise ExecutorUnreachable("not heard yet")
            answers = await link.client.dispatch(self._identity, orders, stamp, self._rules.lease_ttl)
            accepted = {answer.run_id for answer in answers if answer.accepted}
            link.note_accepted(order for order in orders if order.run_id in accepted)
            rejected = [answer for answer in answers if not answer.accepted]
            if rejected:
                recorded = await self._database.run(lambda tx: record_answers(tx, rejected, self._rules, random.random))
                self._observer.recorded(recorded)
        except (ExecutorUnreachable, StorageUnavailable) as error:
            _log.warning("dispatch_unanswered", target=link.client.target, runs=len(orders), error=str(error))
            return {order.run_id: (None, str(error)) for order in orders}
        finally:
            link.landed(order.run_id for order in orders)
        if rejected:
            self._learn_from(link, orders, {answer.run_id: answer for answer in rejected})
        return {answer.run_id: (answer, "") for answer in answers}

    def _learn_from(self, link: ExecutorLink, orders: Sequence[RunOrder], rejected: Mapping[UUID, DispatchAnswer]) -> None:
        """Takes a machine for full that says so, and compares with one that runs what it should not."""
        for order in orders:
            answer = rejected.get(order.run_id)
            if answer is not None and from_executor(answer.reason) is Reason.SERVER_OVERLOADED:
                own = backend_report(link.report, order.backend) if link.report is not None else None
                # A backend with a limit of its own may only have reached that.
                if own is not None and own.local and not own.max_runs:
                    link.take_for_full()
        if any(answer.reason == Reason.ALREADY_RUNNING for answer in rejected.values()):
            link.compare_soon()
        self.wake()


_Answered = tuple[DispatchAnswer | None, str]
"""An executor's answer to an order, and why there is none."""

_NO_ANSWER: _Answered = (None, "")


def _decision(order: RunOrder, answer: DispatchAnswer | None, detail: str) -> Decision:
    accepted = answer is not None and answer.accepted
    reason = from_executor(answer.reason).value if answer is not None and not accepted else ""
    return Decision(
        dispatched=accepted,
        reason=reason,
        detail=answer.detail if answer is not None else detail or "no answer yet; the same run is sent again",
        task_id=order.task_id,
        run_id=order.run_id,
        executor_id=order.executor_id,
        backend=order.backend,
    )
