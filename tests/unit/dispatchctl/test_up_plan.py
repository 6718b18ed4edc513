"""What `up` settles before it starts anything."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from pathlib import Path

import pytest

from dispatchctl.failures import Failure
from dispatchctl.up import Up, UpOptions
from dispatchctl.up_plan import (
    Addresses,
    UpSettings,
    child_environ,
    drain_s,
    free_addresses,
    fresh_folder,
    moved,
    plan_samples,
    prepare_logs,
    reachable,
    runs_outlast,
    try_addresses,
)
from service_runtime.settings import load_settings

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
ADDRESSES = Addresses("0.0.0.0:1", "127.0.0.1:2", "[::]:3", "127.0.0.1:4")


@pytest.mark.parametrize(
    ("address", "client"),
    [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("[fe80::1]:1", "[fe80::1]:1")],
)
def test_a_wildcard_is_reached_over_loopback(address: str, client: str) -> None:
    assert reachable(address) == client


def test_the_services_are_told_what_must_agree_and_the_user_keeps_the_rest(tmp_path: Path) -> None:
    environ = {"EXECUTOR_DRAIN_MS": "500", "SCHEDULER_GRPC_ADDRESS": "0.0.0.0:0", "HOME": "/h"}
    told = child_environ(environ, ADDRESSES, tmp_path, {"CPU_PER_TASK": "0.1"})
    assert told["EXECUTOR_TARGETS"] == "[::1]:3"
    assert told["SCHEDULER_GRPC_ADDRESS"] == "0.0.0.0:1"
    assert told["DISPATCH_DATA_DIR"] == str(tmp_path)
    assert (told["EXECUTOR_DRAIN_MS"], told["EXECUTOR_END_RUNS_ON_STOP"]) == ("500", "true")
    assert (told["HOME"], told["CPU_PER_TASK"]) == ("/h", "0.1")


def test_samples_leave_alone_what_the_user_has_set() -> None:
    assert dict(plan_samples(EXAMPLES, {}).settings) == {
        "CPU_PER_TASK": "0.1",
        "CECELIA_RUN_PATH": str(EXAMPLES / "cecelia-run"),
    }
    assert plan_samples(EXAMPLES, {}).own_server
    own = plan_samples(EXAMPLES, {"CPU_PER_TASK": "2", "CECELIA_RUN_PATH": "/bin/x", "HK_MINIMAX_URL": "http://127.0.0.1:1"})
    assert not own.settings
    assert not own.own_server


def test_a_folder_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no samples"):
        plan_samples(tmp_path, {})


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="cannot be written"):
        prepare_logs(tmp_path / "file" / "data")


def settings(**changes: str) -> UpSettings:
    free = {f"{service}_{kind}_ADDRESS": "127.0.0.1:0" for service in ("SCHEDULER", "EXECUTOR") for kind in ("GRPC", "HTTP")}
    return load_settings(UpSettings, {**free, **changes})


def test_a_taken_address_is_named_with_its_setting_and_taker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(Failure, match=rf"{address} is taken by .*{os.getpid()}") as caught:
            free_addresses(settings(EXECUTOR_GRPC_ADDRESS=address))
    assert caught.value.why.startswith("address_in_use: EXECUTOR_GRPC_ADDRESS=")


def test_an_address_of_another_machine_is_not_called_taken() -> None:
    with pytest.raises(Failure, match=r"^192\.0\.2\.1 is no address of this machine$") as caught:
        free_addresses(settings(EXECUTOR_GRPC_ADDRESS="192.0.2.1:50052"))
    assert "EXECUTOR_GRPC_ADDRESS=192.0.2.1:50052" in caught.value.why
    assert caught.value.remedy == "use one of its own, such as EXECUTOR_GRPC_ADDRESS=127.0.0.1:50052"


@pytest.mark.parametrize(
    ("value", "outlast"), [(None, False), ("true", False), ("", False), ("false", True), ("FALSE", True), ("0", True)]
)
def test_runs_outlast_up_only_when_the_user_says_so(tmp_path: Path, value: str | None, outlast: bool) -> None:
    environ = {} if value is None else {"EXECUTOR_END_RUNS_ON_STOP": value}
    assert runs_outlast(child_environ(environ, ADDRESSES, tmp_path, {})) is outlast


def test_a_drain_that_the_user_asks_for_is_waited_for(tmp_path: Path) -> None:
    assert drain_s(child_environ({}, ADDRESSES, tmp_path, {})) == 0
    assert drain_s(child_environ({"EXECUTOR_DRAIN_MS": "30000"}, ADDRESSES, tmp_path, {})) == 30


def test_all_addresses_are_tried_however_many_are_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        taken = [f"127.0.0.1:{server.getsockname()[1]}" for server in (one, other)]
        tried = try_addresses({"A": taken[0], "B": "127.0.0.1:0", "C": taken[1]})
    assert [isinstance(found, Failure) for found in tried.values()] == [True, False, True]
    assert tried["B"] != "127.0.0.1:0"


def test_ports_are_moved_but_not_those_that_the_system_chooses() -> None:
    at = settings(SCHEDULER_GRPC_ADDRESS="0.0.0.0:50051", EXECUTOR_GRPC_ADDRESS="[::1]:50052")
    assert moved(at, 100) == {
        "SCHEDULER_GRPC_ADDRESS": "0.0.0.0:50151",
        "SCHEDULER_HTTP_ADDRESS": "127.0.0.1:0",
        "EXECUTOR_GRPC_ADDRESS": "[::1]:50152",
        "EXECUTOR_HTTP_ADDRESS": "127.0.0.1:0",
    }
    assert moved(at, 0) == at.addresses
    assert moved(settings(SCHEDULER_GRPC_ADDRESS="h:1"), 65_534)["SCHEDULER_GRPC_ADDRESS"] == "h:65535"
    for offset in (65_535, -1, -2):
        with pytest.raises(Failure, match="SCHEDULER_GRPC_ADDRESS=h:1"):
            moved(settings(SCHEDULER_GRPC_ADDRESS="h:1"), offset)


def test_a_fresh_folder_is_beside_the_old_one(tmp_path: Path) -> None:
    now = datetime(2026, 1, 31, 8, 9, 10)
    assert fresh_folder(tmp_path / "data", {}, now) == tmp_path / "data-20260131T080910"
    for setting in ("DATABASE_URL", "EXECUTOR_DATA_DIR"):
        with pytest.raises(Failure, match="--fresh") as caught:
            fresh_folder(tmp_path / "data", {setting: "secret"}, now)
        assert setting in caught.value.why
        assert "secret" not in str(caught.value.lines())


def test_a_second_pair_has_data_of_its_own_unless_it_is_named(tmp_path: Path) -> None:
    usual = settings(DISPATCH_DATA_DIR=str(tmp_path / "data"))

    def folder(environ: dict[str, str], data_dir: Path | None = None, *, fresh: bool = False, offset: int = 0) -> str:
        up = Up(UpOptions(None, data_dir, False, 1.0, fresh, offset), environ)
        return str(up.data_dir(usual).relative_to(tmp_path))

    named = {"DISPATCH_DATA_DIR": str(tmp_path / "data")}
    assert folder({}) == folder(named) == folder(named, offset=100) == "data"
    assert folder({}, offset=100) == "data-ports-100"
    assert folder({}, tmp_path / "other", offset=100) == "other"
    assert folder({}, fresh=True).startswith("data-20")
    assert folder({}, fresh=True, offset=100).startswith("data-ports-100-20")
