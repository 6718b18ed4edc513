"""Settings at run time: an override does to the rules what the environment variable of the same name does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler_service.core.dispatch_checks import GuardMode
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.tuning import TUNABLES, Origin, text_of, tuned
from scheduler_service.settings import SchedulerSettings
from service_runtime.settings import SettingsError, load_settings

# Another value than the default, for each setting.
OTHER = {
    "WINDOW_MS": "60000",
    "DISPATCH_RATE_THRESHOLD": "0.5",
    "DISPATCH_MIN_SAMPLE": "20",
    "DISPATCH_RATE_GUARD": "observe",
    "LOW_RATE_PROBE_INTERVAL_MS": "1500",
    "DISPATCH_BREAKER_GUARD": "off",
    "FAILURE_THRESHOLD": "7",
    "OPEN_DURATION_MS": "600000",
    "INTERACTIVE_RESERVE": "0",
    "RETRY_BACKOFF_MS": "1",
    "RETRY_BACKOFF_MAX_MS": "316224000000",
    "TICK_INTERVAL_MS": "50",
    "TICK_ENABLED": "false",
    "TASK_RETENTION_MS": "5",
    "EVENT_RETENTION_MS": "6",
}


def test_each_setting_is_tried() -> None:
    assert set(OTHER) == set(TUNABLES)


@pytest.mark.parametrize("name", TUNABLES)
def test_an_override_does_what_the_environment_would_do(name: str) -> None:
    value = SchedulerSettings.value_of(name, OTHER[name])
    by_environment = load_settings(SchedulerSettings, {name: OTHER[name]}).rules
    assert by_environment != DispatchRules()
    assert tuned(SchedulerSettings().rules, {name: value}) == by_environment
    assert text_of(value) == OTHER[name]


def test_all_of_them_at_once_each_in_its_place() -> None:
    values = {name: SchedulerSettings.value_of(name, text) for name, text in OTHER.items()}
    rules = tuned(DispatchRules(), values)
    assert rules == load_settings(SchedulerSettings, OTHER).rules
    assert (rules.checks.rate_guard, rules.checks.breaker_guard) == (GuardMode.OBSERVE, GuardMode.OFF)
    assert rules.lease_ttl == timedelta(minutes=10), "what executors were told stays"


def test_a_name_of_another_version_says_nothing() -> None:
    assert tuned(DispatchRules(), {"A_SETTING_TO_COME": 1}) == DispatchRules()


def test_the_defaults_of_both_places_agree() -> None:
    assert SchedulerSettings().rules == DispatchRules()


def test_what_is_configured_says_whence() -> None:
    configured = load_settings(SchedulerSettings, {"OPEN_DURATION_MS": "1800000", "DISPATCH_RATE_GUARD": ""}).configured()
    assert set(configured) == set(TUNABLES)
    assert (configured["OPEN_DURATION_MS"].value, configured["OPEN_DURATION_MS"].origin) == (1_800_000, Origin.ENVIRONMENT)
    assert (configured["DISPATCH_RATE_GUARD"].value, configured["DISPATCH_RATE_GUARD"].origin) == ("enforce", Origin.DEFAULT)
    assert all(one.meaning for one in configured.values())


@pytest.mark.parametrize(
    ("name", "text"), [("FAILURE_THRESHOLD", "0"), ("DISPATCH_RATE_THRESHOLD", "nan"), ("DISPATCH_BREAKER_GUARD", "ON")]
)
def test_a_wrong_value_is_refused_in_the_environments_words(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as by_environment:
        load_settings(SchedulerSettings, {name: text})
    with pytest.raises(SettingsError) as at_run_time:
        SchedulerSettings.value_of(name, text)
    assert str(at_run_time.value) == str(by_environment.value)
    assert name in str(at_run_time.value)
