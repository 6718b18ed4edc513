"""The peers of other packages: where they are, what each needs, how each is started. Absent when this machine has not got it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measuring.bench import Absent, Bench
from tests.bench.peers.programs import PEERS, PeerProgram, environment, running

REDIS_READY_S = 10.0


@dataclass(frozen=True)
class Peer:
    """A peer of another package. `command`: its program's words behind the interpreter; `jobs`: its backlog, short where it is slow."""

    package: str
    program: str
    jobs: int
    arguments: tuple[str, ...] = ()

    @property
    def on_redis(self) -> bool:
        """Whether its queue is in Redis; in PostgreSQL otherwise."""
        return self.package in ("celery", "dramatiq")

    @property
    def on_node(self) -> bool:
        """Whether it runs on Node.js; on Python otherwise."""
        return self.program.endswith(".mjs")


GRAPHILE_LOCAL = {
    "concurrentJobs": 24,
    "localQueue": {"size": 500, "refetchDelay": {"durationMs": 10}},
    "completeJobBatchDelay": 0,
    "failJobBatchDelay": 0,
}
PROCRASTINATE = Peer("procrastinate", "procrastinate_peer.py", 2_000)
GRAPHILE = Peer("graphile-worker", "graphile_peer.mjs", 6_000, (json.dumps({"concurrentJobs": 10}),))
GRAPHILE_QUEUE = Peer("graphile-worker", "graphile_peer.mjs", 20_000, (json.dumps(GRAPHILE_LOCAL),))
PG_BOSS = Peer("pg-boss", "pgboss_peer.mjs", 20_000)
CELERY = Peer("celery", "celery_peer.py", 2_500)
DRAMATIQ = Peer("dramatiq", "dramatiq_peer.py", 5_000)


@dataclass(frozen=True)
class RunningPeer:
    """A peer that answers. `settle`: waits until what was filled in is written; `pids`: the peer, and Redis if it is on Redis."""

    program: PeerProgram
    settle: Callable[[], Awaitable[None]]
    pids: tuple[int, ...]

    async def ask(self, words: str, expected: str, seconds: float = 300.0) -> None:
        """Says a line and takes the answer. Raises RuntimeError for another answer."""
        await self.program.say(words)
        await self.answer(expected, seconds)

    async def answer(self, expected: str, seconds: float = 300.0) -> None:
        """Takes a line. Raises RuntimeError for another one."""
        found = await self.program.line(seconds)
        if found != expected:
            raise RuntimeError(f"the peer answers {found!r} instead of {expected!r}")


@contextlib.asynccontextmanager
async def peer(bench: Bench, which: Peer, *, started_address: str = "") -> AsyncIterator[RunningPeer]:
    """A peer on a fresh store. Raises Absent."""
    command, cwd = _command(bench, which)
    with bench.scratch(which.package) as folder:
        async with contextlib.AsyncExitStack() as stack:
            pids: tuple[int, ...] = ()
            if which.on_redis:
                url, pid = await stack.enter_async_context(_redis(bench, folder))
                pids = (pid,)
            else:
                url = await stack.enter_async_context(bench.fresh_database(migrated=False))
            env = environment(STARTED_ADDRESS=started_address, **{"REDIS_URL" if which.on_redis else "DATABASE_URL": url})
            program = await stack.enter_async_context(running(command, env, folder / "log", cwd=cwd, ends_with_input=True))

            async def settle() -> None:
                if not which.on_redis:
                    await bench.settle(url)

            yield RunningPeer(program, settle, (program.pid, *pids))


def _command(bench: Bench, which: Peer) -> tuple[Sequence[str], Path]:
    program = str(PEERS / which.program)
    if which.on_node:
        folder = bench.state / "node"
        node = shutil.which("node")
        manifest = folder / "node_modules" / which.package / "package.json"
        if node is None:
            raise Absent("Node.js is not installed")
        if not manifest.exists():
            raise Absent(f"{which.package} is not in .bench/node: `make bench` installs it where npm can get it")
        bench.versions[which.package] = str(json.loads(manifest.read_text(encoding="utf-8"))["version"])
        return (node, program, *which.arguments), folder
    python = bench.state / "venv" / "bin" / "python"
    found = sorted(bench.state.glob(f"venv/lib/python*/site-packages/{which.package}-*.dist-info"))
    if not found:
        raise Absent(f"{which.package} is not in .bench/venv: `make bench` installs it where pip can get it")
    bench.versions[which.package] = found[-1].name.removeprefix(f"{which.package}-").removesuffix(".dist-info")
    return (str(python), program, *which.arguments), PEERS


@contextlib.asynccontextmanager
async def _redis(bench: Bench, folder: Path) -> AsyncIterator[tuple[str, int]]:
    """A Redis of this round alone, in memory: its URL, its process. Raises Absent."""
    program = shutil.which("redis-server")
    if program is None:
        raise Absent("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder))
    async with running((program, *words), environment(), folder / "redis.log", cwd=folder) as server:
        async with asyncio.timeout(REDIS_READY_S):
            while "eady to accept connections" not in (line := await server.line()):
                if version := re.search(r"version=([0-9.]+)", line):
                    bench.versions["Redis"] = version[1].rstrip(".")
        yield f"redis://127.0.0.1:{port}/0", server.pid
