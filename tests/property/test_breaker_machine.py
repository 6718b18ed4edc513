"""The breaker against a naive model that remembers its whole history."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler_service.core.breaker import (
    Admission,
    Breaker,
    BreakerEvent,
    BreakerSettings,
    BreakerState,
    admit,
    claim_probe,
    record_failure,
    record_neutral,
    record_success,
    reset,
    retry_time,
    trip,
)

SETTINGS = BreakerSettings(failure_threshold=3, open_duration=timedelta(minutes=30))
START = datetime(2026, 2, 25, tzinfo=UTC)


class BreakerMachine(RuleBasedStateMachine):
    """Starts runs as a dispatcher would, and reports their verdicts late, twice, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.breaker = Breaker("b")
        self.runs: list[tuple[UUID, int]] = []
        self.streak = 0
        self.blocked_until: datetime | None = None
        self.probe: UUID | None = None
        self.era: list[UUID] = []
        self.announced_open = False

    def apply(self, recorded: tuple[Breaker, tuple[BreakerEvent, ...]]) -> None:
        before, (self.breaker, events) = self.breaker, recorded
        moved = before.state is not self.breaker.state
        assert self.breaker.generation >= before.generation
        assert not moved or self.breaker.generation > before.generation
        for event in events:
            assert event.payload["key"] == "b"
            self.announced_open = event.type == "circuit_open"

    def new_era(self) -> None:
        self.era = []
        self.streak = 0

    @rule(minutes=st.integers(0, 45))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def dispatch(self) -> None:
        run = UUID(int=len(self.runs) + 1)
        admission = admit(self.breaker, self.now, SETTINGS)
        expected = Admission.ALLOW
        if self.probe is not None:
            expected = Admission.BLOCK
        elif self.blocked_until is not None:
            expected = Admission.PROBE if self.now >= self.blocked_until else Admission.BLOCK
        assert admission is expected
        if admission is Admission.BLOCK:
            return
        if admission is Admission.PROBE:
            self.apply((claim_probe(self.breaker, run, self.now, SETTINGS), ()))
            self.probe = run
        else:
            self.era.append(run)
        self.runs.append((run, self.breaker.generation))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        run, generation = data.draw(st.sampled_from(self.runs))
        self.apply(record_success(self.breaker, self.now, generation, run))
        if run == self.probe:
            self.probe = self.blocked_until = None
            self.new_era()
        elif run in self.era:
            self.streak = 0

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        run, generation = data.draw(st.sampled_from(self.runs))
        self.apply(record_failure(self.breaker, self.now, generation, run, SETTINGS))
        if run == self.probe:
            self.probe = None
            self.blocked_until = self.now + SETTINGS.open_duration
        elif run in self.era:
            self.streak += 1
            if self.streak == 3:
                self.blocked_until = self.now + SETTINGS.open_duration
                self.new_era()

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def end_without_verdict(self, data: st.DataObject) -> None:
        run, generation = data.draw(st.sampled_from(self.runs))
        self.apply(record_neutral(self.breaker, self.now, generation, run))
        if run == self.probe:
            self.probe = None

    @rule()
    def operator_resets(self) -> None:
        self.apply(reset(self.breaker, self.now, "by hand"))
        self.probe = self.blocked_until = None
        self.new_era()

    @rule(minutes=st.none() | st.integers(1, 120))
    def operator_trips(self, minutes: int | None) -> None:
        duration = None if minutes is None else timedelta(minutes=minutes)
        self.apply(trip(self.breaker, self.now, "by hand", duration))
        self.probe = None
        self.blocked_until = self.now + (duration or SETTINGS.open_duration)
        self.new_era()

    @invariant()
    def state_is_the_models(self) -> None:
        expected = BreakerState.CLOSED
        if self.probe is not None:
            expected = BreakerState.HALF_OPEN
        elif self.blocked_until is not None:
            expected = BreakerState.OPEN
        assert self.breaker.state is expected
        assert self.breaker.probe_run_id == self.probe

    @invariant()
    def figures_are_sound(self) -> None:
        closed = self.breaker.state is BreakerState.CLOSED
        assert 0 <= self.breaker.failures <= 6
        assert not closed or self.breaker.failures == self.streak
        assert (self.breaker.opened_time is None) == closed
        if self.breaker.state is BreakerState.OPEN:
            assert retry_time(self.breaker, SETTINGS, self.now) == self.blocked_until
        assert self.announced_open == (not closed)


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, print_blob=True, database=None
)
