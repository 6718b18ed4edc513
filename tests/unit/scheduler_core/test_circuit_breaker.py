"""The circuit breaker: thresholds, probes, generations, overrides and what is told about them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec import structs

from scheduler_service.core.breaker import (
    TRANSITIONS,
    Admission,
    Breaker,
    BreakerEvent,
    BreakerSettings,
    BreakerState,
    Signal,
    admit,
    breaker_key,
    claim_probe,
    clamp_opened_time,
    describe_bare,
    record_failure,
    record_neutral,
    record_success,
    reset,
    retry_time,
    trip,
)
from scheduler_service.core.routing import BackendKind
from scheduler_service.core.task import IllegalTransition

NOW = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)
OPEN_DURATION = timedelta(milliseconds=1_800_000)
MS = timedelta(milliseconds=1)
SETTINGS = BreakerSettings()
RUN = UUID(int=1)
OTHER = UUID(int=2)
KEY = "cecelia-run@alpha"


def failing(breaker: Breaker, times: int) -> tuple[Breaker, list[BreakerEvent]]:
    events: list[BreakerEvent] = []
    for _ in range(times):
        breaker, told = record_failure(breaker, NOW, breaker.generation, RUN, SETTINGS)
        events.extend(told)
    return breaker, events


def opened() -> Breaker:
    return failing(Breaker(KEY), 3)[0]


def probing() -> Breaker:
    return claim_probe(opened(), RUN, NOW + OPEN_DURATION, SETTINGS)


def test_defaults_are_the_contracts() -> None:
    assert BreakerSettings(failure_threshold=3, open_duration=OPEN_DURATION) == SETTINGS


def test_a_new_breaker_is_closed_and_allows() -> None:
    breaker = Breaker(KEY)
    assert (breaker.state, breaker.failures, breaker.generation) == (BreakerState.CLOSED, 0, 0)
    assert admit(breaker, NOW, SETTINGS) is Admission.ALLOW
    assert retry_time(breaker, SETTINGS, NOW) is None


class TestClosed:
    def test_failures_below_the_threshold_only_count(self) -> None:
        breaker, events = failing(Breaker(KEY), 2)
        assert (breaker.state, breaker.failures, breaker.last_failure_time) == (BreakerState.CLOSED, 2, NOW)
        assert (breaker.generation, breaker.opened_time, events) == (0, None, [])
        assert admit(breaker, NOW, SETTINGS) is Admission.ALLOW

    def test_the_threshold_opens_and_tells(self) -> None:
        breaker, events = failing(Breaker(KEY), 3)
        assert (breaker.state, breaker.opened_time, breaker.generation) == (BreakerState.OPEN, NOW, 1)
        assert breaker.reason == "failure_threshold_reached"
        payload = {"key": KEY, "reason": "failure_threshold_reached", "failures": 3}
        assert events == [BreakerEvent("circuit_open", payload)]

    def test_another_threshold(self) -> None:
        breaker, _ = record_failure(Breaker(KEY), NOW, 0, RUN, BreakerSettings(failure_threshold=1))
        assert breaker.state is BreakerState.OPEN

    def test_a_success_clears_the_whole_count(self) -> None:
        breaker, _ = failing(Breaker(KEY), 2)
        breaker, events = record_success(breaker, NOW, 0, RUN)
        assert (breaker.failures, breaker.last_failure_time, events) == (0, None, ())
        assert failing(breaker, 2)[0].state is BreakerState.CLOSED

    def test_a_success_without_failures_changes_nothing(self) -> None:
        breaker = Breaker(KEY)
        assert record_success(breaker, NOW, 0, RUN)[0] is breaker

    def test_a_neutral_outcome_changes_nothing(self) -> None:
        breaker, _ = failing(Breaker(KEY), 2)
        assert record_neutral(breaker, NOW, 0, RUN) == (breaker, ())

    @pytest.mark.parametrize("generation", [4, 6])
    def test_outcomes_of_another_generation_are_ignored(self, generation: int) -> None:
        breaker = Breaker(KEY, failures=2, generation=5)
        assert record_failure(breaker, NOW, generation, RUN, SETTINGS) == (breaker, ())
        assert record_success(breaker, NOW, generation, RUN) == (breaker, ())

    def test_a_lowered_threshold_keeps_the_count_bounded(self) -> None:
        breaker = Breaker(KEY, failures=359)
        breaker, _ = record_failure(breaker, NOW, 0, RUN, SETTINGS)
        assert breaker.failures == 6


class TestOpen:
    def test_blocks_until_the_retry_time_and_probes_from_it_on(self) -> None:
        breaker = opened()
        assert retry_time(breaker, SETTINGS, NOW) == NOW + OPEN_DURATION
        assert admit(breaker, NOW, SETTINGS) is Admission.BLOCK
        assert admit(breaker, NOW + OPEN_DURATION - MS, SETTINGS) is Admission.BLOCK
        assert admit(breaker, NOW + OPEN_DURATION, SETTINGS) is Admission.PROBE

    @pytest.mark.parametrize("generation", [0, 1])
    @pytest.mark.parametrize("later", [timedelta(0), OPEN_DURATION, 2 * OPEN_DURATION])
    def test_no_outcome_moves_it(self, generation: int, later: timedelta) -> None:
        breaker = opened()
        assert record_success(breaker, NOW + later, generation, RUN) == (breaker, ())
        assert record_failure(breaker, NOW + later, generation, RUN, SETTINGS) == (breaker, ())
        assert record_neutral(breaker, NOW + later, generation, RUN) == (breaker, ())

    def test_a_probe_before_its_time_is_refused(self) -> None:
        with pytest.raises(IllegalTransition, match="admits no probe"):
            claim_probe(opened(), RUN, NOW + OPEN_DURATION - MS, SETTINGS)

    def test_an_opened_time_in_the_future_counts_as_now(self) -> None:
        ahead = structs.replace(opened(), opened_time=NOW + timedelta(hours=10))
        assert retry_time(ahead, SETTINGS, NOW) == NOW + OPEN_DURATION
        clamped = clamp_opened_time(ahead, NOW)
        assert clamped.opened_time == NOW
        assert clamp_opened_time(clamped, NOW + MS) is clamped
        assert clamp_opened_time(Breaker(KEY), NOW) == Breaker(KEY)

    def test_an_endless_duration_saturates(self) -> None:
        breaker, _ = trip(Breaker(KEY), NOW, "maintenance", timedelta.max)
        assert admit(breaker, NOW + timedelta(days=99_999), SETTINGS) is Admission.BLOCK
        assert retry_time(breaker, SETTINGS, NOW) == datetime.max.replace(tzinfo=UTC)

    def test_a_row_without_opened_time_blocks_and_has_no_retry_time(self) -> None:
        broken = structs.replace(opened(), opened_time=None)
        assert retry_time(broken, SETTINGS, NOW) is None
        assert admit(broken, NOW, SETTINGS) is Admission.BLOCK


class TestHalfOpen:
    def test_the_probe_is_single(self) -> None:
        breaker = probing()
        assert (breaker.state, breaker.probe_run_id, breaker.generation) == (BreakerState.HALF_OPEN, RUN, 2)
        assert (breaker.failures, breaker.opened_time) == (3, NOW)
        for later in (timedelta(0), OPEN_DURATION, timedelta(days=9)):
            assert admit(breaker, NOW + OPEN_DURATION + later, SETTINGS) is Admission.BLOCK
        with pytest.raises(IllegalTransition):
            claim_probe(breaker, OTHER, NOW + 2 * OPEN_DURATION, SETTINGS)

    def test_its_success_closes_and_tells(self) -> None:
        breaker, events = record_success(probing(), NOW, 2, RUN)
        assert breaker == Breaker(KEY, generation=3)
        payload = {"key": KEY, "previous_state": "HALF_OPEN", "previous_failures": 3}
        assert events == (BreakerEvent("circuit_closed", payload),)

    def test_its_failure_opens_anew_from_now(self) -> None:
        later = NOW + 2 * OPEN_DURATION
        breaker, events = record_failure(probing(), later, 2, RUN, SETTINGS)
        assert (breaker.state, breaker.failures, breaker.opened_time) == (BreakerState.OPEN, 4, later)
        assert (breaker.generation, breaker.probe_run_id, breaker.last_failure_time) == (3, None, later)
        payload = {"key": KEY, "reason": "half_open_probe_failed", "failures": 4}
        assert events == (BreakerEvent("circuit_open", payload),)

    def test_its_neutral_end_lets_the_next_tick_probe(self) -> None:
        later = NOW + OPEN_DURATION + MS
        breaker, events = record_neutral(probing(), later, 2, RUN)
        assert (breaker.state, breaker.opened_time, breaker.generation) == (BreakerState.OPEN, NOW, 3)
        assert (breaker.failures, breaker.reason, events) == (3, "failure_threshold_reached", ())
        assert admit(breaker, later, SETTINGS) is Admission.PROBE

    @pytest.mark.parametrize(("generation", "run_id"), [(2, OTHER), (1, RUN), (3, RUN), (0, OTHER)])
    def test_only_the_probes_own_verdict_counts(self, generation: int, run_id: UUID) -> None:
        breaker = probing()
        assert record_success(breaker, NOW, generation, run_id) == (breaker, ())
        assert record_failure(breaker, NOW, generation, run_id, SETTINGS) == (breaker, ())
        assert record_neutral(breaker, NOW, generation, run_id) == (breaker, ())

    def test_the_count_is_bounded_over_many_failed_probes(self) -> None:
        breaker, now = opened(), NOW
        for _ in range(50):
            now += OPEN_DURATION
            breaker = claim_probe(breaker, RUN, now, SETTINGS)
            breaker, _ = record_failure(breaker, now, breaker.generation, RUN, SETTINGS)
        assert breaker.failures == 6

    def test_a_second_report_of_the_probe_changes_nothing(self) -> None:
        closed, _ = record_success(probing(), NOW, 2, RUN)
        assert record_failure(closed, NOW, 2, RUN, SETTINGS) == (closed, ())


class TestOverrides:
    @pytest.mark.parametrize("state", list(BreakerState))
    def test_reset_closes_from_every_state(self, state: BreakerState) -> None:
        before = {BreakerState.CLOSED: Breaker(KEY), BreakerState.OPEN: opened(), BreakerState.HALF_OPEN: probing()}[state]
        after, events = reset(before, NOW, "mended")
        assert after == Breaker(KEY, generation=before.generation + 1, reason="mended")
        payload = {"key": KEY, "previous_state": state.value, "previous_failures": before.failures}
        told = () if state is BreakerState.CLOSED else (BreakerEvent("circuit_closed", payload),)
        assert events == told

    def test_a_late_failure_does_not_undo_a_reset(self) -> None:
        before = Breaker(KEY, failures=2)
        after, _ = reset(before, NOW, "mended")
        assert record_failure(after, NOW, before.generation, RUN, SETTINGS) == (after, ())

    def test_trip_opens_for_its_own_duration(self) -> None:
        tripped, events = trip(Breaker(KEY), NOW, "maintenance", timedelta(hours=5))
        assert (tripped.state, tripped.opened_time, tripped.generation) == (BreakerState.OPEN, NOW, 1)
        assert events == (BreakerEvent("circuit_open", {"key": KEY, "reason": "maintenance", "failures": 0}),)
        assert admit(tripped, NOW + timedelta(hours=5) - MS, SETTINGS) is Admission.BLOCK
        assert admit(tripped, NOW + timedelta(hours=5), SETTINGS) is Admission.PROBE

    def test_the_duration_of_a_trip_does_not_outlive_it(self) -> None:
        tripped, _ = trip(Breaker(KEY), NOW, "maintenance", timedelta(hours=5))
        now = NOW + timedelta(hours=5)
        failed, _ = record_failure(claim_probe(tripped, RUN, now, SETTINGS), now, 2, RUN, SETTINGS)
        assert retry_time(failed, SETTINGS, now) == now + OPEN_DURATION

    def test_a_trip_without_duration_follows_the_setting(self) -> None:
        tripped, _ = trip(Breaker(KEY), NOW, "maintenance", None)
        assert retry_time(tripped, BreakerSettings(open_duration=MS), NOW) == NOW + MS

    def test_tripping_an_open_one_renews_it_without_event(self) -> None:
        again, events = trip(opened(), NOW + MS, "maintenance", None)
        assert (again.opened_time, again.reason, again.generation, events) == (NOW + MS, "maintenance", 2, ())

    def test_a_trip_takes_the_probe_its_verdict(self) -> None:
        tripped, events = trip(probing(), NOW, "maintenance", None)
        assert [event.type for event in events] == ["circuit_open"]
        assert record_success(tripped, NOW, 2, RUN) == (tripped, ())


def test_a_restart_in_the_middle_keeps_the_original_opened_time() -> None:
    stored = opened()
    loaded = Breaker(**{name: getattr(stored, name) for name in Breaker.__slots__})
    assert retry_time(loaded, SETTINGS, NOW + timedelta(minutes=20)) == NOW + OPEN_DURATION


def test_the_table_lists_every_move_and_no_other() -> None:
    closed, open_, half = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
    own = {move for move in TRANSITIONS if move[1] not in (Signal.RESET, Signal.TRIP)}
    assert own == {
        (closed, Signal.THRESHOLD_REACHED),
        (open_, Signal.PROBE_CLAIMED),
        (half, Signal.PROBE_SUCCEEDED),
        (half, Signal.PROBE_FAILED),
        (half, Signal.PROBE_NEUTRAL),
    }
    assert all((state, signal) in TRANSITIONS for state in BreakerState for signal in (Signal.RESET, Signal.TRIP))


def test_keys() -> None:
    assert breaker_key("hk-minimax", BackendKind.SHARED, "alpha") == "hk-minimax"
    assert breaker_key("cecelia-run", BackendKind.PER_EXECUTOR, "alpha") == KEY


class TestBareName:
    def describe(self, *breakers: Breaker) -> Breaker:
        return describe_bare("cecelia-run", breakers, SETTINGS)

    def test_none_known_is_closed(self) -> None:
        assert self.describe() == Breaker("cecelia-run")

    def test_any_closed_is_closed(self) -> None:
        answer = self.describe(opened(), probing(), Breaker("cecelia-run@beta", failures=1, generation=7))
        assert (answer.key, answer.state, answer.failures) == ("cecelia-run", BreakerState.CLOSED, 1)
        assert (answer.generation, answer.opened_time) == (10, None)
        assert answer.last_failure_time == NOW

    def test_else_any_half_open_is_half_open(self) -> None:
        answer = self.describe(opened(), probing())
        assert (answer.state, answer.generation) == (BreakerState.HALF_OPEN, 3)
        assert retry_time(answer, SETTINGS, NOW) is None

    def test_else_open_until_the_earliest_retry(self) -> None:
        soon, _ = trip(Breaker("cecelia-run@beta"), NOW + MS, "short", timedelta(minutes=1))
        answer = self.describe(opened(), soon)
        assert (answer.state, answer.failures, answer.reason) == (BreakerState.OPEN, 0, "short")
        assert retry_time(answer, SETTINGS, NOW + MS) == NOW + MS + timedelta(minutes=1)


def test_an_unlisted_move_raises_and_changes_nothing() -> None:
    """`claim_probe` on a closed breaker is such a move."""
    breaker = Breaker(KEY)
    with pytest.raises(IllegalTransition):
        claim_probe(breaker, RUN, NOW, SETTINGS)
    assert breaker == Breaker(KEY)
