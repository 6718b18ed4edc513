"""What `doctor --pre` makes of this machine and its environment."""

from __future__ import annotations

import os
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from dispatchctl import host_checks as checks
from dispatchctl.findings import Finding, Level, is_well

Usage = namedtuple("Usage", "total used free")
SECRET = "geheim"


def free_environ(folder: Path, **more: str) -> dict[str, str]:
    """Ports that are free, a folder of the test's own, and a command that is there."""
    addresses = {f"{service}_{kind}_ADDRESS": "127.0.0.1:0" for service in ("SCHEDULER", "EXECUTOR") for kind in ("GRPC", "HTTP")}
    own = {"DISPATCH_DATA_DIR": str(folder / "data"), "CECELIA_RUN_PATH": "/bin/sh", "HK_MINIMAX_URL": "http://127.0.0.1:9"}
    return {**addresses, **own, "PATH": os.environ["PATH"], "HOME": str(folder), **more}


def named(findings: list[Finding]) -> dict[str, Level]:
    return {f"{finding.category}/{finding.check}": finding.level for finding in findings}


async def test_a_machine_on_which_all_is_well_is_left_as_it_was(tmp_path: Path) -> None:
    found = await checks.host_findings(free_environ(tmp_path))
    assert is_well(found), found
    assert {finding.category for finding in found} == {"python", "settings", "ports", "disk", "database", "backends", "limits"}
    assert list(tmp_path.iterdir()) == []


async def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    for name in ("file", "other"):
        (tmp_path / name).write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        wrong = {
            "EXECUTOR_HTTP_ADDRESS": f"127.0.0.1:{taken.getsockname()[1]}",
            "DISPATCH_DATA_DIR": str(tmp_path / "file"),
            "EXECUTOR_DATA_DIR": str(tmp_path / "other" / "below"),
            "CECELIA_RUN_PATH": "/nonexistent",
            "DATABASE_URL": f"postgresql://me:{SECRET}@127.0.0.1:{unused.getsockname()[1]}/cecelia",
            "FAILURE_THRESHOLD": "0",
        }
        found = await checks.host_findings(free_environ(tmp_path, **wrong))
    bad = [name for name, level in named(found).items() if level is Level.PROBLEM]
    assert bad == [
        "settings/values",
        "ports/EXECUTOR_HTTP_ADDRESS",
        "disk/DISPATCH_DATA_DIR",
        "disk/EXECUTOR_DATA_DIR",
        "database/DATABASE_URL",
        "backends/local bridge",
    ]
    assert all(finding.remedy for finding in found if finding.level is Level.PROBLEM)
    assert str(os.getpid()) in next(finding.detail for finding in found if finding.check == "EXECUTOR_HTTP_ADDRESS")
    assert SECRET not in repr(found)


async def test_wrong_addresses_are_a_finding_not_an_error(tmp_path: Path) -> None:
    environ = free_environ(tmp_path, SCHEDULER_GRPC_ADDRESS="nowhere", DATABASE_URL=f"postgresql://me:{SECRET}@[nonsense/x")
    found = await checks.host_findings(environ)
    assert named(found)["settings/values"] is Level.PROBLEM
    assert named(found)["ports/addresses"] is Level.SKIPPED
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("free_mb", "level"),
    [(511, Level.PROBLEM), (512, Level.WARNING), (2047, Level.WARNING), (2048, Level.OK)],
)
def test_room_is_judged_at_its_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_mb: int, level: Level) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free_mb * checks.MIB))
    assert checks.room_finding("DISPATCH_DATA_DIR", tmp_path).level is level


def test_limits_are_judged_at_their_limits() -> None:
    assert [checks.files_finding(n).level for n in (1023, 1024, -1)] == [Level.WARNING, Level.OK, Level.OK]
    assert [checks.processes_finding(n, 100).level for n in (355, 356, -1)] == [Level.WARNING, Level.OK, Level.OK]


async def test_the_database_that_is_named_must_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert (await checks.database_finding(f"postgresql://me:{SECRET}@127.0.0.1:{port}/x")).level is Level.OK
        both = f"postgresql://127.0.0.1:1,127.0.0.1:{port}/x"
        assert (await checks.database_finding(both)).level is Level.OK, "the second of two"
    for untried in ("host=/run/postgresql", "postgresql:///x", "postgresql://%2Frun/x"):
        assert (await checks.database_finding(untried)).level is Level.SKIPPED


def test_places_of_a_database_url() -> None:
    assert checks.database_places("postgresql://a:b@h1,[::1]:5433,h3:1/x?y=z") == [("h1", 5432), ("::1", 5433), ("h3", 1)]
    assert checks.database_places("postgres://a@b@h/x") == [("h", 5432)]
    assert checks.database_places("mysql://h/x") == []
    assert checks.database_places("postgresql://h:port/x") == []


async def test_embedded_programs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "embedded_program", lambda name: None if name == "initdb" else f"/bin/{name}")
    found = await checks.database_finding("")
    assert (found.level, found.detail) == (Level.PROBLEM, "initdb cannot be found or run")


def test_a_bridge_over_http_needs_no_command() -> None:
    assert checks.bridge_finding({"EXECUTOR_BRIDGE_URL": "http://b", "CECELIA_RUN_PATH": "/nonexistent"}).level is Level.SKIPPED
    assert checks.bridge_finding({"CECELIA_RUN_PATH": "sh", "PATH": "/bin"}).level is Level.OK
    assert checks.bridge_finding({"CECELIA_RUN_PATH": "sh", "PATH": "/nonexistent"}).level is Level.PROBLEM
