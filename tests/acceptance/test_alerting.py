"""A breaker opens, and somebody hears of it once: the pair, Prometheus and Alertmanager, with deploy/'s rules and configuration."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from tests.acceptance.metrics import samples
from tests.acceptance.monitoring import DEPLOY, Monitor, alertmanager, free_port, installed, prometheus
from tests.acceptance.programs import Pair, eventually
from tests.fakes.misbehaving_http_server import MisbehavingServer, plain

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
KEY = "cecelia-run@host-a"
JUDGED_S = 180.0
"""The rules as shipped are judged every 15 s, one after another."""
AGAIN = 20
"""So often Alertmanager is sent a firing alert anew before a notice counts as the only one."""


class Alarms:
    """What the webhook has received."""

    def __init__(self, server: MisbehavingServer) -> None:
        self._server = server

    def notices(self, alert: str, receiver: str = "operators") -> list[dict[str, Any]]:
        """Those of one alert, in the order in which they came."""
        told = [json.loads(body) for line, _headers, body in self._server.requests if line.startswith(f"POST /{receiver} ")]
        return [notice for notice in told if notice["groupLabels"]["alertname"] == alert]


@pytest.fixture
async def pair(tmp_path: Path, database_url: str) -> AsyncIterator[Pair]:
    made = Pair(tmp_path, database_url, OPEN_DURATION_MS="3600000", LEASE_TTL_MS="60000")
    await made.start()
    yield made
    await made.stop()


@pytest.mark.long
async def test_a_breaker_opens_and_the_webhook_is_told_once(pair: Pair, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        hook = await stack.enter_async_context(MisbehavingServer().running())
        hook.behaviour = plain({})
        alarms = Alarms(hook)
        manager = await stack.enter_async_context(alertmanager(tmp_path / "alertmanager", hook.url).running())
        targets = {"cecelia-scheduler": [pair.scheduler], "cecelia-executor": [pair.executor]}
        await stack.enter_async_context(prometheus(tmp_path / "prometheus", targets, manager.address).running())

        async def alive() -> bool:
            return len(alarms.notices("CeceliaDeadMansSwitch", "dead-mans-switch")) > 0

        await eventually(alive)
        assert alarms.notices("CeceliaDeadMansSwitch") == [], "it is for nobody else"
        assert alarms.notices("CeceliaBreakerOpened") == []

        pair.write_command(interpreter="/no/such/interpreter")
        await pair.submit(3)

        async def told() -> dict[str, Any] | None:
            return next(iter(alarms.notices("CeceliaBreakerOpened")), None)

        notice = await eventually(told)
        assert (notice["status"], [alert["labels"]["key"] for alert in notice["alerts"]]) == ("firing", [KEY])
        (alert,) = notice["alerts"]
        assert "runbooks" not in alert["labels"]
        assert KEY in alert["annotations"]["description"]
        page = re.fullmatch(r"http://127\.0\.0\.1:5221/docs/runbooks/(\w+\.md)", alert["annotations"]["runbook_url"])
        assert page is not None
        assert (RUNBOOKS / page[1]).is_file()
        await _until_heard_again(manager)
        assert [notice["status"] for notice in alarms.notices("CeceliaBreakerOpened")] == ["firing"]

        pair.write_command()
        async with pair.calls() as stub:
            await stub.ResetBreaker(pb.ResetBreakerRequest(key=KEY, reason="interpreter installed"), timeout=10)

        async def over() -> bool:
            return len(alarms.notices("CeceliaBreakerOpened")) > 1

        await eventually(over)
        await _until_heard_again(manager)
        assert [notice["status"] for notice in alarms.notices("CeceliaBreakerOpened")] == ["firing", "resolved"]


@pytest.mark.long
async def test_the_tutorials_alert_arrives_and_its_end_does_too(pair: Pair, tmp_path: Path) -> None:
    """Its three commands as printed, on other ports."""
    ports = {"5221": pair.scheduler.http_port, "5222": pair.executor.http_port}
    ports |= {number: free_port() for number in ("9490", "9493", "9499")}

    def moved(text: str) -> str:
        for number, port in ports.items():
            text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{port}")
        # In this order: the checkout may lie in /tmp itself.
        return text.replace("/tmp/", f"{tmp_path}/").replace("../prometheus/rules", str(DEPLOY / "prometheus/rules"))

    section = (RUNBOOKS.parent / "tutorial/first-alert.md").read_text("utf-8").partition("## 4. ")[2].partition("## 5. ")[0]
    joined = section.replace("\\\n", " ")
    commands = [shlex.split(moved(line)) for line in joined.splitlines() if line.startswith(("    .venv", "    prometheus"))]
    for name in ("prometheus.yml", "alertmanager.yml"):
        (tmp_path / name).write_text(moved((DEPLOY / "examples" / name).read_text("utf-8")), "utf-8")
    listening, manager, judging = (
        [word.replace("deploy/examples/", f"{tmp_path}/") if "--" in word else word for word in command] for command in commands
    )
    notices = tmp_path / "notices.log"
    async with contextlib.AsyncExitStack() as stack:
        script = [sys.executable, str(DEPLOY.parent / listening[1]), "--port", str(ports["9499"])]
        await stack.enter_async_context(Monitor(script, notices, ports["9499"]).started())
        program = installed("alertmanager", "prometheus-alertmanager")
        await stack.enter_async_context(Monitor([program, *manager[1:]], tmp_path / "manager.log", ports["9493"]).running())
        program = installed("prometheus")
        await stack.enter_async_context(Monitor([program, *judging[1:]], tmp_path / "prometheus.log", ports["9490"]).running())
        async with pair.calls() as stub:
            request = pb.TripBreakerRequest(key="cecelia-run", reason="my first alert")

            async def tripped() -> bool:
                # Until the executor was heard the name stands for no breaker.
                return bool((await stub.TripBreaker(request, timeout=10)).after.state == pb.BREAKER_STATE_OPEN)

            await eventually(tripped)
            firing = "firing    CeceliaBreakerOpened: The breaker cecelia-run@host-a is open;"
            await eventually(lambda: _has(notices, firing), JUDGED_S)
            assert moved("http://127.0.0.1:5221/docs/runbooks/CeceliaBreakerOpened.md\n") in notices.read_text("utf-8")
            await stub.ResetBreaker(pb.ResetBreakerRequest(key="cecelia-run", reason="that was the tutorial"), timeout=10)
        await eventually(lambda: _has(notices, "resolved  CeceliaBreakerOpened: "), JUDGED_S)
        assert "CeceliaDeadMansSwitch" not in notices.read_text("utf-8")


async def _has(file: Path, words: str) -> bool:
    return words in file.read_text("utf-8")


async def _until_heard_again(manager: Monitor) -> None:
    """Waits until Alertmanager has been sent firing alerts many times more."""

    async def received() -> float:
        return samples((await manager.get("/metrics")).text, "alertmanager_alerts_received_total")[("firing", "v2")]

    before = await received()

    async def enough() -> bool:
        return await received() >= before + AGAIN

    await eventually(enough)
