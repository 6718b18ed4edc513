"""The commands about breakers and drain. Each override says who, why, since and until."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.columns import BREAKERS, BREAKERS_WIDE, state_word
from dispatchctl.failures import ExitStatus
from dispatchctl.parameters import DURATION
from dispatchctl.rendering import clean, iso, note, show, table_text, write
from dispatchctl.session import Output, Session, caller, common_options, new_request_id

SEE_BREAKERS = "dispatchctl breakers"
_TABLES = (Output.TABLE, Output.WIDE)


@click.command()
@click.argument("key", metavar="[KEY]", default="")
@common_options()
@click.pass_obj
def breakers(session: Session, key: str) -> int:
    """List the circuit breakers, or show one.

    \b
    dispatchctl breakers
    dispatchctl breakers cecelia-run -o json
    """
    if key:
        request = pb.GetBreakerRequest(key=key)
        one = session.run(lambda client: client.call(client.stub.GetBreaker, request, see=SEE_BREAKERS)).breaker
        show(session, one, [one], BREAKERS, wide=BREAKERS_WIDE, name=lambda breaker: breaker.key)
    else:
        found = session.run(lambda client: client.call(client.stub.ListBreakers, pb.ListBreakersRequest()))
        show(session, found, found.breakers, BREAKERS, wide=BREAKERS_WIDE, name=lambda breaker: breaker.key)
    return ExitStatus.DONE


def _show_change(session: Session, response: pb.ResetBreakerResponse | pb.TripBreakerResponse) -> None:
    before, after = response.before, response.after
    if session.output in _TABLES:
        headers = ["", *(header for header, _ in BREAKERS)]
        rows = [[when, *(cell(b) for _, cell in BREAKERS)] for when, b in (("before", before), ("after", after))]
        write(table_text(headers, rows))
    else:
        show(session, response, [response], (), name=lambda _: after.key)


@click.command()
@click.argument("key")
@click.option("--reason", help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def reset(session: Session, key: str, reason: str | None) -> int:
    """Force a breaker CLOSED.

    \b
    dispatchctl reset cecelia-run --reason "interpreter installed"
    """
    request = pb.ResetBreakerRequest(key=key, reason=session.reason(reason), request_id=new_request_id())
    response = session.run(lambda client: client.call(client.stub.ResetBreaker, request, see=SEE_BREAKERS))
    _show_change(session, response)
    state = state_word(response.after.state)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note(f"{clean(key)} is {state}: by {caller()}, {request.reason}, since {now}, until it fails again")
    note("see what starts now: dispatchctl explain")
    return ExitStatus.DONE


@click.command()
@click.argument("key")
@click.option("--for", "duration", type=DURATION, metavar="DURATION", help="How long; OPEN_DURATION_MS by default.")
@click.option("--reason", help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def trip(session: Session, key: str, duration: float | None, reason: str | None) -> int:
    """Force a breaker OPEN.

    \b
    dispatchctl trip hk-minimax --for 10m --reason "maintenance"
    """
    request = pb.TripBreakerRequest(key=key, reason=session.reason(reason), request_id=new_request_id())
    if duration is not None:
        request.duration.FromMilliseconds(round(duration * 1000))
    response = session.run(lambda client: client.call(client.stub.TripBreaker, request, see=SEE_BREAKERS))
    _show_change(session, response)
    after = response.after
    since, until = iso(after.opened_time), iso(after.retry_time) or "a probe succeeds"
    note(f"{clean(key)} is {state_word(after.state)}: by {caller()}, {request.reason}, since {since}, until {until}")
    note(f"end it with: dispatchctl reset {clean(key)}")
    return ExitStatus.DONE


@click.command()
@click.argument("switch", metavar="on|off", type=click.Choice(["on", "off"]))
@click.option("--source", default="", help="Who drains; operator by default. Drained while any source says so.")
@click.option("--until-idle", is_flag=True, help="End it by itself when nothing runs.")
@click.option("--reason", help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def drain(session: Session, switch: str, source: str, until_idle: bool, reason: str | None) -> int:
    """Stop starting tasks, or start again. What runs goes on.

    \b
    dispatchctl drain on --reason "deploy" --until-idle
    dispatchctl drain off
    """
    if until_idle and switch == "off":
        raise click.UsageError("--until-idle goes with on only")
    request = pb.SetDrainRequest(
        enabled=switch == "on",
        source=source,
        until_idle=until_idle,
        reason=session.reason(reason),
        request_id=new_request_id(),
    )
    state = session.run(lambda client: client.call(client.stub.SetDrain, request))
    word = "draining" if state.draining else "not draining"
    if session.output in _TABLES:
        write(f"{word}, {state.running} running")
    else:
        show(session, state, [state], (), name=lambda _: word.replace(" ", "_"))
    if request.enabled:
        until = "nothing runs" if until_idle else "dispatchctl drain off"
        note(f"by {caller()} as {source or 'operator'}, {request.reason}, since {iso(state.since_time)}, until {until}")
    elif state.draining:
        note("another source drains still; see who: dispatchctl status")
    return ExitStatus.DONE
