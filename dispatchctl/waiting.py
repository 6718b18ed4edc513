"""Following a task until it ends, or until a gate has held it for too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import status_word
from dispatchctl.failures import ExitStatus, Failure

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
            async for message in client.stream(client.stub.WatchTask, request, see="dispatchctl tasks"):
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
