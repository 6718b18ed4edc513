"""Settings from the environment: right, or every mistake at once."""

from __future__ import annotations

import pytest

from executor_service.settings import ExecutorSettings
from scheduler_service.settings import SchedulerSettings
from service_runtime.settings import SettingsError, load_settings


def test_the_defaults_are_the_contracts() -> None:
    settings = load_settings(SchedulerSettings, {})
    rules = settings.rules
    assert (rules.window.total_seconds(), rules.checks.rate_threshold, rules.checks.min_sample) == (3_600, 0.3, 10)
    assert (rules.checks.breaker.failure_threshold, rules.checks.breaker.open_duration.total_seconds()) == (3, 1_800)
    assert (settings.tick_interval_ms, settings.leader_lease_ms, settings.lease_ttl_ms) == (5_000, 3_000, 600_000)
    assert (settings.scheduler_grpc_address, settings.scheduler_http_address) == ("127.0.0.1:50051", "127.0.0.1:5221")
    assert settings.targets == ("127.0.0.1:50052",)
    executor = load_settings(ExecutorSettings, {})
    assert (executor.mem_per_task_mb, executor.cpu_per_task, executor.hk_minimax_max_runs) == (500, 0.5, 8)
    assert (executor.hk_minimax_url, executor.session_process_name) == ("http://100.86.118.99:5226", "claude")


def test_every_mistake_is_named_at_once_with_its_variable_and_value() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(
            SchedulerSettings,
            {
                "WINDOW_MS": "-1",
                "TICK_INTERVAL_MS": "soon",
                "SCHEDULER_GRPC_ADDRESS": "127.0.0.1",
                "DISPATCH_RATE_GUARD": "maybe",
                "EXECUTOR_TARGETS": "a:1,a:1",
            },
        )
    lines = str(caught.value).splitlines()
    assert sorted(line.split("=")[0] for line in lines) == [
        "DISPATCH_RATE_GUARD",
        "EXECUTOR_TARGETS",
        "SCHEDULER_GRPC_ADDRESS",
        "TICK_INTERVAL_MS",
        "WINDOW_MS",
    ]
    assert any("'soon'" in line for line in lines)


def test_a_secret_is_not_told() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(ExecutorSettings, {"EXECUTOR_ID": "http://user:hunter2@host"})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(load_settings(SchedulerSettings, {"DATABASE_URL": "postgresql://u:hunter2@h/d"}))


def test_an_empty_variable_is_unset_but_for_the_session_name() -> None:
    assert load_settings(SchedulerSettings, {"DATABASE_URL": "", "WINDOW_MS": ""}).database_url is None
    assert load_settings(ExecutorSettings, {"SESSION_PROCESS_NAME": ""}).session_process_name == ""


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:50051", "localhost:65535", "0.0.0.0:1"])
def test_good_addresses(address: str) -> None:
    assert load_settings(SchedulerSettings, {"SCHEDULER_GRPC_ADDRESS": address}).scheduler_grpc_address == address


@pytest.mark.parametrize("address", ["50051", "host:", "host:65536", ":50051", "::1:50051", "a b:1"])
def test_bad_addresses(address: str) -> None:
    with pytest.raises(SettingsError):
        load_settings(SchedulerSettings, {"SCHEDULER_GRPC_ADDRESS": address})


def test_routes_are_the_references_unless_they_are_said() -> None:
    rules = load_settings(SchedulerSettings, {}).rules
    assert rules.routes == {"talk": "hk-minimax", "research": "hk-minimax", "data": "hk-minimax", "*": "cecelia-run"}
    assert rules.backends == ("cecelia-run", "hk-minimax")
    said = load_settings(SchedulerSettings, {"DISPATCH_ROUTES": " Sweep = gpu.2 , *=cecelia-run,"}).rules
    assert (said.routes, said.backends) == ({"sweep": "gpu.2", "*": "cecelia-run"}, ("cecelia-run", "gpu.2"))


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ("talk", "has the pair 'talk'; must be type=backend"),
        ("talk=a,=b", "has the pair '=b'"),
        ("talk=", "has the pair 'talk='"),
        ("talk=a@b", "has the pair 'talk=a@b'"),
        ("two words=a", "has the pair 'two words=a'"),
        ("**=a", "has the pair '**=a'"),
        ("talk=a,*=b,TALK=c", "has the pair 'TALK=c', and the type 'talk' before"),
        (",", "has no pair"),
    ],
)
def test_a_route_that_is_none_is_named(routes: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(SchedulerSettings, {"DISPATCH_ROUTES": routes})
    assert "DISPATCH_ROUTES" in str(caught.value)
    assert words in str(caught.value)
