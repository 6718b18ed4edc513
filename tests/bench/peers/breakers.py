"""What a circuit breaker adds to a call that succeeds, and to one that fails, while it stays closed.

    python breakers.py LIBRARY CALLS

Run by the interpreter that has the library (ours: the repository's own) and prints the figures as JSON: nanoseconds of CPU a call beyond
the bare call, `success_ns` and `failure_ns`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from uuid import uuid4

NEVER = 10**9
REPEATS = 5
WARM_UPS = 1_000
Call = Callable[[], object]


class Failed(Exception):
    """What the failing call raises."""


def succeed() -> int:
    return 1


def fail() -> int:
    raise Failed


def ours(call: Call) -> Call:
    from scheduler_service.core.breaker import Admission, Breaker, BreakerSettings, admit, record_failure, record_success

    settings = BreakerSettings(failure_threshold=NEVER, open_duration=timedelta(minutes=30))
    breaker, run_id, block = Breaker("cecelia-run@host-a"), uuid4(), Admission.BLOCK

    def guarded() -> object:
        nonlocal breaker
        now = datetime.now(UTC)
        if admit(breaker, now, settings) is block:
            raise RuntimeError("open")
        try:
            result = call()
        except Failed:
            breaker, _ = record_failure(breaker, now, breaker.generation, run_id, settings)
            raise
        breaker, _ = record_success(breaker, now, breaker.generation, run_id)
        return result

    return guarded


def circuitbreaker(call: Call) -> Call:
    import circuitbreaker as library

    return library.circuit(failure_threshold=NEVER, recovery_timeout=1_800, name=call.__name__)(call)


def pybreaker(call: Call) -> Call:
    import pybreaker as library

    breaker = library.CircuitBreaker(fail_max=NEVER, reset_timeout=1_800)
    return lambda: breaker.call(call)


def aiobreaker(call: Call) -> Call:
    import aiobreaker as library

    breaker = library.CircuitBreaker(fail_max=NEVER)
    return lambda: breaker.call(call)


def purgatory(call: Call) -> Call:
    import purgatory as library

    return library.SyncCircuitBreakerFactory(default_threshold=NEVER, default_ttl=1_800)(call.__name__)(call)


LIBRARIES: dict[str, Callable[[Call], Call]] = {
    made.__name__: made for made in (ours, circuitbreaker, pybreaker, purgatory, aiobreaker)
}


def nanoseconds(call: Call, calls: int) -> float:
    """A call, whether it raises or not."""
    for remaining in (WARM_UPS, calls):
        began = time.process_time_ns()
        for _ in range(remaining):
            try:  # noqa: SIM105 - a context manager would cost more than what is measured
                call()
            except Failed:
                pass
    return (time.process_time_ns() - began) / calls


def added(make: Callable[[Call], Call], call: Call, calls: int) -> float:
    """Nanoseconds beyond the bare call: the median over turns that measure both side by side."""
    guarded = make(call)
    return median(nanoseconds(guarded, calls) - nanoseconds(call, calls) for _ in range(REPEATS))


if __name__ == "__main__":
    library, calls = LIBRARIES[sys.argv[1]], int(sys.argv[2])
    print(json.dumps({f"{call.__name__}_ns": added(library, call, calls) for call in (succeed, fail)}))
