"""procrastinate: two worker processes of ten jobs at once for a backlog; one that listens for the hand-off. Lines: lines.py."""

from __future__ import annotations

import asyncio
import sys

from lines import begun, serve, submitted, workers
from procrastinate_app import app, noop


async def work(*, backlog: bool) -> None:
    """A worker process: says that it is ready, and works when it reads a line; through a backlog, or for ever."""
    async with app.open_async():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await app.run_worker_async(concurrency=10, wait=not backlog, listen_notify=not backlog)


async def prepare() -> None:
    """The schema is there, and the app stays open."""
    await app.open_async()
    await app.schema_manager.apply_schema_async()


def main() -> None:
    with asyncio.Runner() as runner, workers() as start_worker:
        runner.run(prepare())

        def begin(*kinds: str) -> list[object]:
            processes = [start_worker(__file__, kind) for kind in kinds]
            for process in processes:
                process.stdout.readline()
            return processes

        def fill(count: str) -> str:
            for first in range(0, int(count), 1_000):
                runner.run(noop.batch_defer_async(*[{}] * min(1_000, int(count) - first)))
            return "filled"

        def drain() -> str:
            processes = begin("backlog", "backlog")
            begun()
            for process in processes:
                process.stdin.write(b"go\n")
                process.stdin.flush()
            for process in processes:
                process.wait()
            return "done"

        def start() -> str:
            (process,) = begin("listen")
            process.stdin.write(b"go\n")
            process.stdin.flush()
            return "started"

        serve({"fill": fill, "drain": drain, "start": start, "submit": lambda: submitted(lambda: runner.run(noop.defer_async()))})
        runner.run(app.close_async())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(work(backlog=sys.argv[1] == "backlog"))
    else:
        main()
