"""Both services as programs: started, killed and spoken to as an operator would, on ports that the system chose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
from cecelia.executor.v1 import executor_service_pb2_grpc as executor_grpc
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

T = TypeVar("T")
READY_S = 60.0
SETTLE_S = 60.0
DESCRIPTION = "A description that is long enough for pre-flight to let it pass."
ENDED = {pb.TASK_STATUS_COMPLETED, pb.TASK_STATUS_FAILED, pb.TASK_STATUS_CANCELLED, pb.TASK_STATUS_QUARANTINED}

# Appends a line when it starts and when it ends, so that the services cannot lie about how often it ran.
WITNESS = """#!/bin/sh
echo "start $1 $2" >> "{ledger}"
sleep {seconds}
echo "end $1 $2" >> "{ledger}"
cat "$3"
"""


class Program:
    """One service as a process. Its ports stay the same over restarts."""

    def __init__(self, module: str, env: dict[str, str], data_dir: Path, log: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix`: a command that starts the one behind it, such as nice."""
        self._module = module
        self._prefix = prefix
        self._env = env
        self._data_dir = data_dir
        self.log = log
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.http_port = 0

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def begin(self) -> None:
        """Starts it, whatever comes of it."""
        with self.log.open("ab") as log:
            command = [*self._prefix, sys.executable, "-m", self._module]
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )

    async def start(self) -> None:
        """Starts it and waits until it is SERVING."""
        ports = self._data_dir / "ports.json"
        ports.unlink(missing_ok=True)
        await self.begin()
        async with asyncio.timeout(READY_S):
            while not ports.exists():
                assert self._process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)
            found = json.loads(ports.read_text())
            self.port, self.http_port = found["grpc"], found["http"]
            for kind in ("GRPC", "HTTP"):
                name = f"{self._module.split('_')[0].upper()}_{kind}_ADDRESS"
                self._env[name] = f"127.0.0.1:{found[kind.lower()]}"
            await self._serving()

    async def _serving(self) -> None:
        async with channel_to(self.port) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """As if the power had gone."""
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals it and waits for its end; its exit status."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(SETTLE_S):
            return await self._process.wait()


def channel_to(port: int) -> grpc.aio.Channel:
    """A channel that reconnects soon."""
    options = (("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_http_proxy", 0))
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)


class Pair:
    """A scheduler and an executor, with a command that bears witness."""

    def __init__(self, folder: Path, database_url: str, **settings: str) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.command = folder / "command"
        self.write_command(seconds=0.2)
        base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        base |= {
            "SCHEDULER_GRPC_ADDRESS": "127.0.0.1:0",
            "SCHEDULER_HTTP_ADDRESS": "127.0.0.1:0",
            "EXECUTOR_GRPC_ADDRESS": "127.0.0.1:0",
            "EXECUTOR_HTTP_ADDRESS": "127.0.0.1:0",
            "EXECUTOR_ID": "host-a",
            "EXECUTOR_DATA_DIR": str(folder / "executor"),
            "DISPATCH_DATA_DIR": str(folder / "scheduler"),
            "DATABASE_URL": database_url,
            "CECELIA_RUN_PATH": str(self.command),
            "HK_MINIMAX_URL": "http://127.0.0.1:9",
            # A busy test machine must not look overloaded: its CPU does not count, many small tasks fit, and nobody sits at it.
            "CPU_THRESHOLD_PCT": "1000000",
            "CPU_PER_TASK": "0.02",
            "MEM_PER_TASK_MB": "10",
            "INTERACTIVE_RESERVE": "0",
            "SESSION_PROCESS_NAME": "",
            "TICK_INTERVAL_MS": "200",
            "LEADER_LEASE_MS": "1000",
            "RETRY_BACKOFF_MS": "100",
            **settings,
        }
        self.executor = Program("executor_service", dict(base), folder / "executor", folder / "executor.log")
        self.scheduler = Program("scheduler_service", dict(base), folder / "scheduler", folder / "scheduler.log")

    def write_command(self, *, seconds: float = 0.2, interpreter: str = "/bin/sh") -> None:
        """The command of the local bridge: waits, and notes its start and end."""
        text = WITNESS.format(ledger=self.ledger, seconds=seconds)
        new = self.command.with_suffix(".new")
        new.write_text(text.replace("/bin/sh", interpreter, 1))
        new.chmod(0o755)
        new.rename(self.command)

    async def start(self) -> None:
        """Starts the executor, then the scheduler that is told where it is."""
        await self.executor.start()
        self.scheduler._env["EXECUTOR_TARGETS"] = f"127.0.0.1:{self.executor.port}"
        await self.scheduler.start()

    async def stop(self) -> None:
        """Ends whatever still runs."""
        for program in (self.scheduler, self.executor):
            if program._process is not None:
                with contextlib.suppress(TimeoutError):
                    await program.end()

    @contextlib.asynccontextmanager
    async def calls(self) -> AsyncIterator[pb_grpc.SchedulerServiceAsyncStub]:
        """The scheduler's rpcs."""
        async with channel_to(self.scheduler.port) as channel:
            yield pb_grpc.SchedulerServiceStub(channel)  # type: ignore[misc]  # the async stub, as the channel is aio

    @contextlib.asynccontextmanager
    async def executor_calls(self) -> AsyncIterator[executor_grpc.ExecutorServiceAsyncStub]:
        """The executor's rpcs."""
        async with channel_to(self.executor.port) as channel:
            yield executor_grpc.ExecutorServiceStub(channel)  # type: ignore[misc]  # the async stub, as the channel is aio

    async def submit(self, count: int = 1, **fields: Any) -> list[str]:
        """Submits tasks that pass every check; their ids."""
        specs = [pb.TaskSpec(**{"title": f"Task number {i}", "description": DESCRIPTION, **fields}) for i in range(count)]
        async with self.calls() as stub:
            answer = await stub.SubmitTasks(pb.SubmitTasksRequest(tasks=specs), timeout=10)
        return [task.id for task in answer.tasks]

    async def tasks(self, ids: list[str]) -> list[pb.Task]:
        """Tasks as they are."""
        async with self.calls() as stub:
            return [(await stub.GetTask(pb.GetTaskRequest(task_id=id_), timeout=10)).task for id_ in ids]

    async def until_ended(self, ids: list[str]) -> list[pb.Task]:
        """Waits until tasks have ended."""

        async def ended() -> list[pb.Task] | None:
            found = await self.tasks(ids)
            return found if all(task.status in ENDED for task in found) else None

        return await eventually(ended)

    def starts(self) -> list[str]:
        """The task of each start that the ledger has."""
        return [line.split()[1] for line in self.ledger.read_text().splitlines() if line.startswith("start")]

    def ends(self) -> list[str]:
        """The task of each end that the ledger has."""
        return [line.split()[1] for line in self.ledger.read_text().splitlines() if line.startswith("end")]


async def eventually(look: Callable[[], Awaitable[T | None]], seconds: float = SETTLE_S) -> T:
    """What a look gives once it gives something; a scheduler that is away is waited for."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                found = await look()
                if found is not None and found is not False:
                    return found
            await asyncio.sleep(0.05)


def guards_of(folder: Path) -> Iterator[int]:
    """Guard processes of this executor that are alive."""
    for claim in folder.glob("executor/runs/*/claim"):
        pid = json.loads(claim.read_text())["pid"]
        with contextlib.suppress(OSError):
            if b"guard.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid
