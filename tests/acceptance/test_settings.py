"""Settings at run time against a running pair: docs/how-to-tune.md command by command, the command line's forms, a restart."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.__main__ import main
from scheduler_service.core.tuning import TUNABLES
from tests.acceptance.command_line import Capture, assert_three_lines
from tests.acceptance.programs import Pair, eventually

pytestmark = pytest.mark.usefixtures("at_the_pair")
PAGE = Path(__file__).parents[2] / "docs" / "how-to-tune.md"
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (dispatchctl .*)$", PAGE.read_text("utf-8"), re.MULTILINE)]
THE_FIVE = [
    ("DISPATCH_RATE_THRESHOLD", "0.5"),
    ("DISPATCH_RATE_THRESHOLD", "0.2"),
    ("OPEN_DURATION_MS", "600000"),
    ("OPEN_DURATION_MS", "3600000"),
    ("DISPATCH_MIN_SAMPLE", "20"),
]


def said(capsys: Capture, *words: str) -> Any:
    """What a command answers with -o json."""
    assert main([*words, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def guard(capsys: Capture, name: str) -> dict[str, str]:
    """What a guard says of the local backend."""
    main(["explain", "-o", "json"])
    guards = json.loads(capsys.readouterr().out)["guards"]
    return next(one for one in guards if one["name"] == name and one["backend"] == "cecelia-run")


def open_for_ms(capsys: Capture) -> int:
    """How long a breaker that is tripped now stays open by the setting."""
    breaker = pb.Breaker()
    after = said(capsys, "trip", "hk-minimax", "--reason", "to see its time")["after"]
    for field in ("opened_time", "retry_time"):
        getattr(breaker, field).FromJsonString(after[field])
    said(capsys, "reset", "hk-minimax", "--reason", "seen")
    return round(breaker.retry_time.ToMilliseconds() - breaker.opened_time.ToMilliseconds())


def test_the_page_has_the_five_scenarios_in_their_order() -> None:
    sets = [words for words in COMMANDS if words[:2] == ["settings", "set"]]
    assert [words[2] for words in sets[:5]] == [name for name, _ in THE_FIVE]


@pytest.mark.parametrize("number", range(len(THE_FIVE)))
def test_each_of_the_five_commands_does_what_the_page_says(capsys: Capture, number: int) -> None:
    name, value = THE_FIVE[number]
    words = [words for words in COMMANDS if words[:2] == ["settings", "set"]][number]
    after = said(capsys, *words)["after"]
    assert (after["name"], after["value"], after["origin"]) == (name, value, "override")
    assert after["reason"] == words[words.index("--reason") + 1]
    if name == "DISPATCH_RATE_THRESHOLD":
        assert guard(capsys, "low_success_rate")["limit"] == value
    elif name == "DISPATCH_MIN_SAMPLE":
        assert f"judged from {value} on" in guard(capsys, "low_success_rate")["detail"]
    else:
        assert open_for_ms(capsys) == int(value)


def test_every_other_command_of_the_page_works_too(capsys: Capture) -> None:
    for words in COMMANDS:
        assert main([*words, "--yes"]) == 0, words
        capsys.readouterr()
    assert said(capsys, "settings", "get", "DISPATCH_BREAKER_GUARD")["value"] == "observe"
    for name in ("DISPATCH_BREAKER_GUARD", "DISPATCH_RATE_GUARD"):
        said(capsys, "settings", "reset", name)


def test_a_list_names_every_setting_with_its_unit_and_whence(capsys: Capture) -> None:
    found = {one["name"]: one for one in said(capsys, "settings")["settings"]}
    assert list(found) == sorted(TUNABLES)
    # The pair is started with an interval of its own.
    interval = found["TICK_INTERVAL_MS"]
    assert (interval["value"], interval["unit"], interval["origin"]) == ("200", "ms", "environment")
    assert found["RETRY_BACKOFF_MAX_MS"]["meaning"]
    assert main(["settings", "get", "failure_threshold", "-o", "name"]) == 0
    assert capsys.readouterr().out == "3\n"
    assert main(["settings", "-o", "wide"]) == 0
    assert "slots kept for people" in capsys.readouterr().out


def test_set_and_reset_say_who_why_since_and_until(capsys: Capture) -> None:
    assert main(["settings", "set", "failure_threshold", "5", "--reason", "patience"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^before +FAILURE_THRESHOLD +3 +failures +default", out, re.MULTILINE), out
    assert re.search(r"^after +FAILURE_THRESHOLD +5 +failures +override", out, re.MULTILINE), out
    assert re.match(r"by \S+, patience, since \S+, until dispatchctl settings reset FAILURE_THRESHOLD\n", err), err
    assert main(["settings", "reset", "FAILURE_THRESHOLD", "--reason", "enough"]) == 0
    assert "enough, since now" in capsys.readouterr().err
    assert main(["settings", "reset", "FAILURE_THRESHOLD"]) == 0
    assert "it was not changed" in capsys.readouterr().err


def test_the_audit_log_shows_what_was_changed_by_whom(capsys: Capture) -> None:
    assert main(["settings", "set", "RETRY_BACKOFF_MS", "250ms", "--reason", "a quicker one"]) == 0
    assert main(["cap", "50", "--reason", "a demonstration"]) == 0
    capsys.readouterr()
    entries = said(capsys, "audit", "--target", "RETRY_BACKOFF_MS")["entries"]
    assert (entries[0]["method"], entries[0]["reason"]) == ("SetSetting", "a quicker one")
    assert entries[0]["detail"]["after"] == {"value": "250", "origin": "override"}
    actor = entries[0]["actor"].partition(" (")[0]
    page = said(capsys, "audit", "--actor", actor, "--since", "10m", "-n", "1")
    assert [entry["method"] for entry in page["entries"]] == ["SetBudgetCap"]
    following = said(capsys, "audit", "--actor", actor, "--since", "10m", "-n", "500", "--page-token", page["next_page_token"])
    assert following["entries"] == [] or int(following["entries"][0]["id"]) < int(page["entries"][0]["id"])
    assert main(["audit", "--method", "SetBudgetCap"]) == 0
    assert re.search(r"slots - -> 50 +a demonstration", capsys.readouterr().out)
    assert main(["cap", "off"]) == 0


@pytest.mark.parametrize(
    ("line", "status", "code", "words"),
    [
        ("settings get NOSUCH", 3, "setting_not_found", "dispatchctl settings"),
        ("settings set LEASE_TTL_MS 5", 2, "INVALID_ARGUMENT", "correct NAME"),
        ("settings set OPEN_DURATION_MS 0", 2, "INVALID_ARGUMENT", "correct VALUE"),
        ("settings set OPEN_DURATION_MS soon", 2, "INVALID_ARGUMENT", "correct VALUE"),
        ("settings set DISPATCH_RATE_GUARD maybe", 2, "INVALID_ARGUMENT", "correct VALUE"),
        ("settings set TASK_RETENTION_MS 1d", 2, "confirmation_required", "pass --yes"),
        ("settings reset NOSUCH", 2, "INVALID_ARGUMENT", "correct NAME"),
        ("settings set OPEN_DURATION_MS", 2, "usage", "-h"),
        ("audit --method RunTick", 2, "INVALID_ARGUMENT", "correct --method"),
        ("audit --since yesterday", 2, "usage", "-h"),
    ],
)
def test_errors_say_what_why_and_what_to_do(capsys: Capture, line: str, status: int, code: str, words: str) -> None:
    assert main(shlex.split(line)) == status
    err = capsys.readouterr().err
    assert_three_lines(err, code)
    assert words in err.splitlines()[-1]


def test_a_wrong_value_is_refused_in_the_words_of_the_environment(capsys: Capture) -> None:
    assert main(["settings", "set", "FAILURE_THRESHOLD", "0"]) == 2
    err = capsys.readouterr().err
    assert "FAILURE_THRESHOLD='0': Input should be greater than or equal to 1 (consecutive failures that open a breaker)" in err


async def test_what_was_set_holds_over_a_restart_and_is_shown_in_the_events(pair: Pair) -> None:
    async def status() -> pb.GetStatusResponse:
        async with pair.calls() as stub:
            return await stub.GetStatus(pb.GetStatusRequest(), timeout=10)

    async def ticks() -> bool:
        return (await status()).tick.enabled

    await eventually(ticks)
    async with pair.calls() as stub:
        wanted = pb.SetSettingRequest(name="TICK_ENABLED", value="false", reason="a restart follows")
        assert (await stub.SetSetting(wanted, timeout=10)).after.value == "false"
    assert not (await status()).tick.enabled
    await pair.scheduler.kill()
    await pair.scheduler.start()

    async def leads() -> bool:
        return (await status()).leader

    await eventually(leads)
    assert not (await status()).tick.enabled
    async with pair.calls() as stub:
        before = (await stub.ResetSetting(pb.ResetSettingRequest(name="TICK_ENABLED"), timeout=10)).before
        assert (before.origin, before.reason) == ("override", "a restart follows")
        await eventually(ticks)
        events = stub.WatchEvents(pb.WatchEventsRequest(types=["setting_changed"]), timeout=10)
        told = [(await anext(aiter(events))).event.payload for _ in range(2)]
    assert [(one["previous_value"], one["value"], one["origin"]) for one in told] == [
        ("true", "false", "override"),
        ("false", "true", "default"),
    ]
