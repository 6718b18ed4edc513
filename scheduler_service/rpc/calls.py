"""What every rpc stands on: reading and writing through transaction scripts, and errors in the callers' words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

import grpc
from google.protobuf.message import Message

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.run import ExecutorReport
from scheduler_service.core.tuning import Configured, SettingValue
from scheduler_service.errors import NotLeader, StorageUnavailable
from scheduler_service.rpc.shared_reads import SharedReads
from scheduler_service.transactions.idempotency import AnswerForm, once
from scheduler_service.transactions.planning import Decision, TickMemory
from scheduler_service.transactions.ports import Database, Transaction
from service_runtime.clock import Clock
from service_runtime.errors import FailedPrecondition, ResourceExhausted, Unavailable
from service_runtime.identity import actor_of

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")
M = TypeVar("M", bound=Message)

STREAMS_MAX = 200


class LeaderPart(Protocol):
    """This replica's part in leading, as the rpcs see it."""

    @property
    def leading(self) -> bool: ...
    @property
    def tick_error(self) -> str: ...
    @property
    def tick_memory(self) -> TickMemory: ...
    def wake(self) -> None: ...
    def wake_links(self) -> None: ...
    async def run_tick(self) -> list[Decision]: ...


class Observer(Protocol):
    """Is told which breakers an operator has moved and which drains are over, after it was committed."""

    def breakers_moved(self, breakers: Iterable[Breaker]) -> None: ...
    def drains_ended(self, took: Iterable[timedelta]) -> None: ...


class Configuration(Protocol):
    """The settings that can change at run time, as the environment has them."""

    def configured(self) -> Mapping[str, Configured]:
        """By name, without overrides."""
        ...

    def value_of(self, name: str, text: str) -> SettingValue:
        """The value that a text stands for in the environment. Raises SettingsError."""
        ...


class Fleet(Protocol):
    """The executors as this replica knows them: from their streams while it leads, else from what the leader stored."""

    async def reports(self) -> Sequence[ExecutorReport]: ...
    async def silent_targets(self) -> Sequence[str]: ...


class Outputs(Protocol):
    """Reads outputs where they are."""

    def read(
        self, target: str, run_id: UUID, offset: int, tail_bytes: int, *, follow: bool
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Pieces with the offset of their first byte. Raises OutputGone, ExecutorUnreachable."""
        ...


class Rung:
    """Waits for the next ring after it was taken."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, seconds: float) -> None:
        """Returns at the ring, or after this time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


class Bell:
    """Rings whoever waits for news; what was committed elsewhere is found by looking now and then."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """There is news."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    def ring_after(self) -> Rung:
        """The next ring from now on: take it before looking, wait for it afterwards."""
        return Rung(self._event)


def body_of(request: Any) -> bytes:
    """A request as it was sent, by which a repetition is known; b'' for one without request_id, which has none."""
    body: bytes = request.SerializeToString(deterministic=True) if request.request_id else b""
    return body


def caller_of(context: Context) -> str:
    """Who calls, for the audit log."""
    return actor_of(context.invocation_metadata(), context.peer())


@contextlib.contextmanager
def callers_words() -> Iterator[None]:
    """Our errors as what callers may see."""
    try:
        yield
    except StorageUnavailable as error:
        raise Unavailable(
            "the database does not answer; try again", reason="STORAGE_UNAVAILABLE", retry_after=timedelta(seconds=1)
        ) from error
    except NotLeader as error:
        where = f"; the leader is {error.address}" if error.address else ""
        raise FailedPrecondition(f"this replica does not lead{where}", reason="not_leader") from error


class Calls:
    """Base of the rpcs: the database, the rules, and this replica's part in leading.

    `rules` are those of the environment; what operators have changed is read in each transaction.
    """

    def __init__(
        self,
        database: Database,
        rules: DispatchRules,
        leader: LeaderPart,
        fleet: Fleet,
        bell: Bell,
        observer: Observer,
        outputs: Outputs,
        configuration: Configuration,
        clock: Clock,
        *,
        version: str,
    ) -> None:
        self._database = database
        self._rules = rules
        self._leader = leader
        self._fleet = fleet
        self._bell = bell
        self._observer = observer
        self._outputs = outputs
        self._configuration = configuration
        self._clock = clock
        self._version = version
        self._streams = 0
        self._shared_reads = SharedReads()

    async def _read(self, work: Callable[[Transaction], Awaitable[T]], *, begins_with_standing: bool = False) -> T:
        with callers_words():
            return await self._database.run(work, read_only=True, begins_with_standing=begins_with_standing)

    async def _shared(self, request: Message, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` finds for a request, or found for another caller's that says the same: rpc/shared_reads.py."""
        return await self._shared_reads.read((type(request), request.SerializeToString(deterministic=True)), read)

    async def _write(self, method: str, request: Any, work: Callable[[Transaction], Awaitable[M]], response_type: type[M]) -> M:
        """Does `work` once for its request_id; a repeated call gets the first answer."""
        body, form = body_of(request), AnswerForm(response_type.SerializeToString, response_type.FromString)
        with callers_words():
            return await self._database.run(lambda tx: once(tx, method, request.request_id, body, work, form))

    def _wake(self) -> None:
        self._leader.wake()

    @contextlib.asynccontextmanager
    async def _stream_slot(self) -> AsyncIterator[None]:
        """Room for one more long-lived stream."""
        if self._streams >= STREAMS_MAX:
            raise ResourceExhausted(
                f"{STREAMS_MAX} streams are open already", reason="TOO_MANY_STREAMS", retry_after=timedelta(seconds=5)
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
