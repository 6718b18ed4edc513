"""The embedded PostgreSQL with real processes: roles, kill -9 of either side, closed folders, clear errors."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from scheduler_service.storage import embedded, postgres_launcher
from scheduler_service.storage.embedded import EmbeddedPostgres
from scheduler_service.storage.embedded_folder import DataDirInUse, DataDirUnwritable
from scheduler_service.storage.embedded_programs import EmbeddedPostgresMissing, binaries
from service_runtime.lifecycle import StartupError

DEADLINE_S = 30.0
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root's processes may reach")

_SCHEDULER = """
import asyncio, pathlib, sys
from scheduler_service.storage.embedded import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
    await server.start()
    print("postmaster", server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may pass through, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="cecelia-embedded-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def made_cluster() -> Iterator[Path]:
    """A data folder with a cluster that has stopped; tests take copies."""
    folder = Path(tempfile.mkdtemp(prefix="cecelia-embedded-"))
    folder.chmod(0o711)

    async def make() -> None:
        async with EmbeddedPostgres(folder / "data"):
            pass

    asyncio.run(make())
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data_dir(made_cluster: Path, open_folder: Path) -> Path:
    """A data folder of this test alone, with a cluster."""
    return _copy(made_cluster, open_folder / "data")


def _copy(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", "--", source, target], check=True)
    return target


async def _until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, f"not in time: {what}"
        await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def _scheduler(folder: Path) -> tuple[asyncio.subprocess.Process, int]:
    """A process of its own that runs the server in the folder, and the server's pid."""
    scheduler = await asyncio.create_subprocess_exec(sys.executable, "-c", _SCHEDULER, str(folder), stdout=subprocess.PIPE)
    assert scheduler.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        async for line in scheduler.stdout:
            if line.startswith(b"postmaster "):
                return scheduler, int(line.split()[1])
    raise AssertionError("the scheduler ended before its server ran")


async def _value(url: str, statement: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as connection:
        cursor = await connection.execute(statement.encode())
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None


# --- what a fresh one is


async def test_fresh_cluster(open_folder: Path) -> None:
    async with EmbeddedPostgres(open_folder / "not" / "yet" / "there") as server:
        url = server.database_url
        assert await _value(url, "SELECT current_user || '@' || current_database()") == "cecelia@cecelia"
        shown = {
            "idle_in_transaction_session_timeout": "2s",
            "lock_timeout": "1s",
            "statement_timeout": "5s",
            "data_checksums": "on",
            "fsync": "on",
            "synchronous_commit": "on",
            "listen_addresses": "127.0.0.1",
            "server_encoding": "UTF8",
        }
        for name, expected in shown.items():
            assert await _value(url, f"SHOW {name}") == expected, name
        assert await _value(server.admin_url, "SHOW unix_socket_directories") == ""
        assert await _value(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert (server.data_dir / "secrets.json").stat().st_mode & 0o777 == 0o600
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await _value(url.replace(f":{server._folder.passwords['cecelia']}@", ":wrong@"), "SELECT 1")
    assert not list(server.data_dir.glob("initdb.*")), "the workshop, with the superuser's password in it, is still there"


async def test_reader_sees_later_tables_and_changes_nothing(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as server:
        await _value(server.database_url, "CREATE TABLE later AS SELECT 42 AS answer")
        assert await _value(server.reader_url, "SELECT answer FROM later") == 42
        with pytest.raises(errors.ReadOnlySqlTransaction):
            await _value(server.reader_url, "DELETE FROM later")
        with pytest.raises(errors.InsufficientPrivilege):
            await _value(server.reader_url + "?options=-cdefault_transaction_read_only%3Doff", "DELETE FROM later")


async def test_the_service_file_leads_a_reader_to_the_port_of_this_start(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = data_dir / "pg_service.conf"
    file.write_text("left over", encoding="utf-8")
    file.chmod(0o644)
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        secrets = json.loads((data_dir / "secrets.json").read_text("utf-8"))
        (data_dir / "secrets.json").write_text(json.dumps({**secrets, "port": taken.getsockname()[1]}), encoding="utf-8")
        async with EmbeddedPostgres(data_dir) as server:
            assert f"port={server.port}\n" in file.read_text("utf-8")
            assert file.stat().st_mode & 0o777 == 0o600
            for name, value in {"PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGUSER": "postgres", "PGPASSWORD": "x"}.items():
                monkeypatch.setenv(name, value)
            assert await _value("service=cecelia", "SELECT current_user || '@' || current_database()") == "cecelia_reader@cecelia"
    assert not list(data_dir.glob(".*.new"))


# --- ports and identity


async def test_port_stays_and_moves_only_when_taken(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    ports, pids = [], []
    for _ in range(2):
        async with server:
            ports.append(server.port)
            pids.append(server.pid)
    assert ports[0] == ports[1]
    assert pids[0] != pids[1]
    with socket.create_server(("127.0.0.1", ports[0])):
        async with server:
            assert server.port != ports[0]
            assert await _value(server.database_url, "SELECT 1") == 1


async def test_never_takes_another_postgres_for_its_own(
    data_dir: Path, made_cluster: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same passwords, and the port is believed free: only the identity tells them apart."""
    async with EmbeddedPostgres(_copy(made_cluster, open_folder / "other")) as other:
        real = embedded._free_port
        offered = iter([other.port])
        monkeypatch.setattr(embedded, "_free_port", lambda wanted: next(offered, None) or real(0))
        async with EmbeddedPostgres(data_dir) as server:
            assert server.port != other.port
            assert await _value(server.admin_url, "SHOW data_directory") == str(data_dir / "postgres")


# --- kill -9


async def test_killed_postgres_comes_back_on_its_port_with_its_data(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as server:
        supervision = asyncio.create_task(server.supervise())
        await _value(server.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        url = server.database_url
        for times in (1, 2):
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await _until(lambda times=times: server.restarts == times, "the restart")  # type: ignore[misc]  # default binds early
            assert await _value(url, "SELECT answer FROM kept") == 42
    await asyncio.wait_for(supervision, DEADLINE_S)


async def test_restarts_have_a_budget(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "RESTARTS_MAX", 0)
    async with EmbeddedPostgres(data_dir) as server:
        supervision = asyncio.create_task(server.supervise())
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(StartupError, match="died 1 times"):
            await asyncio.wait_for(supervision, DEADLINE_S)


async def test_killed_scheduler_takes_postgres_along_and_the_next_finds_everything(data_dir: Path) -> None:
    scheduler, postmaster = await _scheduler(data_dir)
    scheduler.kill()
    await scheduler.wait()
    # At once, while the old one may still be stopping.
    async with EmbeddedPostgres(data_dir) as server:
        assert await _value(server.database_url, "SELECT 1") == 1
        assert not _alive(postmaster)
        log = (data_dir / "postgres.log").read_text(encoding="utf-8")
        assert "received fast shutdown request" in log
        assert "was not properly shut down" not in log


async def test_kill_in_the_middle_of_initdb_leaves_nothing_that_looks_finished(open_folder: Path) -> None:
    folder = open_folder / "data"
    scheduler = await asyncio.create_subprocess_exec(sys.executable, "-c", _SCHEDULER, str(folder), stdout=subprocess.PIPE)
    await _until(lambda: any(folder.glob("initdb.*/postgres/PG_VERSION")), "initdb under way")
    scheduler.kill()
    await scheduler.wait()
    assert not (folder / "postgres").exists()
    # At once, while the one broken off may still be at it; the second time clears what that left.
    for _ in range(2):
        async with EmbeddedPostgres(folder) as server:
            assert await _value(server.database_url, "SELECT 1") == 1
    assert not list(folder.glob("initdb.*"))


async def test_pid_file_that_names_a_stranger_is_stale(data_dir: Path) -> None:
    """After a reboot the number is another program's; PostgreSQL itself would refuse to start."""
    cluster = data_dir / "postgres"
    owner = cluster.stat().st_uid
    stranger = subprocess.Popen(["sleep", "60"], user=owner if os.geteuid() == 0 else None)
    try:
        pid_file = cluster / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{cluster}\n1\n5432\n\n127.0.0.1\n", encoding="ascii")
        os.chown(pid_file, owner, -1)
        async with EmbeddedPostgres(data_dir) as server:
            assert await _value(server.database_url, "SELECT 1") == 1
        assert stranger.poll() is None, "a process that is not ours was ended"
    finally:
        stranger.kill()
        stranger.wait()


async def test_stop_leaves_no_process(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    await server.start()
    assert len(server._processes()) > 1
    await server.stop()
    assert server._processes() == []


def test_launcher_whose_parent_has_gone_starts_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    command = [sys.executable, "-I", "-S", postgres_launcher.__file__, "1", "", "", "/usr/bin/touch", str(mark)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert result.returncode == 1
    assert "the scheduler has gone" in result.stderr
    assert not mark.exists()


# --- root, and folders that are closed to others


def _capabilities(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise AssertionError("no CapEff")


def _uid(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def _needs_capability() -> None:
    if postgres_launcher.reading_capability() is None:
        pytest.skip("neither CAP_DAC_READ_SEARCH nor CAP_DAC_OVERRIDE here")


@as_root
async def test_root_gives_postgres_no_right_when_all_is_open(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        if any(not folder.stat().st_mode & 0o001 for folder in binaries().parents):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            place.chmod(0o755)
            moved = _copy(binaries().parent, place / "pg") / "bin"
            monkeypatch.setattr(embedded, "binaries", lambda: moved)
        async with EmbeddedPostgres(data_dir) as server:
            assert server.pid is not None
            assert _uid(server.pid) != 0
            assert _capabilities(server.pid) == 0


@as_root
@pytest.mark.parametrize("closed", ["data", "binaries"])
async def test_root_in_a_closed_folder(
    closed: str, made_cluster: Path, open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _needs_capability()
    vault = tmp_path / "vault"
    vault.mkdir(mode=0o700)
    folder = open_folder / "data"
    if closed == "data":
        folder = vault / "data"
    else:
        moved = _copy(binaries().parent, vault / "pg") / "bin"
        monkeypatch.setattr(embedded, "binaries", lambda: moved)
    folder = _copy(made_cluster, folder)
    async with EmbeddedPostgres(folder) as server:
        assert await _value(server.database_url, "SELECT 1") == 1
        assert server.pid is not None
        assert _uid(server.pid) != 0
        capability = postgres_launcher.reading_capability()
        assert capability is not None
        assert _capabilities(server.pid) == 1 << capability
    assert vault.stat().st_mode & 0o777 == 0o700, "a folder of the user's was opened"


@as_root
async def test_parent_death_signal_survives_the_kept_capability(made_cluster: Path, tmp_path: Path) -> None:
    """The kernel clears the signal when a program gains rights by exec; ours must not count as gaining."""
    _needs_capability()
    vault = tmp_path / "vault"
    vault.mkdir(mode=0o700)
    folder = _copy(made_cluster, vault / "data")
    scheduler, postmaster = await _scheduler(folder)
    scheduler.kill()
    await scheduler.wait()
    await _until(lambda: not _alive(postmaster), "the end of PostgreSQL after its parent")


@as_root
async def test_root_who_cannot_keep_the_right_is_told_the_folder(
    made_cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_launcher, "reading_capability", lambda: None)
    vault = tmp_path / "vault"
    vault.mkdir(mode=0o700)
    with pytest.raises(StartupError, match="may not pass through") as raised:
        await EmbeddedPostgres(_copy(made_cluster, vault / "data")).start()
    text = str(raised.value)
    assert "DATABASE_URL" in text
    assert any(str(folder) in text for folder in [*vault.parents, vault, *binaries().parents])


@as_root
async def test_root_goes_on_as_the_user_who_owns_the_cluster(data_dir: Path) -> None:
    """`make run` as a user, then as root: PostgreSQL starts only as the owner of its data."""
    owner = pwd.getpwnam("daemon")
    cluster = data_dir / "postgres"
    for path in (cluster, *cluster.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    async with EmbeddedPostgres(data_dir) as server:
        assert server.pid is not None
        assert _uid(server.pid) == owner.pw_uid


# --- clear errors


async def test_second_scheduler_on_the_folder_is_told_what_to_do(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as first:
        with pytest.raises(DataDirInUse, match="DATABASE_URL"):
            await EmbeddedPostgres(data_dir).start()
        assert await _value(first.database_url, "SELECT 1") == 1
    async with EmbeddedPostgres(data_dir):
        pass


async def test_without_the_wheel_both_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedPostgresMissing) as raised:
        await EmbeddedPostgres(tmp_path / "data").start()
    assert "DATABASE_URL" in str(raised.value)
    assert "[embedded]" in str(raised.value)


async def test_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    with pytest.raises(DataDirUnwritable, match="DISPATCH_DATA_DIR=") as raised:
        await EmbeddedPostgres(tmp_path / "file" / "data").start()
    assert "\n" not in str(raised.value)


async def test_files_of_others_in_the_clusters_place_stay(open_folder: Path) -> None:
    other = open_folder / "postgres" / "letters.txt"
    other.parent.mkdir()
    other.write_text("not ours", encoding="ascii")
    with pytest.raises(StartupError, match="not a PostgreSQL cluster"):
        await EmbeddedPostgres(open_folder).start()
    assert other.read_text(encoding="ascii") == "not ours"


async def test_lost_passwords_are_told(data_dir: Path) -> None:
    (data_dir / "secrets.json").unlink()
    with pytest.raises(StartupError, match="passwords"):
        await EmbeddedPostgres(data_dir).start()


async def test_cluster_of_another_version_is_told(data_dir: Path) -> None:
    (data_dir / "postgres" / "PG_VERSION").write_text("16\n", encoding="ascii")
    with pytest.raises(StartupError, match="PostgreSQL 16"):
        await EmbeddedPostgres(data_dir).start()


async def test_log_is_bounded_at_start(data_dir: Path) -> None:
    with (data_dir / "postgres.log").open("wb") as log:
        log.truncate(11 * 1024 * 1024)
    async with EmbeddedPostgres(data_dir):
        pass
    assert (data_dir / "postgres.log").stat().st_size < 1024 * 1024
