"""Pre-flight: is a task worth starting? Five checks, all findings collected; no finding means it passes.

The rules and figures are the reference's (2.5), its known misfires included: a run of more than three x and a feature
about a "todo list" count as placeholders. What differs: task type and skill are really looked at (the reference did
not load them), and a finding quarantines the task instead of leaving it in front of the queue for ever.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler_service.core.limits import DESCRIPTION_MAX_BYTES, TITLE_MAX_CHARS, TaskSpec, violations_of
from scheduler_service.core.task import Priority, Task

TITLE_MIN_CHARS = 5
BODY_MIN_CHARS = 20
_PRIORITIES = frozenset(Priority)
KNOWN_SKILLS: tuple[str, ...] = ("dev", "qa", "audit", "review")
BODY_LENGTH_EXEMPT_TYPES: frozenset[str] = frozenset({"dept_heartbeat", "codex_qa", "initiative_verify"})

_FENCED_CODE = re.compile(r"```.*?```", re.DOTALL)
_INLINE_CODE = re.compile(r"`[^`]*`")
# Word borders are ASCII's, as in the reference: a placeholder between CJK characters is one too.
_PLACEHOLDER_WORD = re.compile(r"\b(?:todo|tbd|fixme)\b", re.ASCII)
_PLACEHOLDER_X = re.compile(r"(?<![^\x00-\x7f])xxx(?![^\x00-\x7f])")
_PLACEHOLDER_BODIES: frozenset[str] = frozenset({"test", "fix", "update"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a task, and what would mend it."""

    issue: str
    suggestion: str


def body_of(task: Task) -> str:
    """The text that is judged: the description, or `payload.prd_content` if the description is the empty string."""
    if task.description:
        return task.description
    prd_content = task.payload.get("prd_content")
    return prd_content if isinstance(prd_content, str) else ""


def check(task: Task) -> tuple[Finding, ...]:
    """All findings about a task, in the order of the checks."""
    body = body_of(task)
    if len(task.title) > TITLE_MAX_CHARS or len(body) > DESCRIPTION_MAX_BYTES:
        # Not read through: the tick's transaction waits for this.
        return tuple(_check_bounds(task))
    found = (
        _check_title(task.title),
        _check_body(task.task_type, body),
        _check_priority(task.priority),
        _check_skill(task.skill),
        _check_placeholder(body),
    )
    return tuple(finding for finding in found if finding is not None) or tuple(_check_bounds(task))


def describe(findings: tuple[Finding, ...]) -> str:
    """The findings as the text that a quarantined task's error shows."""
    return "; ".join(f"{finding.issue} ({finding.suggestion})" for finding in findings)


def _check_bounds(task: Task) -> Iterator[Finding]:
    """The bounds of a submission once more: a row that came into the table by another way could stop the orders beside it."""
    spec = TaskSpec(
        title=task.title,
        description=task.description,
        task_type=task.task_type,
        priority=task.priority,
        skill=task.skill,
        payload=task.payload,
        max_tries=task.max_tries,
        timeout=task.timeout,
    )
    for violation in violations_of(spec):
        yield Finding(f"{violation.field} {violation.description}", "submit it anew within the bounds")


def _check_title(title: str) -> Finding | None:
    length = len(title.strip())
    if length == 0:
        return Finding("the title is blank", "give the task a title that says what is to be done")
    if length < TITLE_MIN_CHARS:
        return Finding(f"the title has {length} characters, fewer than {TITLE_MIN_CHARS}", "say in the title what is to be done")
    return None


def _check_body(task_type: str, body: str) -> Finding | None:
    if task_type.lower() in BODY_LENGTH_EXEMPT_TYPES:
        return None
    length = len(body.strip())
    if length == 0:
        return Finding("there is no description", "describe the work in description or payload.prd_content")
    if length < BODY_MIN_CHARS:
        return Finding(
            f"the description has {length} characters, fewer than {BODY_MIN_CHARS}",
            "describe the work so that somebody else could do it",
        )
    return None


def _check_priority(priority: Priority) -> Finding | None:
    if priority not in _PRIORITIES:
        return Finding(f"the priority {priority} is unknown", "use P0, P1 or P2")
    return None


def _check_skill(skill: str) -> Finding | None:
    if skill and skill.removeprefix("/") not in KNOWN_SKILLS:
        return Finding(f"the skill {skill[:64]!r} is unknown", f"use one of {', '.join(KNOWN_SKILLS)}, or none")
    return None


def _check_placeholder(body: str) -> Finding | None:
    prose = (_INLINE_CODE.sub("", _FENCED_CODE.sub("", body)) if "`" in body else body).lower()
    found = _PLACEHOLDER_WORD.search(prose) or _PLACEHOLDER_X.search(prose)
    word = found.group() if found else prose.strip() if prose.strip() in _PLACEHOLDER_BODIES else ""
    if word:
        return Finding(
            f"the description holds the placeholder {word!r}",
            "replace it by what is meant; inside backticks it is taken for code",
        )
    return None
