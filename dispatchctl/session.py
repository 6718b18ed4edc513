"""What every command is told: where the scheduler is, how long a call may take, how to print, whether to ask."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import click

from dispatchctl.client import SchedulerClient
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.parameters import ADDRESS, DURATION

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_REASON = "dispatchctl"


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Session:
    """The options that all commands share."""

    address: str = DEFAULT_ADDRESS
    timeout_s: float = DEFAULT_TIMEOUT_S
    output: Output = Output.TABLE
    yes: bool = False
    no_input: bool = False

    @property
    def may_ask(self) -> bool:
        """Whether there is a person to ask."""
        return not self.no_input and sys.stdin.isatty() and sys.stderr.isatty()

    def run(self, work: Callable[[SchedulerClient], Coroutine[Any, Any, T]]) -> T:
        """The result of some work with a client."""

        async def main() -> T:
            async with SchedulerClient(self.address, self.timeout_s) as client:
                return await work(client)

        return asyncio.run(main())

    def reason(self, given: str | None) -> str:
        """Why an override is made: as given, else as a person at the terminal says, else `dispatchctl`."""
        if given is not None:
            return given
        if not self.may_ask or self.yes:
            return DEFAULT_REASON
        return str(click.prompt("reason", default=DEFAULT_REASON, err=True))

    def confirm(self, question: str) -> None:
        """Asks before something that cannot be undone. Raises Failure when it is not to be done."""
        if self.yes:
            return
        if not self.may_ask:
            raise Failure(
                "this needs a yes", "confirmation_required: there is no terminal to ask at", "pass --yes", ExitStatus.USAGE
            )
        if not click.confirm(question, err=True):
            raise Failure("nothing was done", "declined: the answer was no", "pass --yes to skip the question")


def _setter(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value is not None and value is not False:
            ctx.obj = replace(ctx.obj, **{name: Output(value) if name == "output" else value})

    return callback


def common_options(*, timeout: bool = True, root: bool = False) -> Callable[[F], F]:
    """The shared options, taken before the command's name and after it; the later one wins, over the environment too."""

    def add(command: F) -> F:
        options: list[Callable[[F], F]] = [
            click.option(
                "-o",
                "--output",
                type=click.Choice([o.value for o in Output]),
                expose_value=False,
                callback=_setter("output"),
                help="How to print data; table by default.",
            ),
            click.option(
                "--address",
                type=ADDRESS,
                # Read once, at the root: a flag there wins over it too.
                envvar="DISPATCH_ADDRESS" if root else None,
                expose_value=False,
                metavar="HOST:PORT",
                callback=_setter("address"),
                help=f"The scheduler; {DEFAULT_ADDRESS} by default. [DISPATCH_ADDRESS]",
            ),
            click.option("--yes", is_flag=True, expose_value=False, callback=_setter("yes"), help="Do not ask."),
            click.option(
                "--no-input",
                is_flag=True,
                expose_value=False,
                callback=_setter("no_input"),
                help="Never prompt; fail where an answer is needed.",
            ),
        ]
        if timeout:
            options.append(
                click.option(
                    "--timeout",
                    type=DURATION,
                    expose_value=False,
                    callback=_setter("timeout_s"),
                    metavar="DURATION",
                    help=f"How long a call may take; {DEFAULT_TIMEOUT_S:g}s by default.",
                )
            )
        for option in reversed(options):
            command = option(command)
        return command

    return add


def new_request_id() -> str:
    """An id under which a call can be repeated without being carried out twice."""
    return str(uuid.uuid4())


def caller() -> str:
    """Who makes an override, as far as this machine knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"
