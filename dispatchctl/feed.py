"""What happens in the scheduler, as lines, as it happens: events from the stream, refused starts from the decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import outcome_line, run_time
from dispatchctl.event_lines import decision_line, ends_task, event_line, fields_of, in_columns
from dispatchctl.failures import Failure
from dispatchctl.rendering import cut, moment, terminal_width

POLL_S = 0.5
REOPEN_S = 0.5
PAGE = 200
EARLIER_MAX = 500
TITLES_MAX = 10_000
TIME_COLUMNS = 10
# What the event of the task's quarantine says as well.
TOLD_BY_EVENT = frozenset({"pre_flight_check_failed"})
NOT_ENDED = (pb.TASK_STATUS_QUEUED, pb.TASK_STATUS_DISPATCHING, pb.TASK_STATUS_RUNNING)


class Feed:
    """Follows one scheduler, over its restarts. `earlier` has the tasks that were there before it, `ended` those that ended."""

    def __init__(self, client: SchedulerClient, say: Callable[[str], None]) -> None:
        self._client = client
        self._say = say
        self._last_event_id = -1
        self._last_decision_id = 0
        self._titles: dict[str, str] = {}
        self._begun = self._shown = datetime.now(UTC)
        self._last_hold = ""
        self._repeats = 0
        self.earlier: set[str] = set()
        self.ended: set[str] = set()

    async def begin(self) -> None:
        """Notes where the decisions and the events are now, so that nothing older is shown and nothing newer missed."""
        stub = self._client.stub
        newest = await self._client.call(stub.ListDispatchEvents, pb.ListDispatchEventsRequest(page_size=1))
        self._last_decision_id = newest.events[0].id if newest.events else 0
        self._last_event_id = await self._client.newest_event_id()
        unfinished = pb.ListTasksRequest(page_size=EARLIER_MAX, statuses=NOT_ENDED)
        for task in (await self._client.call(stub.ListTasks, unfinished)).tasks:
            self.earlier.add(task.id)
            self.title(task.id, task.title)
        self._begun = self._shown = datetime.now(UTC)

    def title(self, task_id: str, title: str) -> None:
        """Remembers a task's title for decisions, which carry only its id."""
        if len(self._titles) >= TITLES_MAX:
            self._titles.pop(next(iter(self._titles)))
        self._titles[task_id] = title

    def line(self, text: str, at: datetime | None = None) -> None:
        """One line with the time since the beginning; what is learnt late has the time of what is shown already."""
        self.pause()
        self._shown = max(self._shown, at or datetime.now(UTC))
        seconds = (self._shown - self._begun).total_seconds()
        self._say(cut(f"{seconds:7.1f}s  {text}", terminal_width()))

    def tell(self, word: str, who: str, said: str) -> None:
        """A line of our own in the columns of the others."""
        self.line(in_columns(word, who, "", said, self._width()))

    def _width(self) -> int | None:
        width = terminal_width()
        return None if width is None else width - TIME_COLUMNS

    def _whose(self, task_id: str) -> str:
        return "earlier: " if task_id in self.earlier else ""

    def pause(self) -> None:
        """Says what was held back, before something else is written."""
        repeats, self._repeats, self._last_hold = self._repeats, 0, ""
        if repeats:
            self._say(f"{'':7}   (the last line {repeats} more {'time' if repeats == 1 else 'times'})")

    async def follow_events(self) -> None:
        """Shows events; never returns."""
        while True:
            try:
                request = pb.WatchEventsRequest(after_event_id=self._last_event_id)
                async for message in self._client.stream(self._client.stub.WatchEvents, request):
                    await self._show_once(message.event)
            except Failure:
                # The scheduler is being started again, or its supervisor says why not.
                pass
            await asyncio.sleep(REOPEN_S)

    async def _show_once(self, event: pb.Event) -> None:
        # A stream that is opened anew need not begin exactly where the last one broke off.
        if event.id > self._last_event_id:
            await self._show(event)
            self._last_event_id = event.id

    async def _show(self, event: pb.Event) -> None:
        task_id = str(fields_of(event).get("task_id", ""))
        outcome = took = ""
        ended = ends_task(event)
        if ended:
            found = (await self._client.call(self._client.stub.GetTask, pb.GetTaskRequest(task_id=task_id))).task
            outcome, took = outcome_line(found), run_time(found)
        self.line(event_line(event, outcome, took, width=self._width(), whose=self._whose(task_id)), moment(event.time))
        if ended:
            self.ended.add(task_id)

    async def follow_decisions(self) -> None:
        """Shows what was not started and why; a gate that holds tick after tick is one line and a count. Never returns."""
        while True:
            try:
                for event in await self._new_decisions():
                    self._show_decision(event)
                    self._last_decision_id = event.id
            except Failure:
                # As above.
                pass
            await asyncio.sleep(POLL_S)

    async def _new_decisions(self) -> list[pb.DispatchEvent]:
        request = pb.ListDispatchEventsRequest(page_size=PAGE, success=False)
        page = await self._client.call(self._client.stub.ListDispatchEvents, request)
        return sorted((e for e in page.events if e.id > self._last_decision_id), key=lambda e: e.id)

    def _show_decision(self, event: pb.DispatchEvent) -> None:
        if event.reason in TOLD_BY_EVENT:
            return
        hold = "" if event.task_id else f"{event.reason} {event.backend}"
        if hold and hold == self._last_hold:
            self._repeats += 1
            return
        title = f"{self._whose(event.task_id)}{self._titles.get(event.task_id, '')}"
        self.line(decision_line(event, title, self._width()), moment(event.time))
        self._last_hold = hold
