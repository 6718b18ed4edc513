"""Pre-flight's five checks, with the reference's figures."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from scheduler_service.core.pre_flight import body_of, check, describe
from scheduler_service.core.task import Priority, Task

MakeTask = Callable[..., Task]
BODY = "Let the importer try three times."


def issues(task: Task) -> list[str]:
    return [finding.issue for finding in check(task)]


def test_a_good_task_passes(make_task: MakeTask) -> None:
    assert check(make_task()) == ()


@pytest.mark.parametrize(
    ("title", "words"),
    [("", "blank"), ("   \n", "blank"), ("abcd", "4 characters"), ("  abcd  ", "4 characters"), ("abcde", "")],
)
def test_title(make_task: MakeTask, title: str, words: str) -> None:
    found = issues(make_task(title=title))
    assert (len(found) == 1 and words in found[0]) if words else found == []


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("", "no description"),
        ("  \n ", "no description"),
        ("d" * 19, "19 characters"),
        (f"  {'d' * 19}  ", "19 characters"),
        ("d" * 20, ""),
    ],
)
def test_body(make_task: MakeTask, description: str, words: str) -> None:
    found = issues(make_task(description=description))
    assert (len(found) == 1 and words in found[0]) if words else found == []


def test_prd_content_stands_in_for_an_empty_description_only(make_task: MakeTask) -> None:
    payload = {"prd_content": BODY}
    assert body_of(make_task(description="", payload=payload)) == BODY
    assert check(make_task(description="", payload=payload)) == ()
    assert issues(make_task(description="   ", payload=payload)) == ["there is no description"]
    assert body_of(make_task(description="", payload={"prd_content": 7})) == ""


@pytest.mark.parametrize("task_type", ["dept_heartbeat", "codex_qa", "initiative_verify", "Codex_QA"])
def test_exempt_types_need_no_body_but_no_placeholder_either(make_task: MakeTask, task_type: str) -> None:
    assert check(make_task(task_type=task_type, description="")) == ()
    assert len(issues(make_task(task_type=task_type, description="TODO"))) == 1


@pytest.mark.parametrize("priority", list(Priority))
def test_known_priorities(make_task: MakeTask, priority: Priority) -> None:
    assert check(make_task(priority=priority)) == ()


def test_an_unknown_priority(make_task: MakeTask) -> None:
    assert issues(make_task(priority=cast(Any, 7))) == ["the priority 7 is unknown"]


@pytest.mark.parametrize("skill", ["", "dev", "qa", "audit", "review", "/dev", "/qa", "/audit", "/review"])
def test_known_skills(make_task: MakeTask, skill: str) -> None:
    assert check(make_task(skill=skill)) == ()


@pytest.mark.parametrize("skill", ["okr", "/okr", "//dev", "DEV", "dev/"])
def test_unknown_skills(make_task: MakeTask, skill: str) -> None:
    (finding,) = check(make_task(skill=skill))
    assert repr(skill) in finding.issue
    assert "dev, qa, audit, review" in finding.suggestion


@pytest.mark.parametrize(
    "body",
    [
        "TODO: describe the importer properly",
        "The importer, tbd by the team later on",
        "Somebody FixMe this importer, please do",
        "这是一个todo项, 需要在导入器里面处理一下才行",
        "Add a todo list to the page of the importer",
        "The value is xxx until somebody knows it",
        "A run of xxxxxx in the importer's output",
    ],
)
def test_placeholders(make_task: MakeTask, body: str) -> None:
    (issue,) = issues(make_task(description=body))
    assert "placeholder" in issue


@pytest.mark.parametrize(
    "body",
    [
        "Remove the `TODO` that the importer prints",
        "Remove this:\n```\n# TODO xxx fixme\n```\nfrom the importer",
        "The todos of the importer are all done now",
        "Call mytodo() and retodo in the importer",
        "把重试加到导入器里面, 内容是éxxxé, 需要仔细地处理一下才行",
        "test the importer with three refused connections",
    ],
)
def test_no_placeholders(make_task: MakeTask, body: str) -> None:
    assert check(make_task(description=body)) == ()


@pytest.mark.parametrize("body", ["test", " FIX ", "update\n"])
def test_a_body_that_is_only_a_verb(make_task: MakeTask, body: str) -> None:
    assert len(issues(make_task(task_type="codex_qa", description=body))) == 1
    assert len(issues(make_task(description=body))) == 2


def test_all_findings_are_collected(make_task: MakeTask) -> None:
    findings = check(make_task(title="x", description="todo", skill="okr"))
    assert len(findings) == 4
    text = describe(findings)
    assert all(finding.issue in text and finding.suggestion in text for finding in findings)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_tries": 0}, "max_tries"),
        ({"timeout": timedelta(0)}, "timeout"),
        ({"title": "A title " * 100}, "title"),
        ({"description": "word " * 60_000}, "description"),
    ],
)
def test_a_row_beyond_the_bounds_of_a_submission_does_not_pass(
    make_task: MakeTask, changes: dict[str, object], named: str
) -> None:
    (finding,) = check(make_task(**changes))
    assert finding.issue.startswith(f"{named} ")
