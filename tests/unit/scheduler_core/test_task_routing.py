"""Routing: backend, skill, permission mode, provider and model by type."""

from typing import Any

import pytest

from scheduler_service.core.routing import (
    DEFAULT_BACKENDS,
    BackendKind,
    Profile,
    backend_for,
    model_for,
    permission_mode_for,
    provider_for,
    skill_for,
)


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
    assert backend_for("Sweep", {"sweep": "cluster"}, "local") == "cluster"
    assert backend_for("talk", {"sweep": "cluster"}, "local") == "local"


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
