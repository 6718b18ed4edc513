"""`dispatchctl doctor` as its callers see it: exit statuses, formats, waiting, and no secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2

from dispatchctl.__main__ import main
from tests.fakes.any_service import AnyService, serving_any
from tests.fakes.fake_scheduler import FakeScheduler, refuse, serving

Capture = pytest.CaptureFixture[str]
VERSION = version("cecelia-dispatch")
SECRET = "geheim"


@pytest.fixture
def executor() -> Iterator[tuple[str, executor_pb.CheckAvailabilityResponse]]:
    said = executor_pb.CheckAvailabilityResponse(version=VERSION)
    said.backends.add(backend="cecelia-run", configured=True)
    service = executor_pb.DESCRIPTOR.services_by_name["ExecutorService"]
    with serving_any(AnyService(service, answers={"CheckAvailability": [said]})) as address:
        yield address, said


class Pair(FakeScheduler):
    """A scheduler on which all is well after it has been asked `ills` times: until then it knows no executor; health is served beside it."""

    ills = 0
    without_database = False

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusResponse:
        if self.without_database:
            refuse(context, code_pb2.UNAVAILABLE, "STORAGE_UNAVAILABLE", "the database does not answer; try again")
        for stamp in (self.status.scheduler_time, self.status.database_time, self.status.tick.last_success_time):
            stamp.FromDatetime(datetime.now(UTC))
        if self.ills:
            self.ills -= 1
            answer = pb.GetStatusResponse()
            answer.CopyFrom(self.status)
            answer.ClearField("executors")
            return answer
        return self.status


@pytest.fixture
def pair(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, executor: tuple[str, executor_pb.CheckAvailabilityResponse]
) -> Iterator[Pair]:
    address, said = executor
    fake = Pair()
    fake.status.version, fake.status.tick.enabled = VERSION, True
    fake.status.executors.add(executor_id="vm", target=address, live=True)
    said.executor_time.FromDatetime(datetime.now(UTC))
    health = health_pb2.DESCRIPTOR.services_by_name["Health"]
    serving_now = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    with serving(fake, AnyService(health, answers={"Check": [serving_now]})) as scheduler:
        monkeypatch.setenv("DISPATCH_ADDRESS", scheduler)
        monkeypatch.setenv("DISPATCH_DATA_DIR", str(tmp_path))
        yield fake


def test_all_is_well(pair: Pair, capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\nall is well\n")
    assert err == ""
    assert main(["doctor", "-o", "name"]) == 0
    assert capsys.readouterr().out == ""


def test_json_is_one_document_and_jsonl_a_finding_a_line(pair: Pair, capsys: Capture) -> None:
    pair.status.executors[0].live = False
    assert main(["doctor", "-o", "json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert body["well"] is False
    (found,) = [finding for finding in body["findings"] if finding["level"] == "problem"]
    assert set(found) == {"category", "check", "level", "detail", "remedy"}
    assert (found["category"], found["check"], bool(found["remedy"])) == ("executors", "vm", True)
    assert main(["doctor", "-o", "jsonl"]) == 1
    assert [json.loads(line)["category"] for line in capsys.readouterr().out.splitlines()] == [
        finding["category"] for finding in body["findings"]
    ]
    assert main(["doctor", "-o", "name"]) == 1
    assert capsys.readouterr().out == "executors/vm\n"


def test_each_backend_that_is_wrong_is_a_problem_with_its_detail(
    pair: Pair, executor: tuple[str, executor_pb.CheckAvailabilityResponse], capsys: Capture
) -> None:
    executor[1].backends.add(backend="hk-minimax", reason="config_error", detail="HK_MINIMAX_URL is no URL")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "config_error: HK_MINIMAX_URL is no URL" in out
    assert "1 problem" in out


def test_a_warning_does_not_change_the_status(pair: Pair, capsys: Capture) -> None:
    pair.status.version = "0.0.1"
    assert main(["doctor"]) == 0
    assert "1 warning" in capsys.readouterr().out


def test_a_scheduler_without_health_is_not_serving(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with serving(pair) as without_health:
        assert main(["doctor", "--address", without_health, "-o", "name"]) == 1
    assert capsys.readouterr().out == "scheduler/serving\n"


def test_a_scheduler_that_is_away_is_one_problem_and_its_remedy(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("DISPATCH_ADDRESS", "127.0.0.1:1")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "dispatchctl up" in out
    assert "1 problem" in out


def test_waiting_ends_when_all_is_well(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("dispatchctl.doctor_command.LOOK_EVERY_S", 0.01)
    pair.ills = 3
    assert main(["doctor", "--wait", "60s"]) == 0
    out, err = capsys.readouterr()
    assert out.count("all is well") == 1
    assert err == "waiting: 1 problem\n"
    assert pair.ills == 0


def test_waiting_ends_when_its_time_is_over(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("dispatchctl.doctor_command.LOOK_EVERY_S", 0.01)
    pair.ills = 1_000_000
    assert main(["doctor", "--wait", "2s"]) == 1
    assert "EXECUTOR_TARGETS" in capsys.readouterr().out
    assert pair.ills < 1_000_000 - 1


def test_a_scheduler_without_its_database_is_a_problem_of_the_database(pair: Pair, capsys: Capture) -> None:
    pair.without_database = True
    assert main(["doctor", "-o", "name"]) == 1
    assert capsys.readouterr().out == "database/answers\n"


@pytest.mark.parametrize("output", ["table", "json", "jsonl", "name"])
def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture, output: str) -> None:
    environ = {
        "DISPATCH_DATA_DIR": str(tmp_path),
        "DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1:1/x",
        "HK_MINIMAX_URL": f"http://me:{SECRET}@127.0.0.1:1",
        "EXECUTOR_BRIDGE_URL": f"nonsense://me:{SECRET}@127.0.0.1:1",
        "FAILURE_THRESHOLD": "0",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor", "--pre", "-o", output]) == 1
    out, err = capsys.readouterr()
    assert "DATABASE_URL" in out
    assert SECRET not in out + err
