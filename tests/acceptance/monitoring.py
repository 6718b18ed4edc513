"""Prometheus and Alertmanager as programs, with the configuration of deploy/ and short intervals, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.acceptance.programs import READY_S, Program, eventually

DEPLOY = Path(__file__).parents[2] / "deploy"


def installed(*names: str) -> str:
    """Where the first of these programs is; without one the test is skipped."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"{' or '.join(names)} is not installed (Debian: apt-get install prometheus prometheus-alertmanager)")


def free_port() -> int:
    """A port that nobody has at this moment: these programs cannot say which one the system chose for them."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Monitor:
    """A program that serves HTTP on loopback."""

    def __init__(self, command: Sequence[str | Path], log: Path, port: int) -> None:
        self._command = [str(word) for word in command]
        self._log = log
        self.address = f"127.0.0.1:{port}"

    async def get(self, path: str, **params: Any) -> httpx.Response:
        """An answer; any failure is raised."""
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            return (await client.get(f"http://{self.address}{path}", params=params)).raise_for_status()

    async def data(self, path: str, **params: Any) -> Any:
        """What Prometheus' API answers."""
        answer = (await self.get(path, **params)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Monitor]:
        """Starts it, waits until it is ready, ends it."""
        async with self.started() as process:

            async def ready() -> bool:
                assert process.returncode is None, self._log.read_text()
                with contextlib.suppress(httpx.HTTPError):
                    await self.get("/-/ready")
                    return True
                return False

            await eventually(ready, READY_S)
            yield self

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Starts it, ends it."""
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            async with asyncio.timeout(30):
                await process.wait()


def prometheus(folder: Path, targets: dict[str, list[Program]], alertmanager: str | None = None) -> Monitor:
    """Prometheus with deploy/'s configuration and rules, scraping and judging every second. `targets`: programs by job."""
    program = installed("prometheus")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        programs = targets[job["job_name"]]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{program.http_port}" for program in programs]}]
    for receiver in config["alerting"]["alertmanagers"]:
        receiver["static_configs"] = [{"targets": [alertmanager] if alertmanager else []}]
    (folder / "rules").mkdir(parents=True)
    for path in (DEPLOY / "prometheus" / "rules").glob("*.yml"):
        rules = yaml.safe_load(path.read_text("utf-8"))
        for group in rules["groups"]:
            group["interval"] = "1s"
        (folder / "rules" / path.name).write_text(yaml.safe_dump(rules), "utf-8")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    port = free_port()
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        # So that a notice that is sent twice is seen to be.
        "--rules.alert.resend-delay=1s",
    ]
    return Monitor(command, folder / "prometheus.log", port)


def alertmanager(folder: Path, webhook: str) -> Monitor:
    """Alertmanager with deploy/'s configuration, telling of changes within a second. Each receiver's webhook is at /RECEIVER."""
    program = installed("alertmanager", "prometheus-alertmanager")
    config = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text("utf-8"))
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": f"{webhook}/{receiver['name']}", "send_resolved": True}]
    folder.mkdir(parents=True)
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config), "utf-8")
    port = free_port()
    command = [
        program,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    return Monitor(command, folder / "alertmanager.log", port)


async def has_data(server: Monitor, query: str, start: float, end: float) -> bool:
    """Whether a query has a value, and not only NaN, anywhere in a time."""
    found = await server.data("/api/v1/query_range", query=query, start=start, end=end, step="1")
    return any(not math.isnan(float(value)) for series in found["result"] for _time, value in series["values"])
