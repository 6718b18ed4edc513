"""The commands about circuit breakers: breakers, reset, trip."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import BREAKERS, BREAKERS_WIDE, state_word
from dispatchctl.completion import BREAKER
from dispatchctl.failures import ExitStatus
from dispatchctl.overriding import by_whom
from dispatchctl.parameters import POSITIVE_DURATION, WORDS
from dispatchctl.redrawing import show_or_watch, watch_option
from dispatchctl.rendering import clean, iso, note, show, table_text, write
from dispatchctl.session import TABLES, Session, common_options, new_request_id


@click.command()
@click.argument("key", metavar="[KEY]", default="", shell_complete=BREAKER)
@watch_option
@common_options()
@click.pass_obj
def breakers(session: Session, key: str, interval: float | None) -> int:
    """List the circuit breakers, or show one.

    \b
    Example:
      dispatchctl breakers --watch
      dispatchctl breakers cecelia-run -o json
    """

    async def fetch(client: SchedulerClient) -> tuple[pb.Breaker | pb.ListBreakersResponse, Sequence[pb.Breaker]]:
        if key:
            one = (await client.call(client.stub.GetBreaker, pb.GetBreakerRequest(key=key))).breaker
            return one, [one]
        found = await client.call(client.stub.ListBreakers, pb.ListBreakersRequest())
        return found, found.breakers

    def draw(found: tuple[pb.Breaker | pb.ListBreakersResponse, Sequence[pb.Breaker]]) -> int:
        response, items = found
        show(session, response, items, BREAKERS, wide=BREAKERS_WIDE, name=lambda breaker: breaker.key)
        return ExitStatus.DONE

    return show_or_watch(session, interval, fetch, draw)


def _show_change(session: Session, response: pb.ResetBreakerResponse | pb.TripBreakerResponse) -> None:
    before, after = response.before, response.after
    if session.output in TABLES:
        headers = ["", *(header for header, _ in BREAKERS)]
        rows = [[when, *(cell(b) for _, cell in BREAKERS)] for when, b in (("before", before), ("after", after))]
        write(table_text(headers, rows))
    else:
        show(session, response, [response], (), name=lambda _: after.key)


@click.command()
@click.argument("key", shell_complete=BREAKER)
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def reset(session: Session, key: str, reason: str | None) -> int:
    """Force a breaker CLOSED.

    \b
    Example:
      dispatchctl reset cecelia-run --reason "interpreter installed"
    """
    request = pb.ResetBreakerRequest(key=key, reason=session.reason(reason), request_id=new_request_id())
    response = session.run(lambda client: client.call(client.stub.ResetBreaker, request))
    _show_change(session, response)
    state = state_word(response.after.state)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note(f"{clean(key)} is {state}: {by_whom(request.reason)}, since {now}, until it fails again")
    note("see what starts now: dispatchctl explain")
    return ExitStatus.DONE


@click.command()
@click.argument("key", shell_complete=BREAKER)
@click.option("--for", "duration", type=POSITIVE_DURATION, metavar="DURATION", help="How long; OPEN_DURATION_MS by default.")
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def trip(session: Session, key: str, duration: float | None, reason: str | None) -> int:
    """Force a breaker OPEN.

    \b
    Example:
      dispatchctl trip hk-minimax --for 10m --reason "maintenance"
    """
    request = pb.TripBreakerRequest(key=key, reason=session.reason(reason), request_id=new_request_id())
    if duration is not None:
        request.duration.FromMilliseconds(round(duration * 1000))
    response = session.run(lambda client: client.call(client.stub.TripBreaker, request))
    _show_change(session, response)
    after = response.after
    since, until = iso(after.opened_time), iso(after.retry_time) or "a probe succeeds"
    note(f"{clean(key)} is {state_word(after.state)}: {by_whom(request.reason)}, since {since}, until {until}")
    note(f"end it with: dispatchctl reset {clean(key)}")
    return ExitStatus.DONE
