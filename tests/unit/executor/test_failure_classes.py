"""The table of failure classes: what tells of one, and what only looks like it."""

from __future__ import annotations

from typing import Any

import pytest

from executor_service.core.failure_classes import CLASS_MEANINGS, CODE_CLASSES, FailureClass, classify

UNKNOWN = FailureClass.UNKNOWN


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (401, {}, "auth"),
        (403, {"error": "quota exceeded"}, "auth"),
        (402, {}, "billing_cap"),
        (429, {}, "rate_limit"),
        (429, {"error": {"type": "rate_limit_error", "message": "slow down"}}, "rate_limit"),
        (429, {"error": {"code": "insufficient_quota"}}, "billing_cap"),
        (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "billing_cap"),
        (200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, "rate_limit"),
        (200, {"base_resp": {"status_code": 1004, "status_msg": "not authorized"}}, "auth"),
        (500, {"error_code": "BILLING_HARD_LIMIT_REACHED"}, "billing_cap"),
        (400, {"code": "invalid_api_key"}, "auth"),
        (200, {"error": "You exceeded your current usage quota"}, "billing_cap"),
        (200, {"error": "Insufficient credits"}, "billing_cap"),
        (200, {"error": "monthly spending cap reached"}, "billing_cap"),
        (200, {"error": "the quota has been exhausted, try tomorrow"}, "billing_cap"),
        (500, {"error": "Rate-limited"}, "rate_limit"),
        (500, {"error": {"message": "quota exceeded"}}, "billing_cap"),
        (200, {"error": "Too Many Requests"}, "rate_limit"),
    ],
)
def test_what_tells_of_a_class(status: int, answer: dict[str, Any], expected: str) -> None:
    assert classify(status, answer) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "timed out after 1429 minutes",
        "no room in the loom",
        "could not parse the credit card report",
        "the billing module's tests fail",
        "disk quota exceeded",
        "wrote quota.py, 3 lines",
        "authentication failed for the repository",
        "error 429 is documented on page 12",
        "the rate limiter has no test",
        "permission denied",
    ],
)
def test_what_only_looks_like_one(text: str) -> None:
    assert classify(200, {"success": False, "error": text}) is UNKNOWN
    assert classify(500, {"success": False, "error": text}) is UNKNOWN


@pytest.mark.parametrize(
    "answer", [{"code": True}, {"code": None}, {"error": ["quota exceeded"]}, {"base_resp": 1008}, {"code": 5}]
)
def test_fields_of_another_shape_say_nothing_but_their_text(answer: dict[str, Any]) -> None:
    expected = FailureClass.BILLING_CAP if "error" in answer else UNKNOWN
    assert classify(200, answer) is expected


def test_every_class_has_a_meaning_and_every_code_can_be_met() -> None:
    assert set(CLASS_MEANINGS) == set(FailureClass)
    assert all(code == code.lower() for code in CODE_CLASSES)
