"""dramatiq on Redis: two processes of eight threads for a backlog, one of four for the hand-off. Lines: lines.py."""

from __future__ import annotations

import os
import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from lines import POLL_S, begun, serve, submitted, workers
from started import from_environment

URL = os.environ["REDIS_URL"]
dramatiq.set_broker(RedisBroker(url=URL))
started = from_environment()
QUEUE = "dramatiq:default"


@dramatiq.actor
def noop() -> None:
    started.tell()


def main() -> None:
    server = redis.Redis.from_url(URL)
    with workers() as start_worker:

        def up(processes: int, threads: int) -> None:
            start_worker("-m", "dramatiq", "dramatiq_peer", "-p", str(processes), "-t", str(threads))

        def fill(count: str) -> str:
            for _ in range(int(count)):
                noop.send()
            return "filled"

        def drain() -> str:
            before = server.llen(QUEUE)
            up(2, 8)
            # It cannot be held back: the clock starts at the first job that is fetched.
            while server.llen(QUEUE) == before:
                time.sleep(POLL_S)
            begun()
            while server.llen(QUEUE) or server.hlen(f"{QUEUE}.msgs"):
                time.sleep(POLL_S)
            return "done"

        def start() -> str:
            up(1, 4)
            return "started"

        serve({"fill": fill, "drain": drain, "start": start, "submit": lambda: submitted(noop.send)})


if __name__ == "__main__":
    main()
