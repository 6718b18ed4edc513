"""What kind of failure an answer tells of: by its status and its codes first, by whole phrases last.

The reference matched words anywhere: "timed out after 1429 minutes" was a rate limit, "the room" a lack of memory (reference.md
2.11). Here a number counts in its own field only, and of texts only phrases that say one thing. Credentials are never read out
of a text: "authentication failed" may be about what the task was to log in to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class FailureClass(StrEnum):
    """Classes under the names that `CECELIA_OUTCOME_FILE` takes; `unknown` where nothing tells."""

    BILLING_CAP = "billing_cap"
    RATE_LIMIT = "rate_limit"
    AUTH = "auth"
    NETWORK = "network"
    RESOURCE = "resource"
    TASK = "task"
    UNKNOWN = "unknown"


CLASS_MEANINGS: Mapping[FailureClass, str] = MappingProxyType(
    {
        FailureClass.BILLING_CAP: "an account's quota or money is used up",
        FailureClass.RATE_LIMIT: "too many calls in a short time",
        FailureClass.AUTH: "credentials are missing, wrong or not allowed to do it",
        FailureClass.NETWORK: "something that the run needed could not be reached",
        FailureClass.RESOURCE: "the machine had too little memory, disk or processes for it",
        FailureClass.TASK: "the task itself cannot be done",
        FailureClass.UNKNOWN: "nothing tells",
    }
)

STATUS_CLASSES: Mapping[int, FailureClass] = MappingProxyType(
    {401: FailureClass.AUTH, 402: FailureClass.BILLING_CAP, 403: FailureClass.AUTH, 429: FailureClass.RATE_LIMIT}
)
"""HTTP status codes (RFC 9110, RFC 6585)."""

CODE_CLASSES: Mapping[str, FailureClass] = MappingProxyType(
    {
        # MiniMax' own numbers, in base_resp.status_code (its list of error codes).
        "1002": FailureClass.RATE_LIMIT,
        "1004": FailureClass.AUTH,
        "1008": FailureClass.BILLING_CAP,
        "1039": FailureClass.RATE_LIMIT,
        # Words that services of this kind put in `code` or `type` of an error.
        "insufficient_quota": FailureClass.BILLING_CAP,
        "insufficient_balance": FailureClass.BILLING_CAP,
        "billing_hard_limit_reached": FailureClass.BILLING_CAP,
        "billing_not_active": FailureClass.BILLING_CAP,
        "billing_error": FailureClass.BILLING_CAP,
        "billing_cap": FailureClass.BILLING_CAP,
        "quota_exceeded": FailureClass.BILLING_CAP,
        "rate_limit": FailureClass.RATE_LIMIT,
        "rate_limit_error": FailureClass.RATE_LIMIT,
        "rate_limit_exceeded": FailureClass.RATE_LIMIT,
        "too_many_requests": FailureClass.RATE_LIMIT,
        "overloaded_error": FailureClass.RATE_LIMIT,
        "auth": FailureClass.AUTH,
        "authentication_error": FailureClass.AUTH,
        "permission_error": FailureClass.AUTH,
        "invalid_api_key": FailureClass.AUTH,
        "expired_api_key": FailureClass.AUTH,
        "unauthorized": FailureClass.AUTH,
    }
)
"""Codes in an answer's own fields, in lower case."""

_LIMIT = r"(?:cap|limit|quota)"
_USED_UP = r"(?:(?:is |was |has been |have been )?(?:used up|reached|exceeded|exhausted|hit))"
PHRASES: tuple[tuple[re.Pattern[str], FailureClass], ...] = tuple(
    (re.compile(rf"(?<![\w-]){pattern}(?![\w-])", re.IGNORECASE), found)
    for pattern, found in (
        (r"insufficient (?:account )?(?:balance|funds|credits?|quota)", FailureClass.BILLING_CAP),
        (rf"(?:spending|billing|usage|account|monthly|daily) (?:hard )?{_LIMIT} {_USED_UP}", FailureClass.BILLING_CAP),
        (rf"(?:reached|exceeded|hit) (?:your|the) (?:current )?(?:spending|billing|usage) {_LIMIT}", FailureClass.BILLING_CAP),
        (rf"(?<!disk )quota {_USED_UP}", FailureClass.BILLING_CAP),
        (r"(?:out of|no) credits?(?: left)?", FailureClass.BILLING_CAP),
        (rf"rate[ -]limit(?:ed| {_USED_UP})", FailureClass.RATE_LIMIT),
        (r"too many requests", FailureClass.RATE_LIMIT),
    )
)  # fmt: skip
"""Whole phrases, in this order."""

CODE_FIELDS = (
    ("error", "code"),
    ("error", "type"),
    ("base_resp", "status_code"),
    ("code",),
    ("type",),
    ("error_code",),
    ("class",),
)
"""Where an answer says its code."""


def codes_of(answer: Mapping[str, Any]) -> Iterable[str]:
    """The codes that an answer's fields hold, in lower case."""
    for path in CODE_FIELDS:
        value: Any = answer
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, str | int) and not isinstance(value, bool):
            yield str(value).lower()


def text_of(answer: Mapping[str, Any]) -> str:
    """What an answer says of its failure, in its own words; '' when nothing."""
    error = answer.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    if not error:
        base = answer.get("base_resp")
        error = base.get("status_msg") if isinstance(base, Mapping) else None
    return str(error) if error else ""


def classify(status: int, answer: Mapping[str, Any]) -> FailureClass:
    """The class of an answer that is no success: its codes, then its status, then its phrases.

    Codes come first, as quota is often told under the status of a rate limit (429) or of a breakdown (500).
    """
    for code in codes_of(answer):
        if code in CODE_CLASSES:
            return CODE_CLASSES[code]
    by_status = STATUS_CLASSES.get(status, FailureClass.UNKNOWN)
    if by_status in (FailureClass.AUTH, FailureClass.BILLING_CAP):
        return by_status
    by_phrase = next((found for pattern, found in PHRASES if pattern.search(text_of(answer))), FailureClass.UNKNOWN)
    # Of a 429 the text may only say that it is worse than it looks.
    return by_phrase if by_phrase is not FailureClass.UNKNOWN else by_status
