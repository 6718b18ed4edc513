"""The root command and what hangs below it."""

from __future__ import annotations

from importlib.metadata import version

import click

from dispatchctl import breaker_commands, dispatch_commands, override_commands, run_commands, settings_commands, task_commands
from dispatchctl.completion_command import completion
from dispatchctl.doctor_command import doctor
from dispatchctl.event_commands import events
from dispatchctl.import_command import import_original
from dispatchctl.log_command import logs
from dispatchctl.psql_command import psql
from dispatchctl.session import common_options
from dispatchctl.submit_command import submit
from dispatchctl.top_command import top
from dispatchctl.up_command import up

GROUPS = {
    "Run": (up, doctor, completion),
    "Tasks": (
        submit,
        import_original,
        task_commands.tasks,
        task_commands.task,
        task_commands.edit,
        task_commands.cancel,
        task_commands.requeue,
        logs,
    ),
    "What happens, and why": (
        dispatch_commands.status,
        top,
        dispatch_commands.explain,
        dispatch_commands.stats,
        dispatch_commands.history,
        events,
        dispatch_commands.slots,
        dispatch_commands.tick,
        psql,
    ),
    "Overrides": (
        breaker_commands.breakers,
        breaker_commands.reset,
        breaker_commands.trip,
        override_commands.drain,
        override_commands.billing,
        override_commands.cap,
        settings_commands.settings,
        settings_commands.audit,
    ),
    "One executor": (run_commands.runs, run_commands.run, run_commands.resources, run_commands.backends),
}


class _Root(click.Group):
    """Lists its commands by what they are about."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for word in args:
            try:
                word.encode("utf-8")
            except UnicodeEncodeError:
                raise click.UsageError(f"{word!r} is no UTF-8 text") from None
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(len(command.name or "") for commands in GROUPS.values() for command in commands)
        limit = formatter.width - 6 - longest
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(command.name or "", command.get_short_help_str(limit)) for command in commands])


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("cecelia-dispatch"), message="%(version)s")
@common_options(root=True)
def cli() -> None:
    """Operate the cecelia dispatch: what runs, what waits, and why.

    \b
    Example:
      dispatchctl up --samples deploy/examples
      dispatchctl submit --title "Tidy it" --description "Split it up" --wait
      dispatchctl explain

    Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 unreachable, 5 refused, 6 held by a gate, 7 the task failed,
    130 Ctrl-C.

    DISPATCH_CONFIG_FILE names a TOML file of profiles, DISPATCH_PROFILE one of its [profiles.NAME] with address, executor,
    timeout and output. A flag wins over the environment, that over the profile.
    """


for _commands in GROUPS.values():
    for _command in _commands:
        cli.add_command(_command)
