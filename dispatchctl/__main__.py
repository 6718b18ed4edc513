"""`dispatchctl`: parses, runs, and turns what went wrong into three lines and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from dispatchctl.cli import cli
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.rendering import clean
from dispatchctl.session import Session


def _usage(error: click.UsageError) -> Failure:
    path = error.ctx.command_path if error.ctx is not None else "dispatchctl"
    return Failure(
        error.format_message().rstrip(".") or "the command is incomplete",
        f"usage: {path} was not called as it should be",
        f"see: {path} -h",
        ExitStatus.USAGE,
    )


def _tell(failure: Failure) -> int:
    for line in failure.lines():
        indent = len(line) - len(line.lstrip())
        print(" " * indent + clean(line), file=sys.stderr)
    return int(failure.status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    try:
        status = cli.main(args=arguments, prog_name="dispatchctl", standalone_mode=False, obj=Session())
        sys.stdout.flush()
        return int(status or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return ExitStatus.USAGE
    except click.UsageError as error:
        return _tell(_usage(error))
    except click.ClickException as error:
        return _tell(Failure(error.format_message(), "file: it cannot be read", "name another one", ExitStatus.USAGE))
    except Failure as failure:
        return _tell(failure)
    except (KeyboardInterrupt, click.Abort):
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        # The reader has gone; the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except UnicodeDecodeError as error:
        return _tell(Failure("the input is no UTF-8 text", f"bad_text: {error}", "convert it to UTF-8", ExitStatus.USAGE))


if __name__ == "__main__":
    sys.exit(main())
