"""The alerts hold together: with their own tests, the metrics that there are, their pages, and whoever is told.

A tool that is not installed skips its tests with a reason (Debian: prometheus, prometheus-alertmanager).
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import psycopg
import pytest
import yaml

from dispatchctl.cli import cli
from dispatchctl.session import Session
from scheduler_service.settings import SchedulerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
CASES = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
SEVERITIES = {"critical", "warning", "info", "none"}
PARTS = ["What it means", "What to look at", "What to do", "How it clears"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in read(path)["groups"] for rule in group["rules"]]


ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def call(name: str, *words: object) -> str:
    """What the tool prints; it must be content."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([name, *map(str, words)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- in the eyes of Prometheus' and Alertmanager's own tools


def test_promtool_reads_the_rules() -> None:
    said = call("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert sum(map(int, re.findall(r"(\d+) rules found", said))) == len(rules())


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_the_alerts_do_what_their_cases_say(cases: Path) -> None:
    call("promtool", "test", "rules", cases)


def test_promtool_would_find_a_wrong_case(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "prometheus")
    alerts = tmp_path / "prometheus" / "rules" / "alerts.yml"
    alerts.write_text(alerts.read_text("utf-8").replace("> 86400", ">= 86400"), "utf-8")
    with pytest.raises(AssertionError, match="CeceliaOverrideOld"):
        call("promtool", "test", "rules", tmp_path / "prometheus" / "tests" / "overrides.yml")


def test_amtool_reads_the_configuration() -> None:
    said = call("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")
    assert "2 receivers" in said


@pytest.mark.parametrize("alert", ALERTS)
def test_the_dead_mans_switch_has_a_receiver_of_its_own(alert: str) -> None:
    config = DEPLOY / "alertmanager" / "alertmanager.yml"
    told = call("amtool", "config", "routes", "test", f"--config.file={config}", f"alertname={alert}").strip()
    assert told == ("dead-mans-switch" if alert == "CeceliaDeadMansSwitch" else "operators")


# --- with each other


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for case in (case for path in CASES for group in read(path)["tests"] for case in group.get("alert_rule_test", [])):
        (fires if case["exp_alerts"] else silent).add(case["alertname"])
    assert fires == set(ALERTS)
    assert silent == set(ALERTS) - {"CeceliaDeadMansSwitch"}


def test_every_recorded_series_is_used_and_every_used_one_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for rule in rules() for name in re.findall(r"\b\w+:\w+(?::\w+)?\b", rule["expr"])}
    assert recorded == used


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}/{alert}.md"
    assert rule["annotations"]["description"].endswith(".")


def test_the_configuration_takes_the_rules_up() -> None:
    config = read(DEPLOY / "prometheus" / "prometheus.yml")
    matched = [path for pattern in config["rule_files"] for path in (DEPLOY / "prometheus").glob(pattern)]
    assert sorted(matched) == RULES
    assert config["global"]["external_labels"]["runbooks"].endswith("/docs/runbooks")
    compose = read(DEPLOY / "compose.yaml")["services"]
    assert "./prometheus/rules:/etc/prometheus/rules:ro" in compose["prometheus"]["volumes"]
    port = compose["alertmanager"]["ports"][0].rpartition(":")[2]
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == [f"alertmanager:{port}"]


def test_what_inhibits_and_what_is_inhibited_are_alerts() -> None:
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text("utf-8")
    named = set(re.findall(r"\bCecelia\w+", text))
    assert named
    assert named <= set(ALERTS)


def test_figures_that_follow_settings_are_their_defaults() -> None:
    settings = SchedulerSettings()
    low = ALERTS["CeceliaSuccessRateLow"]["expr"]
    assert f"< {settings.dispatch_rate_threshold}" in low
    assert f">= {settings.dispatch_min_sample}" in low
    assert ALERTS["CeceliaBreakerOpenTooLong"]["for"] == f"{2 * settings.open_duration_ms // 3_600_000}h"


# --- with the metrics


def documented() -> dict[str, str]:
    """Every series name that PromQL may use, and the row of docs/metrics.md that tells it."""
    suffixes = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^(\| `(\w+)` \| (\w+) \|.*)$", text, flags=re.MULTILINE)
    return {name + suffix: row for row, name, kind in rows for suffix in suffixes[kind]}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_series_that_there_are(rule: dict[str, Any]) -> None:
    known = documented()
    assert set(re.findall(r"\bcecelia_(?:scheduler|executor)_[a-z0-9_]+", rule["expr"])) <= set(known)
    # A value that no series has would never match, and nobody would notice.
    for name, matchers in re.findall(r"\b(cecelia_\w+)\{([^}]*)\}", rule["expr"]):
        for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
            closed = re.search(rf"`{label}` \(([^)]*)\)", known[name])
            assert label == "le" or (closed is not None and value in closed[1].split(", ")), (name, label, value)


# --- with the pages


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"index"} == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_a_page_has_its_parts(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text("utf-8")
    assert text.startswith(f"# {alert}\n")
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert [heading.partition(",")[0] for heading in headings] == PARTS
    assert ALERTS[alert]["labels"]["severity"].capitalize() in text or alert == "CeceliaDeadMansSwitch"
    assert "dispatchctl " in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (RUNBOOKS / link).is_file(), link


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each dispatchctl line of each page."""
    for path in sorted(RUNBOOKS.glob("*.md")):
        for line in re.findall(r"^    dispatchctl (.*)$", path.read_text("utf-8"), flags=re.MULTILINE):
            yield path.stem, shlex.split(line)
        for line in re.findall(r"`dispatchctl ([^`]*)`", path.read_text("utf-8")):
            yield path.stem, shlex.split(line)


def parsed(words: list[str]) -> click.Context:
    """The innermost command's context, with its parameters checked; nothing is carried out."""
    context = cli.make_context("dispatchctl", list(words), obj=Session(MappingProxyType({})))
    command: click.Command = cli
    while isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        name, found, rest = command.resolve_command(context, rest)
        assert name is not None
        assert found is not None
        command = found
        context = command.make_context(name, rest, parent=context)
    return context


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_the_commands_of_a_page_can_be_typed(page: str, words: list[str]) -> None:
    parsed(words)


def test_a_command_that_is_none_would_be_found() -> None:
    for wrong in (["breakrs"], ["drain", "maybe"], ["explain", "--no-such-option"]):
        with pytest.raises(click.UsageError):
            parsed(wrong)


async def test_the_statements_of_the_pages_can_be_run(database_url: str) -> None:
    typed = [context for _, words in commands() if (context := parsed(words)).info_name == "psql"]
    statements = [statement for context in typed for statement in context.params["statements"]]
    assert len(statements) > len(ALERTS) / 2
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement)
