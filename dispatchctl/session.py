"""What every command is told: where the services are, how long a call may take, how to print, whether to ask."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import click

from dispatchctl.client import ExecutorClient, SchedulerClient
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.parameters import ADDRESS, POSITIVE_DURATION
from dispatchctl.profiles import load_profile
from dispatchctl.up_plan import reachable

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_EXECUTOR = "127.0.0.1:50052"
DEFAULT_TIMEOUT_S = 10.0
NO_REASON = "no reason given"


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    NAME = "name"


TABLES = (Output.TABLE, Output.WIDE)
_OUTPUT = click.Choice([output.value for output in Output])
_PROFILE_KEYS = MappingProxyType({"address": ADDRESS, "executor": ADDRESS, "timeout": POSITIVE_DURATION, "output": _OUTPUT})


@dataclass(frozen=True)
class Session:
    """The options that all commands share: `given` by flag or environment, else from the profile, else the default."""

    given: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def profile(self) -> Mapping[str, Any]:
        """The profile; read when an option is needed, so that help needs none. Raises Failure."""
        return load_profile(os.environ, _PROFILE_KEYS)

    def _option(self, name: str, default: Any) -> Any:
        return self.given[name] if name in self.given else self.profile.get(name, default)

    @property
    def address(self) -> str:
        """The scheduler, host:port."""
        return reachable(self._option("address", DEFAULT_ADDRESS))

    @property
    def executor(self) -> str:
        """The executor, host:port; '' when none was named."""
        named = self._option("executor", "")
        return reachable(named) if named else ""

    @property
    def timeout_s(self) -> float:
        """How long a call may take, in seconds."""
        return float(self._option("timeout", DEFAULT_TIMEOUT_S))

    @property
    def output(self) -> Output:
        """How data is printed."""
        return Output(self._option("output", Output.TABLE))

    @property
    def yes(self) -> bool:
        """Whether questions are answered by yes."""
        return "yes" in self.given

    @property
    def may_ask(self) -> bool:
        """Whether there is a person to ask."""
        return "no_input" not in self.given and sys.stdin.isatty() and sys.stderr.isatty()

    def run(self, work: Callable[[SchedulerClient], Coroutine[Any, Any, T]]) -> T:
        """The result of some work with a scheduler. Raises Failure."""

        async def main() -> T:
            async with SchedulerClient(self.address, self.timeout_s) as client:
                return await work(client)

        return asyncio.run(main())

    def run_with_executor(self, work: Callable[[ExecutorClient], Coroutine[Any, Any, T]]) -> T:
        """The result of some work with an executor. Raises Failure."""

        async def main() -> T:
            async with ExecutorClient(self.executor or DEFAULT_EXECUTOR, self.timeout_s) as client:
                return await work(client)

        return asyncio.run(main())

    def reason(self, given: str | None) -> str:
        """Why an override is made: as given, else as a person at the terminal says, else that nobody said it."""
        if given is not None:
            return given
        if not self.may_ask or self.yes:
            return NO_REASON
        return str(click.prompt("reason", default=NO_REASON, err=True)).strip() or NO_REASON

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
            ctx.obj = Session(MappingProxyType({**ctx.obj.given, name: value}))

    return callback


def _shared(name: str, *flags: str, **more: Any) -> Callable[[F], F]:
    return click.option(*flags, expose_value=False, callback=_setter(name), **more)


def common_options(*, timeout: bool = True, executor: bool = False, root: bool = False) -> Callable[[F], F]:
    """The shared options, taken before the command's name and after it; the later one wins, over the environment too."""
    options = [
        _shared(
            "output",
            "-o",
            "--output",
            type=_OUTPUT,
            help="How to print data; table by default.",
        ),
        _shared(
            "address",
            "--address",
            type=ADDRESS,
            # Read once, at the root: a flag there wins over it too.
            envvar="DISPATCH_ADDRESS" if root else None,
            metavar="HOST:PORT",
            help=f"The scheduler; {DEFAULT_ADDRESS} by default. [DISPATCH_ADDRESS]",
        ),
        _shared("yes", "--yes", is_flag=True, help="Do not ask."),
        _shared("no_input", "--no-input", is_flag=True, help="Never prompt; fail where an answer is needed."),
    ]
    if executor:
        options[1:1] = [
            _shared(
                "executor",
                "--executor",
                type=ADDRESS,
                envvar="EXECUTOR_GRPC_ADDRESS",
                metavar="HOST:PORT",
                help=f"The executor; {DEFAULT_EXECUTOR} by default. [EXECUTOR_GRPC_ADDRESS]",
            )
        ]
    if timeout:
        options.append(
            _shared(
                "timeout",
                "--timeout",
                type=POSITIVE_DURATION,
                metavar="DURATION",
                help=f"How long a call may take, or a stream to open; {DEFAULT_TIMEOUT_S:g}s by default.",
            )
        )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def new_request_id() -> str:
    """An id under which a call can be repeated without being carried out twice."""
    return str(uuid.uuid4())
