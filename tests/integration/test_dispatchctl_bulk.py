"""cancel and requeue of all that match: counted, asked about, carried out page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from dispatchctl.__main__ import main
from tests.fakes.any_service import AnyService, serving_any

SCHEDULER = pb.DESCRIPTOR.services_by_name["SchedulerService"]
PAGE = 500


class Bulk(AnyService):
    """1,200 tasks match, one in each page is passed over."""

    matched = 1_200

    def _answer(self, method: MethodDescriptor, request: Message, context: Any) -> Any:
        self.requests.append(request)
        assert isinstance(request, pb.CancelTasksRequest | pb.RequeueTasksRequest)
        response = pb.CancelTasksResponse if method.name == "CancelTasks" else pb.RequeueTasksResponse
        if request.validate_only:
            return response(matched=self.matched)
        done = int(request.page_token or 0)
        here = min(PAGE, self.matched - done)
        more = done + here < self.matched
        return response(
            matched=self.matched - done, changed=here - 1, skipped=1, next_page_token=str(done + here) if more else ""
        )


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bulk]:
    handler = Bulk(SCHEDULER)
    with serving_any(handler) as address:
        monkeypatch.setenv("DISPATCH_ADDRESS", address)
        yield handler


def test_all_pages_are_changed_each_under_an_id_of_its_own(service: Bulk, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "cancel",
        "--status",
        "queued",
        "--type",
        "dev",
        "--priority",
        "p2",
        "--reason",
        "wrong branch",
        "--yes",
        "-o",
        "json",
    ]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"matched": "1200", "changed": "1197", "skipped": "3", "next_page_token": ""}
    assert "cancel: 1,197 of 1,200 tasks, by " in shown.err
    assert "3 were passed over" in shown.err
    counted, *pages = service.requests
    assert isinstance(counted, pb.CancelTasksRequest)
    assert (counted.validate_only, list(counted.statuses), list(counted.task_types)) == (True, [pb.TASK_STATUS_QUEUED], ["dev"])
    assert list(counted.priorities) == [pb.PRIORITY_P2]
    assert [page.page_token for page in pages] == ["", "500", "1000"]
    assert {page.reason for page in pages} == {"wrong branch"}
    assert {tuple(page.statuses) for page in pages} == {(pb.TASK_STATUS_QUEUED,)}
    assert len({page.request_id for page in pages} - {""}) == 3


@pytest.mark.parametrize(
    ("command", "statuses"),
    [("cancel", {"QUEUED", "DISPATCHING", "RUNNING", "QUARANTINED"}), ("requeue", {"FAILED", "CANCELLED", "QUARANTINED"})],
)
def test_a_dry_run_only_counts_and_all_names_every_status(
    service: Bulk, capsys: pytest.CaptureFixture[str], command: str, statuses: set[str]
) -> None:
    assert main([command, "--all", "--dry-run"]) == 0
    assert "1,200 tasks would be looked at: nothing was changed" in capsys.readouterr().err
    (counted,) = service.requests
    assert isinstance(counted, pb.CancelTasksRequest | pb.RequeueTasksRequest)
    assert counted.validate_only
    assert {pb.TaskStatus.Name(status).removeprefix("TASK_STATUS_") for status in counted.statuses} == statuses


def test_without_a_yes_nothing_is_changed(service: Bulk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", "--all"]) == 2
    assert "confirmation_required" in capsys.readouterr().err
    assert [request.validate_only for request in service.requests] == [True]


@pytest.mark.parametrize("words", [[], ["--all", "--status", "queued"], ["some-task", "--all"], ["some-task", "--dry-run"]])
def test_a_choice_that_is_none_or_two_is_a_usage_error(service: Bulk, words: list[str]) -> None:
    assert main(["cancel", *words, "--yes"]) == 2
    assert service.requests == []


def test_a_status_that_cannot_be_cancelled_is_a_usage_error(service: Bulk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", "--status", "completed", "--yes"]) == 2
    assert "quarantined" in capsys.readouterr().err
    assert service.requests == []
