"""celery on Redis, acknowledged after the work: eight threads for a backlog, two processes for the hand-off. Lines: lines.py."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery
from lines import POLL_S, begun, serve, submitted, workers
from started import from_environment

URL = os.environ["REDIS_URL"]
app = Celery("celery_peer", broker=URL)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("PREFETCH", "4")),
    broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
)
started = from_environment()


@app.task(name="noop")
def noop() -> None:
    started.tell()


def main() -> None:
    server = redis.Redis.from_url(URL)
    common = ("-m", "celery", "-A", "celery_peer", "worker", "-l", "ERROR", "--without-gossip", "--without-mingle")
    with workers() as start_worker:

        def up(queue: str, *words: str, **env: str) -> None:
            start_worker(*common, "--without-heartbeat", "-Q", queue, *words, **env)
            until = time.monotonic() + 60
            while not app.control.ping(timeout=0.5):
                if time.monotonic() > until:
                    raise RuntimeError("no celery worker answers within 60 s")

        def fill(count: str) -> str:
            for _ in range(int(count)):
                noop.delay()
            return "filled"

        def drain() -> str:
            # It serves a queue that nobody fills until the clock starts: its start is not counted.
            up("nothing", "-P", "threads", "-c", "8", PREFETCH="16")
            begun()
            app.control.add_consumer("celery", reply=False)
            while server.llen("celery") or server.hlen("unacked"):
                time.sleep(POLL_S)
            return "done"

        def start() -> str:
            up("celery", "-P", "prefork", "-c", "2")
            return "started"

        serve({"fill": fill, "drain": drain, "start": start, "submit": lambda: submitted(noop.delay)})


if __name__ == "__main__":
    main()
