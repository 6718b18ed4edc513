"""The rpcs by which operators look at breakers and override what the scheduler would do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.run import ExecutorReport
from scheduler_service.rpc.calls import Calls, Context, caller_of, callers_words
from scheduler_service.rpc.conversions import breaker_message, pause_message
from scheduler_service.rpc.validation import KEY_MAX_CHARS, SLOTS_MAX, SOURCE_MAX_CHARS, Checker
from scheduler_service.transactions import overrides
from scheduler_service.transactions.auditing import Caller
from scheduler_service.transactions.gathering import rules_in_force
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.reading import read_slots
from service_runtime.errors import NotFound
from service_runtime.proto_values import timestamp

DEFAULT_SOURCE = "operator"


class OverrideCalls(Calls):
    """The breakers, drain, billing pause and budget cap."""

    async def _reports(self) -> Sequence[ExecutorReport]:
        with callers_words():
            return await self._fleet.reports()

    async def _breakers(self) -> dict[str, tuple[Breaker, pb.Breaker]]:
        executors = await self._reports()

        async def work(tx: Transaction) -> dict[str, tuple[Breaker, pb.Breaker]]:
            rules, found = await overrides.list_breakers(tx, executors, self._rules)
            settings = rules.checks.breaker
            return {key: (breaker, breaker_message(breaker, settings, tx.now)) for key, breaker in found.items()}

        return await self._read(work, begins_with_standing=True)

    async def ListBreakers(self, request: pb.ListBreakersRequest, context: Context) -> pb.ListBreakersResponse:
        async def read() -> pb.ListBreakersResponse:
            return pb.ListBreakersResponse(breakers=[message for _, message in (await self._breakers()).values()])

        return await self._shared(request, read)

    async def GetBreaker(self, request: pb.GetBreakerRequest, context: Context) -> pb.GetBreakerResponse:
        check = Checker()
        key = check.text("key", request.key, KEY_MAX_CHARS, required=True)
        check.done()
        found = await self._breakers()
        if key not in found:
            raise NotFound(f"no breaker has the key {key!r}; known are {', '.join(found)}", reason="BREAKER_NOT_FOUND")
        return pb.GetBreakerResponse(breaker=found[key][1])

    async def ResetBreaker(self, request: pb.ResetBreakerRequest, context: Context) -> pb.ResetBreakerResponse:
        check = Checker()
        key = check.text("key", request.key, KEY_MAX_CHARS, required=True)
        caller = _caller(check, request, context)
        check.done()
        executors = await self._reports()
        moved: tuple[Breaker, ...] = ()

        async def work(tx: Transaction) -> pb.ResetBreakerResponse:
            nonlocal moved
            rules = await rules_in_force(tx, self._rules)
            settings = rules.checks.breaker
            forced = await overrides.reset_breaker(tx, key, caller, executors, rules)
            moved = forced.moved
            return pb.ResetBreakerResponse(
                before=breaker_message(forced.before, settings, tx.now), after=breaker_message(forced.after, settings, tx.now)
            )

        response = await self._write("ResetBreaker", request, work, pb.ResetBreakerResponse)
        self._observer.breakers_moved(moved)
        self._wake()
        return response

    async def TripBreaker(self, request: pb.TripBreakerRequest, context: Context) -> pb.TripBreakerResponse:
        check = Checker()
        key = check.text("key", request.key, KEY_MAX_CHARS, required=True)
        caller = _caller(check, request, context)
        duration = check.trip_duration(request)
        check.done()
        executors = await self._reports()
        moved: tuple[Breaker, ...] = ()

        async def work(tx: Transaction) -> pb.TripBreakerResponse:
            nonlocal moved
            rules = await rules_in_force(tx, self._rules)
            settings = rules.checks.breaker
            forced = await overrides.trip_breaker(tx, key, duration, caller, executors, rules)
            moved = forced.moved
            return pb.TripBreakerResponse(
                before=breaker_message(forced.before, settings, tx.now), after=breaker_message(forced.after, settings, tx.now)
            )

        response = await self._write("TripBreaker", request, work, pb.TripBreakerResponse)
        self._observer.breakers_moved(moved)
        return response

    async def SetDrain(self, request: pb.SetDrainRequest, context: Context) -> pb.SetDrainResponse:
        check = Checker()
        source = check.text("source", request.source, SOURCE_MAX_CHARS) or DEFAULT_SOURCE
        caller = _caller(check, request, context)
        check.done()

        ended: timedelta | None = None

        async def work(tx: Transaction) -> pb.SetDrainResponse:
            nonlocal ended
            state = await overrides.set_drain(tx, request.enabled, source, request.until_idle, caller)
            ended = state.ended
            return pb.SetDrainResponse(draining=state.draining, since_time=timestamp(state.since_time), running=state.running)

        response = await self._write("SetDrain", request, work, pb.SetDrainResponse)
        self._observer.drains_ended([ended] if ended is not None else [])
        self._wake()
        return response

    async def SetBillingPause(self, request: pb.SetBillingPauseRequest, context: Context) -> pb.SetBillingPauseResponse:
        check = Checker()
        backend = await self._backend(check, request.backend)
        caller = _caller(check, request, context)
        check.done()

        async def work(tx: Transaction) -> pb.SetBillingPauseResponse:
            until = check.until(request, tx.now)
            return pb.SetBillingPauseResponse(pause=pause_message(await overrides.set_billing_pause(tx, backend, until, caller)))

        return await self._write("SetBillingPause", request, work, pb.SetBillingPauseResponse)

    async def ClearBillingPause(self, request: pb.ClearBillingPauseRequest, context: Context) -> pb.ClearBillingPauseResponse:
        check = Checker()
        backend = await self._backend(check, request.backend)
        caller = _caller(check, request, context)
        check.done()

        async def work(tx: Transaction) -> pb.ClearBillingPauseResponse:
            previous = await overrides.clear_billing_pause(tx, backend, caller)
            return pb.ClearBillingPauseResponse(
                cleared=previous is not None, previous=pause_message(previous) if previous else None
            )

        response = await self._write("ClearBillingPause", request, work, pb.ClearBillingPauseResponse)
        self._wake()
        return response

    async def SetBudgetCap(self, request: pb.SetBudgetCapRequest, context: Context) -> pb.SetBudgetCapResponse:
        check = Checker()
        slots = request.slots if request.HasField("slots") else None
        if slots is not None and not 1 <= slots <= SLOTS_MAX:
            check.wrong("slots", f"is {slots}; must be 1 to {SLOTS_MAX}, or unset to lift the ceiling")
        caller = _caller(check, request, context)
        check.done()
        reports = [report for report in await self._reports() if not report.draining]

        async def work(tx: Transaction) -> pb.SetBudgetCapResponse:
            await overrides.set_budget_cap(tx, slots, caller)
            view = await read_slots(tx, reports, self._rules)
            physical = sum(pools.task_pool.budget for pools in view.fleet.executors.values())
            effective = view.fleet.total.task_pool.budget if view.fleet.total else 0
            return pb.SetBudgetCapResponse(slots=slots, physical=physical, effective=effective)

        response = await self._write("SetBudgetCap", request, work, pb.SetBudgetCapResponse)
        self._wake()
        return response

    async def _backend(self, check: Checker, name: str) -> str:
        """A backend that tasks are routed to, that an executor has, or that is paused; '' for all."""
        reported = [backend.backend for report in await self._reports() for backend in report.backends]
        paused = [pause.backend for pause in await self._read(lambda tx: tx.billing_pauses()) if pause.backend]
        known = sorted({*self._rules.backends, *reported, *paused})
        if name and name not in known:
            check.wrong("backend", f"is {name[:64]!r}; must be empty for all, or one of {', '.join(known)}")
        return name


def _caller(
    check: Checker,
    request: pb.ResetBreakerRequest
    | pb.TripBreakerRequest
    | pb.SetDrainRequest
    | pb.SetBillingPauseRequest
    | pb.ClearBillingPauseRequest
    | pb.SetBudgetCapRequest,
    context: Context,
) -> Caller:
    return Caller(caller_of(context), check.reason(request.reason), check.request_id(request.request_id))
