"""One command: parses, runs, and turns what went wrong into three lines and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from dispatchctl.cli import cli
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.rendering import clean, discard, note
from dispatchctl.session import Session

# The reader has closed the pipe, or the terminal is gone: nobody is left to be told.
_NO_READER = frozenset({errno.EPIPE, errno.EIO})


def _usage(error: click.UsageError) -> Failure:
    path = error.ctx.command_path if error.ctx is not None else "dispatchctl"
    return Failure(
        f"{path} was not called as it should be",
        f"usage: {error.format_message().rstrip('.') or 'the command is incomplete'}",
        f"see: {path} -h",
        ExitStatus.USAGE,
    )


def _tell(failure: Failure) -> int:
    for line in failure.lines():
        indent = len(line) - len(line.lstrip())
        note(" " * indent + clean(line))
    return int(failure.status)


def _unwritable(error: OSError) -> int:
    discard(sys.stdout)
    if error.errno in _NO_READER:
        return ExitStatus.FAILED
    what = f"{error.filename} cannot be used" if error.filename else "standard output cannot be written"
    return _tell(Failure(what, f"io_failed: {error.strerror}", "make room, or use another place"))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    try:
        return _run(arguments)
    except click.exceptions.NoArgsIsHelpError as error:
        note(error.format_message())
        return ExitStatus.USAGE
    except click.UsageError as error:
        return _tell(_usage(error))
    except click.ClickException as error:
        return _tell(Failure(error.format_message(), "file: it cannot be read", "name another one", ExitStatus.USAGE))
    except Failure as failure:
        return _tell(failure)
    except click.Abort as abort:
        if abort.__cause__ is None:
            # It came at a prompt, whose line is not ended yet; elsewhere click has written the break.
            note("")
        return ExitStatus.INTERRUPTED
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except UnicodeDecodeError as error:
        return _tell(Failure("the input is no UTF-8 text", f"bad_text: {error}", "convert it to UTF-8", ExitStatus.USAGE))
    except OSError as error:
        return _unwritable(error)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        status = cli.main(args=arguments, prog_name="dispatchctl", standalone_mode=False, obj=Session())
    except SystemExit as left:
        if not left.code:
            # What the shell was to offer has been written.
            return ExitStatus.DONE
        # What click does when the reader has gone.
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from left
    sys.stdout.flush()
    return int(status or 0)
