"""The gate chain: order, scope of each gate, and what is recorded."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.dispatch_checks import (
    BackendFacts,
    BillingPause,
    CheckSettings,
    GateFacts,
    GuardMode,
    Permit,
    Verdict,
    evaluate,
    first_hold,
    next_trickle_time,
    permits,
    recordable,
)
from scheduler_service.core.outcome_window import merge
from scheduler_service.core.reasons import Reason
from scheduler_service.core.slot_budget import ExecutorCapacity, Pools, compute_pools

NOW = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def pools(**changes: Any) -> Pools:
    return compute_pools(replace(ExecutorCapacity("alpha", 12, 12, 0, 0, 0.1), **changes), internal_active=False)


RUN = BackendFacts(
    backend="cecelia-run",
    local=True,
    queued=2,
    due=2,
    live_executors=1,
    breakers=(Breaker("cecelia-run@alpha"),),
)
HK = BackendFacts(
    backend="hk-minimax",
    local=False,
    queued=1,
    due=1,
    live_executors=1,
    breakers=(Breaker("hk-minimax"),),
    max_runs=8,
)
OPEN = Breaker("hk-minimax", BreakerState.OPEN, failures=3, opened_time=NOW, reason="failure_threshold_reached")
CLEAR = GateFacts(now=NOW, backends=(RUN, HK), pools=pools())


def given(**changes: Any) -> GateFacts:
    return replace(CLEAR, **changes)


def with_run(**changes: Any) -> GateFacts:
    return replace(CLEAR, backends=(replace(RUN, **changes), HK))


def with_hk(**changes: Any) -> GateFacts:
    return replace(CLEAR, backends=(RUN, replace(HK, **changes)))


def holds(facts: GateFacts) -> list[tuple[str, Reason | None]]:
    return [(v.backend, v.reason) for v in evaluate(facts) if v.holds]


def verdict(facts: GateFacts, name: str, backend: str) -> Verdict:
    (found,) = (v for v in evaluate(facts) if v.name == name and v.backend == backend)
    return found


def test_clear_facts_hold_nothing() -> None:
    assert holds(CLEAR) == []
    assert all(v.reason is None and v.clears_time is None for v in evaluate(CLEAR))
    assert permits(CLEAR, evaluate(CLEAR)) == {"cecelia-run": Permit(), "hk-minimax": Permit()}


def test_the_chain_is_in_order_and_never_stops() -> None:
    worst = GateFacts(
        now=NOW,
        backends=(replace(RUN, live_executors=0), replace(HK, breakers=(OPEN,), running=8)),
        draining=("operator",),
        billing_pauses=(BillingPause("", NOW + HOUR), BillingPause("hk-minimax", NOW + HOUR)),
    )
    verdicts = evaluate(worst)
    assert list(dict.fromkeys(v.name for v in verdicts)) == [
        "draining",
        "billing_pause",
        "slots",
        "low_success_rate",
        "circuit_breaker_open",
        "availability",
    ]
    assert holds(worst) == [
        ("", Reason.DRAINING),
        ("", Reason.BILLING_PAUSE),
        ("hk-minimax", Reason.BILLING_PAUSE),
        ("hk-minimax", Reason.POOL_C_FULL),
        ("hk-minimax", Reason.CIRCUIT_BREAKER_OPEN),
        ("cecelia-run", Reason.NO_EXECUTOR),
    ]
    first = first_hold(verdicts)
    assert first is not None
    assert first.reason is Reason.DRAINING


class TestGates:
    def test_drain_by_any_source(self) -> None:
        drained = verdict(given(draining=("operator", "deploy")), "draining", "")
        assert (drained.holds, drained.value) == (True, "deploy, operator")

    @pytest.mark.parametrize(("until", "held"), [(NOW - HOUR, False), (NOW, False), (NOW + HOUR, True)])
    def test_a_billing_pause_is_over_at_its_time(self, until: datetime, held: bool) -> None:
        paused = verdict(given(billing_pauses=(BillingPause("", until),)), "billing_pause", "")
        assert (paused.holds, paused.clears_time) == (held, until if held else None)

    def test_a_billing_pause_of_one_backend_leaves_the_other(self) -> None:
        facts = given(
            billing_pauses=(
                BillingPause("hk-minimax", NOW + HOUR, "cap reached"),
                BillingPause("hk-minimax", NOW + 2 * HOUR, "quota"),
            )
        )
        assert holds(facts) == [("hk-minimax", Reason.BILLING_PAUSE)]
        paused = verdict(facts, "billing_pause", "hk-minimax")
        assert (paused.clears_time, paused.detail) == (NOW + 2 * HOUR, "paused for billing: quota")

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"running_local": 10}, Reason.POOL_C_FULL),
            ({"slots_from_resources": 0}, Reason.POOL_EXHAUSTED),
            ({"sessions": 3, "running_local": 7}, Reason.USER_TEAM_MODE),
        ],
    )
    def test_slots_gate_only_local_backends(self, changes: dict[str, Any], reason: Reason) -> None:
        assert holds(given(pools=pools(**changes))) == [("cecelia-run", reason)]

    def test_no_sample_refuses_local_work_only(self) -> None:
        assert holds(given(pools=None)) == [("cecelia-run", Reason.POOL_EXHAUSTED)]
        assert "sample" in verdict(given(pools=None), "slots", "cecelia-run").detail

    def test_without_an_executor_no_executor_is_what_shows(self) -> None:
        facts = replace(with_run(live_executors=0), pools=None)
        assert holds(facts) == [("cecelia-run", Reason.NO_EXECUTOR)]

    @pytest.mark.parametrize(("running", "max_runs", "full"), [(7, 8, False), (8, 8, True), (9, 8, True), (99, None, False)])
    def test_a_remote_backend_has_a_limit_of_its_own(self, running: int, max_runs: int | None, full: bool) -> None:
        facts = with_hk(running=running, max_runs=max_runs)
        assert holds(facts) == ([("hk-minimax", Reason.POOL_C_FULL)] if full else [])
        slots = verdict(facts, "slots", "hk-minimax")
        assert (slots.value, slots.limit) == (str(running), "none" if max_runs is None else str(max_runs))

    def test_an_open_breaker_holds_its_backend(self) -> None:
        facts = with_hk(breakers=(OPEN,))
        assert holds(facts) == [("hk-minimax", Reason.CIRCUIT_BREAKER_OPEN)]
        held = verdict(facts, "circuit_breaker_open", "hk-minimax")
        assert (held.value, held.limit, held.clears_time) == ("3", "3", NOW + timedelta(minutes=30))
        assert held.detail == "the breaker is open (failure_threshold_reached)"

    @pytest.mark.parametrize(
        ("breakers", "held", "detail"),
        [
            ((), False, "closed"),
            ((structs.replace(OPEN, opened_time=NOW - HOUR),), False, "open; a probe may go"),
            ((structs.replace(OPEN, state=BreakerState.HALF_OPEN),), True, "a probe is under way"),
            ((OPEN, structs.replace(OPEN, state=BreakerState.HALF_OPEN)), True, "a probe is under way"),
            ((OPEN, Breaker("cecelia-run@beta")), False, "closed"),
            ((structs.replace(OPEN, reason=""),), True, "the breaker is open"),
        ],
    )
    def test_a_breaker_gate_holds_only_when_every_breaker_says_no(
        self, breakers: tuple[Breaker, ...], held: bool, detail: str
    ) -> None:
        result = verdict(with_run(breakers=breakers), "circuit_breaker_open", "cecelia-run")
        assert (result.holds, result.detail) == (held, detail)

    def test_half_open_alone_clears_at_no_known_time(self) -> None:
        facts = with_hk(breakers=(structs.replace(OPEN, state=BreakerState.HALF_OPEN),))
        assert verdict(facts, "circuit_breaker_open", "hk-minimax").clears_time is None


class TestBreakerGuard:
    """DISPATCH_BREAKER_GUARD: whether what a breaker says holds anything."""

    def judge(self, mode: GuardMode, *breakers: Breaker, tripped: frozenset[str] = frozenset()) -> Verdict:
        facts = replace(with_hk(breakers=breakers), settings=CheckSettings(breaker_guard=mode), tripped=tripped)
        return verdict(facts, "circuit_breaker_open", "hk-minimax")

    @pytest.mark.parametrize(
        ("mode", "holds_", "would_hold", "detail"),
        [
            (GuardMode.ENFORCE, True, False, "the breaker is open (failure_threshold_reached)"),
            (GuardMode.OBSERVE, False, True, "the breaker is open (failure_threshold_reached); it is only observed"),
            (GuardMode.OFF, False, False, "the breaker is open (failure_threshold_reached); the guard is off"),
        ],
    )
    def test_an_open_breaker_by_mode(self, mode: GuardMode, holds_: bool, would_hold: bool, detail: str) -> None:
        held = self.judge(mode, OPEN)
        assert (held.holds, held.would_hold, held.detail) == (holds_, would_hold, detail)
        assert held.reason is (Reason.CIRCUIT_BREAKER_OPEN if holds_ else None)
        assert (held.clears_time is not None) is holds_

    @pytest.mark.parametrize("mode", GuardMode)
    def test_a_closed_one_holds_in_no_mode(self, mode: GuardMode) -> None:
        held = self.judge(mode, Breaker("hk-minimax"))
        assert (held.holds, held.would_hold, held.detail) == (False, False, "closed")

    @pytest.mark.parametrize("mode", GuardMode)
    def test_one_that_a_person_has_tripped_holds_in_every_mode(self, mode: GuardMode) -> None:
        held = self.judge(mode, OPEN, tripped=frozenset({OPEN.key}))
        assert (held.holds, held.would_hold) == (True, False)

    def test_a_tripped_one_beside_one_that_is_only_observed_leaves_the_other_open(self) -> None:
        other = structs.replace(OPEN, key="another")
        held = self.judge(GuardMode.OBSERVE, OPEN, other, tripped=frozenset({OPEN.key}))
        assert (held.holds, held.would_hold) == (False, True)


def test_a_backend_that_is_set_up_wrongly_says_how() -> None:
    facts = with_run(live_executors=0, misconfigured="alpha: CECELIA_RUN_PATH=/no/such is missing")
    result = verdict(facts, "availability", "cecelia-run")
    assert (result.holds, result.reason, result.detail) == (True, Reason.CONFIG_ERROR, facts.backends[0].misconfigured)
    none = verdict(with_run(live_executors=0), "availability", "cecelia-run")
    assert (none.reason, none.detail) == (Reason.NO_EXECUTOR, "no executor answers for it")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slots_from_resources": 0, "load": "CPU 99% >= 80%"}, "the machine's load leaves no task slot: CPU 99% >= 80%"),
        ({"slots_from_resources": 0}, "the machine's load leaves no task slot"),
        ({"effective_seats": 2}, "of 2 seats (MEM_PER_TASK_MB, CPU_PER_TASK, CECELIA_BUDGET_SLOTS) 2 are kept for people"),
    ],
)
def test_a_pool_without_slots_names_what_leaves_none(changes: dict[str, Any], words: str) -> None:
    result = verdict(given(pools=pools(**changes)), "slots", "cecelia-run")
    assert result.reason is Reason.POOL_EXHAUSTED
    assert result.detail.startswith(words)


class TestPermits:
    def test_a_probe_is_all_that_may_start(self) -> None:
        due = structs.replace(OPEN, opened_time=NOW - HOUR)
        facts = with_hk(breakers=(due,))
        assert permits(facts, evaluate(facts))["hk-minimax"] == Permit()

    def test_one_closed_breaker_lets_all_start(self) -> None:
        facts = with_run(breakers=(structs.replace(OPEN, opened_time=NOW - HOUR), Breaker("cecelia-run@beta")))
        assert permits(facts, evaluate(facts))["cecelia-run"] == Permit()

    def test_a_held_backend_has_none(self) -> None:
        facts = with_hk(breakers=(OPEN,))
        assert set(permits(facts, evaluate(facts))) == {"cecelia-run"}


HELD: dict[str, tuple[GateFacts, str, str, str, datetime | None]] = {
    "draining": (given(draining=("deploy", "operator")), "", "deploy, operator", "no source", None),
    "billing_pause": (
        given(billing_pauses=(BillingPause("", NOW + HOUR),)),
        *("", "2026-02-25T13:00:00Z", "2026-02-25T12:00:00Z", NOW + HOUR),
    ),
    "slots": (given(pools=pools(running_local=10)), "cecelia-run", "10", "10", None),
    "slots of a remote": (with_hk(running=8), "hk-minimax", "8", "8", None),
    "slots without a sample": (given(pools=None), "cecelia-run", "no sample", "a sample", None),
    "low_success_rate": (
        with_run(attempts=merge([(False, "executor_failed", 8), (True, None, 2)], NOW), last_trickle_time=NOW),
        *("cecelia-run", "0.200", "0.3", NOW + timedelta(minutes=1)),
    ),
    "circuit_breaker_open": (with_hk(breakers=(OPEN,)), "hk-minimax", "3", "3", NOW + timedelta(minutes=30)),
    "availability": (with_run(live_executors=0), "cecelia-run", "0", "1", None),
}


@pytest.mark.parametrize("case", HELD)
def test_a_gate_that_holds_says_by_what_figure_beyond_which_limit_and_until_when(case: str) -> None:
    facts, backend, value, limit, clears = HELD[case]
    (held,) = (v for v in evaluate(facts) if v.holds and v.backend == backend)
    assert (held.name, held.value, held.limit, held.clears_time) == (case.split(" ")[0], value, limit, clears)
    assert held.reason is not None
    assert held.detail


def test_every_verdict_has_a_limit_whether_it_holds_or_not() -> None:
    for facts in (CLEAR, *(facts for facts, *_ in HELD.values())):
        assert [v.name for v in evaluate(facts) if not v.limit] == []


def test_the_next_single_try_is_an_interval_after_the_last() -> None:
    facts = with_run(last_trickle_time=NOW)
    assert next_trickle_time(facts, "cecelia-run") == NOW + timedelta(minutes=1)
    assert next_trickle_time(facts, "hk-minimax") is None
    assert next_trickle_time(facts, "no_such_backend") is None


class TestRecordable:
    def record(self, facts: GateFacts) -> list[tuple[str, Reason | None]]:
        return [(v.backend, v.reason) for v in recordable(facts, evaluate(facts))]

    def test_nothing_queued_records_nothing(self) -> None:
        facts = given(backends=(replace(RUN, queued=0, due=0), replace(HK, queued=0, due=0)), draining=("operator",))
        assert verdict(facts, "draining", "").holds
        assert self.record(facts) == []

    def test_a_gate_of_all_is_recorded_once(self) -> None:
        assert self.record(given(draining=("operator",))) == [("", Reason.DRAINING)]

    def test_each_backend_records_the_first_that_holds_it(self) -> None:
        facts = given(
            backends=(replace(RUN, live_executors=0), replace(HK, running=8, breakers=(OPEN,))),
        )
        assert self.record(facts) == [("cecelia-run", Reason.NO_EXECUTOR), ("hk-minimax", Reason.POOL_C_FULL)]

    def test_a_task_in_back_off_is_concerned_too(self) -> None:
        assert self.record(with_hk(breakers=(OPEN,), due=0)) == [("hk-minimax", Reason.CIRCUIT_BREAKER_OPEN)]

    def test_a_hold_that_concerns_no_task_is_not_recorded(self) -> None:
        assert self.record(with_hk(breakers=(OPEN,), queued=0, due=0)) == []


def test_the_low_rate_gate_stands_before_the_breaker() -> None:
    bad = merge([(False, "executor_failed", 10)], NOW)
    facts = with_hk(attempts=bad, last_trickle_time=NOW, breakers=(OPEN,))
    held = first_hold(evaluate(facts), "hk-minimax")
    assert held is not None
    assert held.reason is Reason.LOW_SUCCESS_RATE


def test_a_local_backend_with_a_limit_of_its_own_is_held_by_either() -> None:
    own = with_run(max_runs=2, running=1)
    assert verdict(own, "slots", "cecelia-run").detail == "1 running, 2 runs at once"
    full = with_run(max_runs=2, running=2)
    assert holds(full) == [("cecelia-run", Reason.POOL_C_FULL)]
    loaded = replace(own, pools=pools(slots_from_resources=0))
    assert holds(loaded) == [("cecelia-run", Reason.POOL_EXHAUSTED)]


def test_where_nobody_has_a_backend_the_hold_says_what_there_is() -> None:
    nobody = with_run(live_executors=0, offered_elsewhere="alpha has gpu")
    assert verdict(nobody, "availability", "cecelia-run").detail == "no executor answers for it (alpha has gpu)"
