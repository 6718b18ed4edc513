"""Following tasks until they end, or until a gate has held one for too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import status_word
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.rendering import clean

ENDED = frozenset({pb.TASK_STATUS_COMPLETED, pb.TASK_STATUS_FAILED, pb.TASK_STATUS_CANCELLED, pb.TASK_STATUS_QUARANTINED})
# The task's own holds: waiting for them is what the caller asked for.
OWN_HOLDS = frozenset({"not_before", "backoff", "dependency", "cancel_requested"})
LOOK_S = 1.0
UNREACHABLE_S = 30.0
REOPEN_S = 0.5


async def changes(client: SchedulerClient, task_id: str) -> AsyncIterator[pb.Task]:
    """The task at each change until it ends. Survives a scheduler that is away for less than 30 s. Raises Failure."""
    loop = asyncio.get_running_loop()
    heard = loop.time()
    while True:
        try:
            request = pb.WatchTaskRequest(task_id=task_id)
            async for message in client.stream(client.stub.WatchTask, request):
                heard = loop.time()
                yield message.task
                if message.task.status in ENDED:
                    return
        except Failure as failure:
            if failure.status is not ExitStatus.UNREACHABLE or loop.time() - heard > UNREACHABLE_S:
                raise
        await asyncio.sleep(REOPEN_S)


async def wait_for_end(
    client: SchedulerClient, task: pb.Task, max_hold_s: float, say: Callable[[str], None]
) -> tuple[pb.Task, Failure | None]:
    """The task as it is at last, and the hold when a gate has held it for `max_hold_s` seconds on end."""
    loop = asyncio.get_running_loop()
    stream = changes(client, task.id)
    following = asyncio.ensure_future(anext(stream))
    held_since: float | None = None
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=min(LOOK_S, max_hold_s))
            if done:
                before, task = task, following.result()
                if task.status != before.status:
                    say(f"{status_word(task.status)}{f' on {task.executor_id}' if task.executor_id else ''}")
                if task.status in ENDED:
                    return task, None
                following = asyncio.ensure_future(anext(stream))
                continue
            hold = await _hold(client, task) if task.status == pb.TASK_STATUS_QUEUED else None
            held_since = None if hold is None else held_since if held_since is not None else loop.time()
            if hold is not None and held_since is not None and loop.time() - held_since >= max_hold_s:
                return task, hold
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator


def _unseen(_tasks: Collection[pb.Task]) -> None:
    """Looks at nothing."""


async def wait_for_all(
    client: SchedulerClient,
    tasks: Sequence[pb.Task],
    max_hold_s: float,
    say: Callable[[str], None],
    seen: Callable[[Collection[pb.Task]], None] = _unseen,
) -> tuple[list[pb.Task], Failure | None]:
    """The tasks as they are at last, in their order, and the hold when a gate has held a backend's tasks for too long.

    `say` is told of each change, `seen` is given all tasks each time they have been read.

    Does not wait for those behind a quarantined one: that takes a person. One stream a task would be too many, so those that
    have not ended are read each second.
    """
    loop = asyncio.get_running_loop()
    found = {task.id: task for task in tasks}
    held_since: dict[str, float] = {}
    heard = loop.time()
    while True:
        try:
            await _read_again(client, found, say)
            heard = loop.time()
        except Failure as failure:
            if failure.status is not ExitStatus.UNREACHABLE or loop.time() - heard > UNREACHABLE_S:
                raise
        seen(found.values())
        if all(task.status in ENDED or task.id in _stuck(found) for task in found.values()):
            return list(found.values()), None
        waiting = _first_waiting(found.values())
        held_since = {backend: since for backend, since in held_since.items() if backend in waiting}
        for backend, task in waiting.items():
            hold = await _hold(client, task)
            if hold is None:
                held_since.pop(backend, None)
            elif loop.time() - held_since.setdefault(backend, loop.time()) >= max_hold_s:
                return list(found.values()), hold
        await asyncio.sleep(min(LOOK_S, max(max_hold_s, 0.05)))


async def _read_again(client: SchedulerClient, found: dict[str, pb.Task], say: Callable[[str], None]) -> None:
    for id_, task in list(found.items()):
        if task.status not in ENDED:
            now = (await client.call(client.stub.GetTask, pb.GetTaskRequest(task_id=id_))).task
            if now.status != task.status:
                say(f"{status_word(now.status)}: {clean(now.title)}")
            found[id_] = now


def _stuck(found: Mapping[str, pb.Task]) -> set[str]:
    """The tasks that wait, directly or through others, for one of these that is quarantined."""
    stuck: set[str] = set()
    while True:
        more = {
            task.id
            for task in found.values()
            if task.status == pb.TASK_STATUS_QUEUED
            and any(o in stuck or (o in found and found[o].status == pb.TASK_STATUS_QUARANTINED) for o in task.depends_on)
        }
        if more <= stuck:
            return stuck
        stuck |= more


def _first_waiting(tasks: Iterable[pb.Task]) -> dict[str, pb.Task]:
    """By backend a task that may wait for a gate. A backend that runs one of the tasks has none: it gets on."""
    tasks = list(tasks)
    busy = {task.backend for task in tasks if task.status not in ENDED and task.status != pb.TASK_STATUS_QUEUED}
    waiting: dict[str, pb.Task] = {}
    for task in tasks:
        if task.status == pb.TASK_STATUS_QUEUED and task.hold_reason not in OWN_HOLDS and task.backend not in busy:
            waiting.setdefault(task.backend, task)
    return waiting


async def _hold(client: SchedulerClient, task: pb.Task) -> Failure | None:
    try:
        said = await client.call(client.stub.ExplainDispatch, pb.ExplainDispatchRequest(task_id=task.id))
    except Failure as failure:
        if failure.status is ExitStatus.UNREACHABLE:
            return None
        raise
    if said.would_dispatch or not said.task_reason or said.task_reason in OWN_HOLDS:
        return None
    return Failure(
        f"{task.id} is held and stays queued",
        f"{said.task_reason}: {said.sentence}",
        f"look at: dispatchctl explain {task.id}; or wait longer with --max-hold",
        ExitStatus.HELD,
    )
