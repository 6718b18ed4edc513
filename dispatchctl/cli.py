"""The root command and what hangs below it."""

from __future__ import annotations

from importlib.metadata import version

import click

from dispatchctl import dispatch_commands, override_commands, task_commands
from dispatchctl.session import common_options
from dispatchctl.up_command import up


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("cecelia-dispatch"), message="%(version)s")
@common_options(root=True)
def cli() -> None:
    """Operate the cecelia dispatch: what runs, what waits, and why.

    \b
    dispatchctl up --samples deploy/examples  both services here, with samples
    dispatchctl submit --title "Tidy it" --description "Split it by table." --wait
    dispatchctl explain                       why nothing starts

    Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 unreachable, 5 refused, 6 held by a gate, 7 the task failed,
    130 Ctrl-C.
    """


for _command in (
    up,
    task_commands.submit,
    task_commands.tasks,
    task_commands.task,
    task_commands.cancel,
    task_commands.requeue,
    dispatch_commands.status,
    dispatch_commands.stats,
    dispatch_commands.explain,
    dispatch_commands.decisions,
    dispatch_commands.events,
    dispatch_commands.tick,
    override_commands.breakers,
    override_commands.reset,
    override_commands.trip,
    override_commands.drain,
):
    cli.add_command(_command)
