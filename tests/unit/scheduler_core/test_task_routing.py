"""Routing: backend, skill, permission mode, provider and model by type."""

from typing import Any

import pytest

from scheduler_service.core.routing import (
    DEFAULT_BACKENDS,
    Backend,
    BackendKind,
    Profile,
    backend_for,
    known_backends,
    model_for,
    permission_mode_for,
    provider_for,
    skill_for,
)
from scheduler_service.core.run import BackendReport


@pytest.mark.parametrize(
    ("task_type", "backend"),
    [
        ("talk", "hk-minimax"),
        ("research", "hk-minimax"),
        ("data", "hk-minimax"),
        ("TALK", "hk-minimax"),
        ("dev", "cecelia-run"),
        ("review", "cecelia-run"),
        ("", "cecelia-run"),
        ("unheard_of", "cecelia-run"),
        ("constructor", "cecelia-run"),
        ("__class__", "cecelia-run"),
        ("get", "cecelia-run"),
    ],
)
def test_backend(task_type: str, backend: str) -> None:
    assert backend_for(task_type) == backend


def test_routes_can_be_given() -> None:
    assert backend_for("Sweep", {"sweep": "cluster", "*": "local"}) == "cluster"
    assert backend_for("talk", {"sweep": "cluster", "*": "local"}) == "local"
    assert backend_for("talk", {"sweep": "cluster"}) == ""


def reported(name: str, kind: BackendKind | None, *, local: bool = False, configured: bool = True) -> BackendReport:
    return BackendReport(name, local, configured, configured, "", "", 4, 0, False, kind)


def test_what_a_plug_in_is_only_executors_tell() -> None:
    known = known_backends(
        ["cluster"], [reported("sweeps", BackendKind.SHARED), reported("gpu", BackendKind.PER_EXECUTOR, local=True)]
    )
    assert known == {
        "cluster": Backend("cluster", BackendKind.PER_EXECUTOR, False),
        "gpu": Backend("gpu", BackendKind.PER_EXECUTOR, True),
        "sweeps": Backend("sweeps", BackendKind.SHARED, False),
    }


def test_of_what_executors_disagree_about_the_careful_answer_counts() -> None:
    told = [
        reported("gpu", BackendKind.PER_EXECUTOR),
        reported("gpu", BackendKind.SHARED),
        reported("gpu", BackendKind.PER_EXECUTOR, local=True),
    ]
    assert known_backends([], told)["gpu"] == Backend("gpu", BackendKind.SHARED, True)


def test_one_that_is_broken_or_of_no_kind_tells_nothing() -> None:
    told = [reported("gpu", BackendKind.SHARED, local=True, configured=False), reported("gpu", None, local=True)]
    assert known_backends([], told)["gpu"] == Backend("gpu", BackendKind.PER_EXECUTOR, False)


def test_a_breaker_row_remembers_that_a_backend_was_shared() -> None:
    assert known_backends(["gpu"], [], {"gpu": None})["gpu"].kind is BackendKind.SHARED
    heard = [reported("gpu", BackendKind.PER_EXECUTOR)]
    assert known_backends(["gpu"], heard, {"gpu": None})["gpu"].kind is BackendKind.PER_EXECUTOR


def test_no_executor_says_what_a_built_in_backend_is() -> None:
    told = [reported("hk-minimax", BackendKind.PER_EXECUTOR, local=True)]
    assert known_backends([], told) == {"hk-minimax": DEFAULT_BACKENDS["hk-minimax"]}


def test_the_default_backends() -> None:
    kinds = {name: (backend.kind, backend.local) for name, backend in DEFAULT_BACKENDS.items()}
    assert kinds == {"cecelia-run": (BackendKind.PER_EXECUTOR, True), "hk-minimax": (BackendKind.SHARED, False)}


@pytest.mark.parametrize(
    ("task_type", "skill", "payload", "expected"),
    [
        ("dev", "", {}, "/dev"),
        ("review", "", {}, "/review"),
        ("qa", "", {}, "/review"),
        ("Audit", "", {}, "/review"),
        ("qa_init", "", {}, "/review init"),
        ("research", "", {}, ""),
        ("unheard_of", "", {}, "/dev"),
        ("__class__", "", {}, "/dev"),
        ("dev", "qa", {}, "qa"),
        ("dev", "qa", {"decomposition": "okr"}, "/okr"),
        ("dev", "", {"next_action": "decompose"}, "/okr"),
        ("dev", "", {"decomposition": "known"}, "/dev"),
        ("dev", "qa", {"skill_override": "/talk", "decomposition": "okr"}, "/talk"),
        ("dev", "", {"skill_override": ""}, "/dev"),
        ("dev", "", {"skill_override": 7}, "/dev"),
    ],
)
def test_skill(task_type: str, skill: str, payload: dict[str, Any], expected: str) -> None:
    assert skill_for(task_type, skill, payload) == expected


@pytest.mark.parametrize("task_type", ["review", "qa", "audit", "QA"])
def test_types_that_only_read_plan(task_type: str) -> None:
    assert permission_mode_for(task_type) == "plan"


@pytest.mark.parametrize("task_type", ["dev", "talk", "research", "", "code_review"])
def test_the_rest_bypasses(task_type: str) -> None:
    assert permission_mode_for(task_type) == "bypassPermissions"


def test_provider_and_model_of_the_default_profile() -> None:
    assert (provider_for("dev"), model_for("dev")) == ("minimax", "MiniMax-M2.1")
    assert (provider_for("codex_qa"), model_for("codex_qa")) == ("openai", "")


def test_the_order_of_providers() -> None:
    bare = Profile("bare")
    assert [provider_for(name, bare) for name in ("codex_qa", "Talk", "dev")] == ["openai", "minimax", "minimax"]
    house = Profile("house", default_provider="anthropic", fixed_providers={"talk": "openai"})
    assert [provider_for(name, house) for name in ("talk", "codex_qa", "dev")] == ["openai", "anthropic", "anthropic"]


def test_a_model_is_looked_up_by_type_and_provider() -> None:
    profile = Profile(
        "house",
        default_provider="anthropic",
        models={"dev": {"anthropic": "large", "minimax": "m"}, "codex_qa": {"anthropic": "large"}},
        default_models={"anthropic": "small"},
    )
    assert [model_for(name, profile) for name in ("DEV", "talk", "codex_qa")] == ["large", "small", ""]
    assert model_for("dev", Profile("empty")) == ""
