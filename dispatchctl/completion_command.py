"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dispatchctl.failures import ExitStatus
from dispatchctl.rendering import write

PROGRAM = "dispatchctl"
# As click makes it of the program's name.
VARIABLE = "_DISPATCHCTL_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print what makes a shell complete commands, options, tasks, breakers and settings.

    What the scheduler knows completes where it answers within 300 ms.

    \b
    Example:
      dispatchctl completion bash

    \b
    bash: eval "$(dispatchctl completion bash)" in ~/.bashrc
    zsh:  eval "$(dispatchctl completion zsh)" in ~/.zshrc, after compinit
    fish: dispatchctl completion fish | source, in ~/.config/fish/config.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise AssertionError(f"click knows no {shell}")
    write(made(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())
    return ExitStatus.DONE
