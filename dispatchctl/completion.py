"""What the shell offers while a word is being typed: asked of the scheduler, and nothing where it does not answer at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from click.shell_completion import CompletionItem

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import state_word, status_word
from dispatchctl.failures import Failure
from dispatchctl.parameters import STATUSES
from dispatchctl.rendering import clean
from dispatchctl.session import Session

# Somebody waits at the keyboard.
ANSWER_S = 0.3
PAGE = 500

Words = list[tuple[str, str]]
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completer(fetch: Callable[[SchedulerClient], Coroutine[Any, Any, Words]], *, upper: bool = False) -> Completer:
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        begun = incomplete.upper() if upper else incomplete
        found = asyncio.run(_ask(ctx, fetch))
        return [CompletionItem(word, help=clean(said) or None) for word, said in found if word.startswith(begun)]

    return complete


async def _ask(ctx: click.Context, fetch: Callable[[SchedulerClient], Coroutine[Any, Any, Words]]) -> Words:
    session = ctx.find_object(Session) or Session()
    try:
        async with asyncio.timeout(ANSWER_S), SchedulerClient(session.address, ANSWER_S) as client:
            return await fetch(client)
    except (Failure, TimeoutError):
        # What cannot be told now is typed by hand; the command itself says what is wrong.
        return []


def tasks_that_are(*statuses: str) -> Completer:
    """Completes the ids of the newest tasks with one of these statuses; none: of all."""
    wanted = [STATUSES[status] for status in statuses]

    async def fetch(client: SchedulerClient) -> Words:
        page = await client.call(client.stub.ListTasks, pb.ListTasksRequest(page_size=PAGE, statuses=wanted))
        return [(task.id, f"{status_word(task.status)}: {task.title}") for task in page.tasks]

    return _completer(fetch)


async def _breakers(client: SchedulerClient) -> Words:
    page = await client.call(client.stub.ListBreakers, pb.ListBreakersRequest())
    return [(breaker.key, state_word(breaker.state)) for breaker in page.breakers]


async def _settings(client: SchedulerClient) -> Words:
    page = await client.call(client.stub.ListSettings, pb.ListSettingsRequest())
    return [(setting.name, f"{setting.value} {setting.unit}".rstrip()) for setting in page.settings]


ANY_TASK = tasks_that_are()
CHANGEABLE = tasks_that_are("queued", "quarantined")
BREAKER = _completer(_breakers)
SETTING = _completer(_settings, upper=True)
