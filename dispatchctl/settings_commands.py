"""The commands about settings at run time and about who has overridden what: settings, audit."""

from __future__ import annotations

from datetime import datetime

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.columns import AUDIT, AUDIT_WIDE, SETTINGS, SETTINGS_WIDE
from dispatchctl.completion import SETTING
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.overriding import by_whom
from dispatchctl.parameters import PAST, WORDS, in_milliseconds
from dispatchctl.rendering import clean, iso, note, show, table_text, write
from dispatchctl.session import TABLES, Session, common_options, new_request_id

DELETES = "_RETENTION_MS"
"""What is past a retention is deleted for good."""


@click.group(invoke_without_command=True)
@common_options()
@click.pass_context
def settings(ctx: click.Context) -> int:
    """List the settings that can change at run time; get, set or reset one.

    What is set holds on every replica and over restarts, until it is reset.

    \b
    Example:
      dispatchctl settings get OPEN_DURATION_MS
      dispatchctl settings set OPEN_DURATION_MS 10m --reason "try again sooner"
      dispatchctl settings reset OPEN_DURATION_MS
    """
    if ctx.invoked_subcommand is None:
        session: Session = ctx.obj
        found = _all(session)
        show(session, found, found.settings, SETTINGS, wide=SETTINGS_WIDE, name=lambda setting: setting.name)
    return ExitStatus.DONE


def _all(session: Session) -> pb.ListSettingsResponse:
    return session.run(lambda client: client.call(client.stub.ListSettings, pb.ListSettingsRequest()))


@settings.command()
@click.argument("name", shell_complete=SETTING)
@common_options()
@click.pass_obj
def get(session: Session, name: str) -> int:
    """Show one setting.

    \b
    Example:
      dispatchctl settings get DISPATCH_RATE_THRESHOLD -o json
    """
    found = next((setting for setting in _all(session).settings if setting.name == name.upper()), None)
    if found is None:
        raise Failure(
            "cannot show the setting",
            f"setting_not_found: none that can change at run time is called {clean(name)!r}",
            "see the settings: dispatchctl settings",
            ExitStatus.NOT_FOUND,
        )
    show(session, found, [found], SETTINGS, wide=SETTINGS_WIDE, name=lambda setting: setting.value)
    return ExitStatus.DONE


@settings.command("set")
@click.argument("name", shell_complete=SETTING)
@click.argument("value")
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def set_(session: Session, name: str, value: str, reason: str | None) -> int:
    """Change a setting from now on.

    The value is as the environment variable would have it; one in ms may also have a unit: 500ms, 90s, 10m, 1h, 2d.

    \b
    Example:
      dispatchctl settings set OPEN_DURATION_MS 10m --reason "try again sooner"
      dispatchctl settings set DISPATCH_RATE_GUARD observe
    """
    wanted = in_milliseconds(value) if name.upper().endswith("_MS") else value
    if name.upper().endswith(DELETES):
        session.confirm(f"set {name.upper()} to {wanted}? What is older is deleted")
    request = pb.SetSettingRequest(name=name.upper(), value=wanted, reason=session.reason(reason), request_id=new_request_id())
    response = session.run(lambda client: client.call(client.stub.SetSetting, request))
    _show_change(session, response)
    after = response.after
    until = f"dispatchctl settings reset {clean(after.name)}"
    note(f"{by_whom(request.reason)}, since {iso(after.since_time)}, until {until}")
    return ExitStatus.DONE


@settings.command("reset")
@click.argument("name", shell_complete=SETTING)
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def reset_(session: Session, name: str, reason: str | None) -> int:
    """Give a setting back to the environment.

    \b
    Example:
      dispatchctl settings reset OPEN_DURATION_MS --reason "the outage is over"
    """
    if name.upper().endswith(DELETES):
        session.confirm(f"reset {name.upper()}? What is older than it was before is deleted")
    request = pb.ResetSettingRequest(name=name.upper(), reason=session.reason(reason), request_id=new_request_id())
    response = session.run(lambda client: client.call(client.stub.ResetSetting, request))
    _show_change(session, response)
    if response.before.origin == response.after.origin:
        note("it was not changed: nothing is otherwise now")
    else:
        note(f"{by_whom(request.reason)}, since now, until it is set again")
    return ExitStatus.DONE


def _show_change(session: Session, response: pb.SetSettingResponse | pb.ResetSettingResponse) -> None:
    before, after = response.before, response.after
    if session.output in TABLES:
        headers = ["", *(header for header, _ in SETTINGS)]
        rows = [[when, *(cell(one) for _, cell in SETTINGS)] for when, one in (("before", before), ("after", after))]
        write(table_text(headers, rows))
    else:
        show(session, response, [response], (), name=lambda _: after.name)


@click.command()
@click.option("--method", default="", metavar="RPC", help="Only of this rpc, such as SetDrain.")
@click.option("--actor", default="", metavar="WHO", help="Only by this one, such as user@host.")
@click.option("--target", default="", metavar="TEXT", help="Only of this task, breaker, source, backend or setting.")
@click.option("--since", type=PAST, metavar="TIME", help="From then on: 2026-01-31T08:00:00Z, or 2h for two hours ago.")
@click.option("--until", type=PAST, metavar="TIME", help="Before then.")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="At most so many.")
@click.option("--page-token", default="", help="The next_page_token of the page before.")
@common_options()
@click.pass_obj
def audit(
    session: Session,
    method: str,
    actor: str,
    target: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    page_token: str,
) -> int:
    """List who has overridden what, and why; newest first.

    \b
    Example:
      dispatchctl audit --since 2h
      dispatchctl audit --method SetSetting --target OPEN_DURATION_MS -o wide
    """
    request = pb.ListAuditEntriesRequest(page_size=limit, page_token=page_token, method=method, actor=actor, target=target)
    if since is not None:
        request.start_time.FromDatetime(since)
    if until is not None:
        request.end_time.FromDatetime(until)
    page = session.run(lambda client: client.call(client.stub.ListAuditEntries, request))
    show(session, page, page.entries, AUDIT, wide=AUDIT_WIDE, name=lambda entry: str(entry.id))
    if page.next_page_token:
        note(f"there are more: the same once more with --page-token {page.next_page_token}")
    return ExitStatus.DONE
