"""The commands that hold tasks back: drain, billing, cap. Each override says who, why, since and until."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.failures import ExitStatus
from dispatchctl.overriding import by_whom
from dispatchctl.parameters import MOMENT, POSITIVE_DURATION, WORDS
from dispatchctl.rendering import clean, iso, note, show, write
from dispatchctl.session import TABLES, Session, common_options, new_request_id


@click.command()
@click.argument("switch", metavar="on|off", type=click.Choice(["on", "off"]))
@click.option("--source", default="", help="Who drains; operator by default. Drained while any source says so.")
@click.option("--until-idle", is_flag=True, help="End it by itself when nothing runs.")
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def drain(session: Session, switch: str, source: str, until_idle: bool, reason: str | None) -> int:
    """Stop starting tasks, or start again. What runs goes on.

    \b
    Example:
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
    if session.output in TABLES:
        write(f"{word}, {state.running} running")
    else:
        show(session, state, [state], (), name=lambda _: word.replace(" ", "_"))
    if request.enabled:
        ends = f"dispatchctl drain off{f' --source {shlex.quote(source)}' if source else ''}"
        until = "nothing runs" if until_idle else ends
        note(f"{by_whom(request.reason, source=source or 'operator')}, since {iso(state.since_time)}, until {until}")
    elif state.draining:
        note("another source drains still; see who: dispatchctl status")
    return ExitStatus.DONE


@click.group()
def billing() -> None:
    """Pause all backends or one until a time, or end the pause.

    \b
    Example:
      dispatchctl billing pause --backend hk-minimax --for 2h --reason quota
      dispatchctl billing clear --backend hk-minimax
    """


def _pause_line(pause: pb.BillingPause) -> str:
    return f"{clean(pause.backend) or 'all backends'}, {clean(pause.reason) or 'no reason given'}"


@billing.command()
@click.option("--for", "duration", type=POSITIVE_DURATION, metavar="DURATION", help="How long.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Until when: 2026-01-31T08:00:00Z or +10m.")
@click.option("--backend", default="", help="Only this one; all by default.")
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def pause(session: Session, duration: float | None, until: datetime | None, backend: str, reason: str | None) -> int:
    """Start nothing until a time. A pause that is in force is only ever made longer.

    \b
    Example:
      dispatchctl billing pause --for 2h --reason "quota used up"
      dispatchctl billing pause --backend hk-minimax --until 2030-01-31T08:00:00Z
    """
    if (duration is None) == (until is None):
        raise click.UsageError("say how long by either --for or --until")
    wanted = until or datetime.now(UTC) + timedelta(seconds=duration or 0)
    request = pb.SetBillingPauseRequest(backend=backend, reason=session.reason(reason), request_id=new_request_id())
    request.until_time.FromDatetime(wanted)
    response = session.run(lambda client: client.call(client.stub.SetBillingPause, request))
    found = response.pause
    if session.output in TABLES:
        write(f"paused: {_pause_line(found)}, since {iso(found.since_time)}, until {iso(found.until_time)}")
    else:
        show(session, response, [found], (), name=lambda one: one.backend or "all")
    if found.until_time.ToDatetime(tzinfo=UTC) > request.until_time.ToDatetime(tzinfo=UTC):
        note("a longer pause is in force already: nothing has changed")
    else:
        note(f"{by_whom(request.reason)}, since {iso(found.since_time)}, until {iso(found.until_time)}")
    note(f"end it with: dispatchctl billing clear{f' --backend {clean(backend)}' if backend else ''}")
    return ExitStatus.DONE


@billing.command()
@click.option("--backend", default="", help="That of this one; that of all by default.")
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def clear(session: Session, backend: str, reason: str | None) -> int:
    """End a pause before its time.

    \b
    Example:
      dispatchctl billing clear --reason "quota is back"
    """
    request = pb.ClearBillingPauseRequest(backend=backend, reason=session.reason(reason), request_id=new_request_id())
    response = session.run(lambda client: client.call(client.stub.ClearBillingPause, request))
    if session.output in TABLES:
        write(f"ended: {_pause_line(response.previous)}" if response.cleared else "there was no such pause")
    else:
        items = [response.previous] if response.cleared else []
        show(session, response, items, (), name=lambda one: one.backend or "all")
    if response.cleared:
        note(f"{by_whom(request.reason)}, since now; see what starts now: dispatchctl explain")
    else:
        note("nothing has changed; see which pauses there are: dispatchctl status")
    return ExitStatus.DONE


class _Slots(click.ParamType[int]):
    """A ceiling on slots; `off` is 0, which no ceiling can be."""

    name = "slots"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "off":
            return 0
        return int(click.IntRange(1, 1_000_000).convert(value, param, ctx))


@click.command()
@click.argument("slots", metavar="SLOTS|off", type=_Slots())
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def cap(session: Session, slots: int, reason: str | None) -> int:
    """Set a ceiling on local slots, or lift it. What runs goes on.

    \b
    Example:
      dispatchctl cap 2 --reason "the machine is needed for a demonstration"
      dispatchctl cap off
    """
    request = pb.SetBudgetCapRequest(slots=slots or None, reason=session.reason(reason), request_id=new_request_id())
    state = session.run(lambda client: client.call(client.stub.SetBudgetCap, request))
    if session.output in TABLES:
        word = f"capped at {state.slots}" if state.HasField("slots") else "not capped"
        write(f"{word}: {state.effective} of {state.physical} slots are used at most")
    else:
        show(session, state, [state], (), name=lambda _: str(state.slots) if state.HasField("slots") else "off")
    until = "dispatchctl cap off" if slots else "the next cap"
    note(f"{by_whom(request.reason)}, since now, until {until}")
    return ExitStatus.DONE
