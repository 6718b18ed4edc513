"""Where a task goes and what its command is told: backend, skill, permission mode, provider and model.

Tables are plain mappings looked up by exact key, so a type named like a method of something is just an unknown type.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

import msgspec


class BackendKind(StrEnum):
    """Whether a backend fails as one (`shared`) or on each executor by itself (`per_executor`)."""

    SHARED = "shared"
    PER_EXECUTOR = "per_executor"


BACKEND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""An `@` would make a breaker key of it."""


class Backend(msgspec.Struct, frozen=True):
    """A backend that tasks route to; `local` ones run on the executor's machine and are gated by its slots."""

    name: str
    kind: BackendKind
    local: bool


CECELIA_RUN = "cecelia-run"
HK_MINIMAX = "hk-minimax"

DEFAULT_BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        CECELIA_RUN: Backend(CECELIA_RUN, BackendKind.PER_EXECUTOR, local=True),
        HK_MINIMAX: Backend(HK_MINIMAX, BackendKind.SHARED, local=False),
    }
)

OTHER_TYPES = "*"
DEFAULT_ROUTES: Mapping[str, str] = MappingProxyType(
    {"talk": HK_MINIMAX, "research": HK_MINIMAX, "data": HK_MINIMAX, OTHER_TYPES: CECELIA_RUN}
)
"""Task type (lower case) to backend; `*` stands for every other type, and without it those are not taken."""

DEFAULT_SKILL = "/dev"
DECOMPOSITION_SKILL = "/okr"
SKILLS: Mapping[str, str] = MappingProxyType(
    {
        "dev": "/dev",
        "review": "/review",
        "qa": "/review",
        "audit": "/review",
        "qa_init": "/review init",
        "talk": "/talk",
        "code_review": "/code-review",
        "dept_heartbeat": "/repo-lead heartbeat",
        "research": "",
    }
)

PLAN_TYPES: frozenset[str] = frozenset({"review", "qa", "audit"})

BUILT_IN_PROVIDERS: Mapping[str, str] = MappingProxyType(
    {
        "codex_qa": "openai",
        "decomp_review": "minimax",
        "talk": "minimax",
        "research": "minimax",
        "dept_heartbeat": "minimax",
    }
)
DEFAULT_PROVIDER = "minimax"
MINIMAX_MODEL = "MiniMax-M2.1"


@dataclass(frozen=True, slots=True)
class Profile:
    """Which provider and model each type uses. `models`: type -> provider -> model; `default_models`: for others."""

    id: str
    default_provider: str = ""
    fixed_providers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    models: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    default_models: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


DEFAULT_PROFILE = Profile(
    id="profile-minimax",
    default_provider=DEFAULT_PROVIDER,
    fixed_providers=MappingProxyType({"codex_qa": "openai"}),
    models=MappingProxyType({"codex_qa": MappingProxyType({})}),
    default_models=MappingProxyType({"minimax": MINIMAX_MODEL}),
)


def backend_for(task_type: str, routes: Mapping[str, str] = DEFAULT_ROUTES) -> str:
    """The backend of a task type, '' when it has none; the look-up ignores case."""
    return routes.get(task_type.lower()) or routes.get(OTHER_TYPES, "")


class ReportedBackend(Protocol):
    """What an executor says of one of its backends; `kind` None: it does not know."""

    @property
    def backend(self) -> str: ...
    @property
    def local(self) -> bool: ...
    @property
    def configured(self) -> bool: ...
    @property
    def kind(self) -> BackendKind | None: ...


def known_backends(
    names: Iterable[str], reported: Iterable[ReportedBackend] = (), breaker_keys: Collection[str] = ()
) -> dict[str, Backend]:
    """The named and the reported backends, by name. What a plug-in is, only executors can tell.

    Where they disagree, the more careful answer counts: shared, and gated by slots. Of one that none has told of, a breaker row
    under its bare name says that it was shared.
    """
    told: dict[str, list[ReportedBackend]] = {name: [] for name in names}
    for report in reported:
        own = told.setdefault(report.backend, [])
        if report.configured and report.kind is not None:
            own.append(report)
    return {name: DEFAULT_BACKENDS.get(name) or _learned(name, own, breaker_keys) for name, own in sorted(told.items())}


def _learned(name: str, told: Collection[ReportedBackend], breaker_keys: Collection[str]) -> Backend:
    shared = any(report.kind is BackendKind.SHARED for report in told) if told else name in breaker_keys
    return Backend(name, BackendKind.SHARED if shared else BackendKind.PER_EXECUTOR, any(report.local for report in told))


def skill_for(task_type: str, skill: str, payload: Mapping[str, Any]) -> str:
    """The skill that the command is told of; empty for none.

    `payload.skill_override` wins, then a decomposition (`okr`, or `next_action` `decompose`), then the task's own
    skill, then the table by type; an unknown type uses the skill of `dev`.
    """
    override = payload.get("skill_override")
    if isinstance(override, str) and override:
        return override
    if payload.get("decomposition") == "okr" or payload.get("next_action") == "decompose":
        return DECOMPOSITION_SKILL
    return skill or SKILLS.get(task_type.lower(), DEFAULT_SKILL)


def permission_mode_for(task_type: str) -> str:
    """`plan` for the types that only read; `bypassPermissions`, the reference's default, for the rest."""
    return "plan" if task_type.lower() in PLAN_TYPES else "bypassPermissions"


def provider_for(task_type: str, profile: Profile = DEFAULT_PROFILE) -> str:
    """The provider: the profile's for the type, else the profile's default, else the built-in one, else minimax."""
    name = task_type.lower()
    return profile.fixed_providers.get(name) or profile.default_provider or BUILT_IN_PROVIDERS.get(name, DEFAULT_PROVIDER)


def model_for(task_type: str, profile: Profile = DEFAULT_PROFILE) -> str:
    """The model of the type at its provider; empty for none (always for `codex_qa`)."""
    name = task_type.lower()
    if name == "codex_qa":
        return ""
    return profile.models.get(name, profile.default_models).get(provider_for(name, profile), "")
