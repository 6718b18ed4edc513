"""procrastinate's app and its job, for the submitter and the workers alike."""

from __future__ import annotations

import os

import procrastinate
from started import from_environment

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"], min_size=4, max_size=12))
started = from_environment()


@app.task(name="noop")
async def noop() -> None:
    started.tell()
