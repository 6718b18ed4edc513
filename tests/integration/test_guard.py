"""The guard of a local run, with commands that misbehave: real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from executor_service.backends import local_bridge
from executor_service.backends.local_bridge import LocalBridge
from executor_service.core.run import EndReport, RunOutcome, RunSpec, StartReport, StartVerdict
from executor_service.errors import BackendError
from executor_service.host.delegation import delegated_group
from executor_service.host.guarding import process_tree
from executor_service.host.guarding.files import boot_id, pid_namespace, start_ticks
from executor_service.host.guarding.guard import is_hopeless
from executor_service.host.processes import ProcessIdentity, processes_of_run
from executor_service.runs.output import last_bytes, read_piece

DEADLINE_S = 30.0


class Reports:
    """Takes in start verdicts, and lets a test wait for the first."""

    def __init__(self) -> None:
        self.seen: list[StartReport] = []
        self.first = asyncio.Event()

    def started(self, report: StartReport) -> None:
        self.seen.append(report)
        self.first.set()


class Bench:
    """Runs scripts under a guard."""

    def __init__(self, folder: Path, cgroup: Path | None = None) -> None:
        self.folder = folder
        self.cgroup = cgroup
        self.environ = {"PATH": os.environ["PATH"], "HOME": "/", "SECRET": "hunter2", "PASSED": "on"}
        self.reports = Reports()
        self.run_id = str(uuid4())
        self.run_dir = folder / self.run_id

    def spec(self, **changes: object) -> RunSpec:
        values: dict[str, object] = {
            "run_id": self.run_id,
            "task_id": str(uuid4()),
            "fence": 1,
            "title": "A title",
            "description": "A description",
            "task_type": "dev",
            "backend": "cecelia-run",
            "payload": {},
            "timeout": timedelta(seconds=60),
            "lease_ttl": timedelta(0),
        }
        return RunSpec(**{**values, **changes})  # type: ignore[arg-type]  # fields of the spec

    def bridge(self, script: str, interpreter: str = "/bin/sh") -> LocalBridge:
        command = self.folder / "command"
        command.write_text(f"#!{interpreter}\n{script}\n")
        command.chmod(0o755)
        return LocalBridge(str(command), ("PASSED",), self.environ, grace_s=0.3, cgroup=self.cgroup)

    async def run(self, script: str, **changes: object) -> EndReport:
        bridge, spec = self.bridge(script), self.spec(**changes)
        self.prepare(bridge, spec)
        async with asyncio.timeout(DEADLINE_S):
            return await bridge.execute(spec, self.run_dir, _boot(), self.reports)

    def prepare(self, bridge: LocalBridge, spec: RunSpec) -> None:
        self.run_dir.mkdir(mode=0o700)
        bridge.prepare(spec, self.run_dir)

    def assert_nothing_left(self) -> None:
        assert list(processes_of_run(self.run_id)) == []
        if self.cgroup is not None:
            assert not list(self.cgroup.glob(f"*{self.run_id}*"))


def _boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def _until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not look():
            await asyncio.sleep(0.01)


CGROUP = delegated_group()
BOTH = pytest.param("cgroup", marks=pytest.mark.skipif(CGROUP is None, reason="no cgroup v2 is delegated to us here"))


@pytest.fixture(params=["process groups", BOTH])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path, CGROUP if request.param == "cgroup" else None)


@pytest.fixture
def cgroup_bench(tmp_path: Path) -> Bench:
    if CGROUP is None:
        pytest.skip("no cgroup v2 is delegated to us here")
    return Bench(tmp_path, CGROUP)


async def test_a_command_gets_its_prompt_and_an_environment_of_its_own(bench: Bench) -> None:
    script = 'echo "$1 $2"; cat "$3"; echo; env; pwd; cat <&0; echo end'
    payload = {"repo_path": "/src", "skill_env": {"A-B": "c d"}}
    end = await bench.run(
        script, payload=payload, model="m", provider="p", permission_mode="plan", title="Über", description="x\ny"
    )
    assert end.outcome is RunOutcome.COMPLETED
    assert "Über\n\nx\ny" in end.result
    seen = dict(line.split("=", 1) for line in end.result.splitlines() if "=" in line)
    assert "SECRET" not in seen
    assert "HK_MINIMAX_URL" not in seen
    assert (seen["PASSED"], seen["CECELIA_RUN_ID"], seen["CECELIA_WORK_DIR"]) == ("on", bench.run_id, "/src")
    assert (seen["CECELIA_SKILLENV_AB"], seen["CECELIA_PERMISSION_MODE"], seen["CECELIA_MODEL"]) == ("c d", "plan", "m")
    assert str(bench.run_dir / "work") in end.result
    assert next(report.verdict for report in bench.reports.seen) is StartVerdict.SUCCESS
    assert bench.run_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("script", "exit_code", "number", "error"),
    [
        ("echo oops >&2; exit 3", 3, None, "exit status 3: oops"),
        ("kill -9 $$", None, 9, "signal SIGKILL"),
    ],
)
async def test_a_failure_says_its_exit_status_or_signal(
    bench: Bench, script: str, exit_code: int | None, number: int | None, error: str
) -> None:
    end = await bench.run(script)
    assert (end.outcome, end.exit_code, end.signal, end.error) == (RunOutcome.FAILED, exit_code, number, error)


async def test_only_the_last_64_kib_of_any_bytes_are_the_result(bench: Bench) -> None:
    end = await bench.run("head -c 300000 /dev/urandom; printf '\\000\\377'; printf 'the end'")
    assert end.result.endswith("\ufffd\ufffdthe end")
    assert "\x00" not in end.result
    assert len((bench.run_dir / "result").read_bytes()) == 64 * 1024
    assert (bench.run_dir / "output.log").stat().st_size == 300_009


async def test_of_a_flood_the_head_and_the_tail_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_bridge, "LOG_MAX_BYTES", 8_000)
    end = await bench.run("echo first; seq 1 50000; echo the last words; exit 3")
    assert end.error == "exit status 3: the last words"
    assert sum(path.stat().st_size for path in bench.run_dir.glob("output*.log")) <= 8_000
    assert read_piece(bench.run_dir, 0)[1].startswith(b"first\n1\n2\n")
    assert last_bytes(bench.run_dir, 30).endswith(b"50000\nthe last words\n")


async def test_a_command_that_is_there_and_cannot_be_started_is_the_backends_failure(bench: Bench) -> None:
    bridge, spec = bench.bridge("echo", interpreter="/no/such/interpreter"), bench.spec()
    assert bridge.check_configuration() == ""
    bench.prepare(bridge, spec)
    end = await bridge.execute(spec, bench.run_dir, _boot(), bench.reports)
    assert end.outcome is RunOutcome.NOT_STARTED
    assert [(r.verdict, r.reason) for r in bench.reports.seen] == [(StartVerdict.FAILURE, "executor_failed")]


def test_a_missing_command_is_a_matter_of_configuration(bench: Bench) -> None:
    bridge = LocalBridge(str(bench.folder / "missing"), (), bench.environ)
    assert "CECELIA_RUN_PATH" in bridge.check_configuration()
    bench.run_dir.mkdir()
    with pytest.raises(BackendError):
        bridge.prepare(bench.spec(), bench.run_dir)


async def test_the_time_out_ends_a_command_that_ignores_term(bench: Bench) -> None:
    end = await bench.run("trap '' TERM; while :; do sleep 0.05; done", timeout=timedelta(seconds=0.3))
    assert end.outcome is RunOutcome.TIMED_OUT
    bench.assert_nothing_left()


async def test_a_lease_that_is_not_renewed_ends_the_run(bench: Bench) -> None:
    end = await bench.run("sleep 600", lease_ttl=timedelta(seconds=1))
    assert (end.outcome, end.error) == (RunOutcome.LOST, "its lease ran out")
    bench.assert_nothing_left()


async def test_a_renewed_lease_goes_on(bench: Bench) -> None:
    bridge, spec = bench.bridge("sleep 1.5; echo done"), bench.spec(lease_ttl=timedelta(seconds=1))
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    while not work.done():
        bridge.renew(spec, bench.run_dir, _boot())
        await asyncio.wait([work], timeout=0.2)
    assert work.result().outcome is RunOutcome.COMPLETED


HOSTILE = {
    "ignores TERM": "trap '' TERM; while :; do sleep 0.05; done",
    "leads a session of its own": "setsid sleep 600 & wait",
    "forks twice and leaves": "( setsid sh -c 'sleep 600 & sleep 600' & ) ; sleep 600",
    "holds the pipe": "sleep 600 & sleep 600 & sleep 600",
    "stops itself": "kill -STOP $$",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE.keys())
async def test_cancelling_ends_everything_below(bench: Bench, script: str) -> None:
    bridge, spec = bench.bridge(script), bench.spec()
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    async with asyncio.timeout(DEADLINE_S):
        await bench.reports.first.wait()
        await bridge.cancel(spec, bench.run_dir, "enough")
        end = await work
    assert (end.outcome, end.error) == (RunOutcome.CANCELLED, "enough")
    bench.assert_nothing_left()


async def test_what_a_finished_command_left_behind_is_ended_too(bench: Bench) -> None:
    end = await bench.run("( setsid sleep 600 & ) ; echo fine")
    assert (end.outcome, end.result) == (RunOutcome.COMPLETED, "fine\n")
    bench.assert_nothing_left()


async def test_a_killed_guard_loses_the_run_and_leaves_nothing(bench: Bench) -> None:
    bridge, spec = bench.bridge("( setsid sleep 600 & ) ; sleep 600"), bench.spec()
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    async with asyncio.timeout(DEADLINE_S):
        await bench.reports.first.wait()
        os.kill(json.loads((bench.run_dir / "claim").read_text())["pid"], signal.SIGKILL)
        end = await work
    assert end.outcome is RunOutcome.LOST
    bench.assert_nothing_left()


async def test_a_guard_is_found_again_by_another_executor(bench: Bench) -> None:
    bridge, spec = bench.bridge("sleep 0.5; echo found"), bench.spec()
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    await bench.reports.first.wait()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    again = Reports()
    async with asyncio.timeout(DEADLINE_S):
        end = await bridge.reattach(spec, bench.run_dir, again)
    assert (end.outcome, end.result) == (RunOutcome.COMPLETED, "found\n")
    assert again.seen[0].verdict is StartVerdict.SUCCESS


async def test_a_run_whose_folder_was_removed_is_ended_before_it_is_called_lost(bench: Bench) -> None:
    bridge, spec = bench.bridge("sleep 600"), bench.spec()
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    async with asyncio.timeout(DEADLINE_S):
        await bench.reports.first.wait()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        guard = json.loads((bench.run_dir / "claim").read_text())["pid"]
        shutil.rmtree(bench.run_dir)
        end = await bridge.reattach(spec, bench.run_dir, Reports())
        while psutil.pid_exists(guard) and psutil.Process(guard).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
    assert end.outcome is RunOutcome.LOST
    bench.assert_nothing_left()


async def test_a_run_whose_folder_is_not_there_was_never_begun(bench: Bench) -> None:
    bridge, spec = bench.bridge("echo should not run > ../ran"), bench.spec()
    async with asyncio.timeout(DEADLINE_S):
        end = await bridge.reattach(spec, bench.run_dir, bench.reports)
    assert (end.outcome, end.error) == (RunOutcome.LOST, "the executor stopped before the run was begun")


def test_what_lies_in_a_runs_place_goes_before_it_is_prepared(bench: Bench) -> None:
    bridge = bench.bridge("true")
    bench.run_dir.mkdir()
    (bench.run_dir / "claim").write_text("of a run that was never accepted")
    bridge.prepare(bench.spec(), bench.run_dir)
    assert sorted(path.name for path in bench.run_dir.iterdir()) == ["prompt.txt", "spec.json", "work"]


async def test_a_run_that_was_never_begun_is_given_up_and_can_never_begin(bench: Bench) -> None:
    bridge, spec = bench.bridge("echo should not run > ../ran"), bench.spec()
    bench.prepare(bridge, spec)
    assert (await bridge.reattach(spec, bench.run_dir, bench.reports)).outcome is RunOutcome.LOST
    end = await bridge.execute(spec, bench.run_dir, _boot(), bench.reports)
    assert end.outcome is RunOutcome.LOST
    assert not (bench.run_dir / "ran").exists()
    assert bench.reports.seen == []


async def test_the_outcome_file_says_quota_and_until_when(bench: Bench) -> None:
    said = {"class": "rate_limit", "retry_time": "2026-03-01T14:00:00+00:00", "error": "quota until 14:00"}
    end = await bench.run(f"echo '{json.dumps(said)}' > \"$CECELIA_OUTCOME_FILE\"; exit 1")
    assert (end.error_class, end.error) == ("rate_limit", "exit status 1: quota until 14:00")
    assert end.retry_time is not None
    assert end.retry_time.hour == 14


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        '{"class": "nonsense"}',
        '{"class": []}',
        '{"class": {"a": 1}}',
        "[1]",
        '{"class": "task", "retry_time": "soon"}',
        '{"class": "task", "retry_time": "0001-01-01T00:00:00+05:00"}',
        '{"class": "task", "retry_time": "9999-12-31T23:59:59-05:00"}',
        '{"class": "task", "retry_time": 7, "error": ["x"]}',
    ],
)
async def test_an_outcome_file_that_is_not_as_agreed_does_no_harm(bench: Bench, text: str) -> None:
    end = await bench.run(f"printf '%s' '{text}' > \"$CECELIA_OUTCOME_FILE\"; exit 1")
    assert (end.outcome, end.retry_time) == (RunOutcome.FAILED, None)


@pytest.mark.parametrize("trick", ["mkfifo", "ln -s /dev/zero", "mkdir"])
async def test_what_is_no_file_in_place_of_the_outcome_file_stops_nothing(bench: Bench, trick: str) -> None:
    end = await bench.run(f'{trick} "$CECELIA_OUTCOME_FILE"; echo done')
    assert (end.outcome, end.result) == (RunOutcome.COMPLETED, "done\n")


async def test_the_result_of_binary_output_stays_within_its_bound(bench: Bench) -> None:
    end = await bench.run("head -c 200000 /dev/zero | tr '\\000' '\\377'")
    assert len(end.result.encode()) <= 64 * 1024


async def test_a_cancel_that_comes_before_the_guard_can_be_seen_is_heard(bench: Bench) -> None:
    bridge, spec = bench.bridge("touch ../ran"), bench.spec()
    bench.prepare(bridge, spec)
    await bridge.cancel(spec, bench.run_dir, "never mind")
    async with asyncio.timeout(DEADLINE_S):
        end = await bridge.execute(spec, bench.run_dir, _boot(), bench.reports)
    assert (end.outcome, end.error) == (RunOutcome.CANCELLED, "never mind")
    assert not (bench.run_dir / "ran").exists()
    assert bench.reports.seen == [], "it was never started"


async def test_cancels_at_any_moment_of_the_start_are_heard(bench: Bench) -> None:
    for i in range(12):
        one = Bench(bench.folder / str(i))
        one.folder.mkdir()
        bridge, spec = one.bridge("sleep 600"), one.spec()
        one.prepare(bridge, spec)
        work = asyncio.ensure_future(bridge.execute(spec, one.run_dir, _boot(), one.reports))
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.sleep(i * 0.006)  # the moment is what is tried here
            await bridge.cancel(spec, one.run_dir, "enough")
            assert (await work).outcome is RunOutcome.CANCELLED, f"after {i * 6} ms"
        one.assert_nothing_left()


async def test_a_guard_that_somebody_else_ends_has_lost_its_run(bench: Bench) -> None:
    bridge, spec = bench.bridge("sleep 600"), bench.spec()
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    async with asyncio.timeout(DEADLINE_S):
        await bench.reports.first.wait()
        os.kill(json.loads((bench.run_dir / "claim").read_text())["pid"], signal.SIGTERM)
        end = await work
    assert end.outcome is RunOutcome.LOST, "nobody cancelled it"
    bench.assert_nothing_left()


@pytest.mark.parametrize("field", ["pid_namespace", "boot_id", "start_ticks"])
async def test_a_guard_of_another_boot_or_container_is_gone_whoever_has_its_number_now(tmp_path: Path, field: str) -> None:
    bench = Bench(tmp_path)
    bridge, spec = bench.bridge("sleep 600"), bench.spec()
    bench.prepare(bridge, spec)
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        holder: dict[str, object] = {
            "pid": bystander.pid,
            "start_ticks": start_ticks(bystander.pid),
            "pid_namespace": pid_namespace(),
            "boot_id": boot_id(),
        }
        assert ProcessIdentity(**holder).alive  # type: ignore[arg-type]  # its fields
        holder[field] = 7 if field == "start_ticks" else "another one"
        (bench.run_dir / "claim").write_text(json.dumps(holder))
        (bench.run_dir / "state.json").write_text(json.dumps({"phase": "started", "pid": bystander.pid}))
        async with asyncio.timeout(DEADLINE_S):
            end = await bridge.reattach(spec, bench.run_dir, bench.reports)
            await bridge.cancel(spec, bench.run_dir, "no longer wanted")
            await bridge.make_sure_gone(spec, bench.run_dir)
        assert end.outcome is RunOutcome.LOST
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_cgroup_holds_also_what_hides_from_an_executor_whose_guard_was_killed(cgroup_bench: Bench) -> None:
    bench = cgroup_bench
    hidden = bench.folder / "hidden"
    bridge = bench.bridge(f"env -i setsid sh -c 'echo $$ > {hidden}; while :; do sleep 1; done' & wait")
    spec = bench.spec()
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    async with asyncio.timeout(DEADLINE_S):
        await _until(lambda: hidden.exists() and hidden.read_text().strip() != "")
        pid = int(hidden.read_text())
        process = ProcessIdentity(pid, start_ticks(pid), pid_namespace(), boot_id())
        assert process.alive
        os.kill(json.loads((bench.run_dir / "claim").read_text())["pid"], signal.SIGKILL)
        end = await work
    assert end.outcome is RunOutcome.LOST
    assert not process.alive
    bench.assert_nothing_left()


async def test_the_lease_bounds_the_grace_of_a_time_out(bench: Bench) -> None:
    bridge = bench.bridge("trap '' TERM; while :; do sleep 0.05; done")
    patient = LocalBridge(str(bench.folder / "command"), (), bench.environ, grace_s=60, cgroup=bench.cgroup)
    spec = bench.spec(timeout=timedelta(seconds=0.2), lease_ttl=timedelta(seconds=2))
    bench.prepare(bridge, spec)
    (bench.run_dir / "work").rmdir()
    patient.prepare(spec, bench.run_dir)
    async with asyncio.timeout(DEADLINE_S):
        end = await patient.execute(spec, bench.run_dir, _boot(), bench.reports)
    assert end.outcome is RunOutcome.TIMED_OUT
    bench.assert_nothing_left()


async def test_an_environment_that_no_command_can_take_is_the_tasks_fault(bench: Bench) -> None:
    end = await bench.run("true", payload={"skill_env": {"LARGE": "x" * 200_000}})
    assert end.outcome is RunOutcome.FAILED_FOR_GOOD
    assert [(r.verdict, r.reason) for r in bench.reports.seen] == [(StartVerdict.NEUTRAL, "task")]


async def test_what_a_backend_lost_hold_of_can_be_ended_for_sure(bench: Bench) -> None:
    bridge, spec = bench.bridge("trap '' TERM; ( setsid sleep 600 & ); sleep 600"), bench.spec()
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    await bench.reports.first.wait()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    async with asyncio.timeout(DEADLINE_S):
        await bridge.make_sure_gone(spec, bench.run_dir)
    bench.assert_nothing_left()


def test_processes_of_other_users_stop_no_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def kill(pid: int, number: int) -> None:
        if pid == 20:
            raise PermissionError
        told.append((pid, number))

    monkeypatch.setattr(os, "kill", kill)
    process_tree.signal_all([10, 20, 30, 1, 0], signal.SIGTERM)
    assert told == [(10, signal.SIGTERM), (30, signal.SIGTERM)]


def test_a_group_that_is_held_is_killed_whoever_is_in_it_by_now(tmp_path: Path) -> None:
    born = tmp_path / "born"
    leader = subprocess.Popen(["sh", "-c", f"read _; sleep 600 & echo $! > {born}"], stdin=subprocess.PIPE, process_group=0)
    groups = process_tree.HeldGroups()
    groups.hold(leader.pid)
    leader.communicate(b"go\n", timeout=DEADLINE_S)
    child = int(born.read_text())
    assert ProcessIdentity(child, start_ticks(child), pid_namespace(), boot_id()).alive
    handle = os.pidfd_open(child)
    try:
        groups.kill()
        assert select.select([handle], [], [], DEADLINE_S)[0], "its leader has long gone"
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    ("killed_s_ago", "met_s_ago", "hopeless"),
    [([6.0, 7.0], 0, True), ([6.0, 0.1], 0, False), ([], 0.1, False), ([], 61, True), ([4.0], 61, False)],
)
def test_only_what_was_killed_long_ago_is_given_up(killed_s_ago: list[float], met_s_ago: float, hopeless: bool) -> None:
    now = 1_000_000_000_000
    killed = {pid: now - int(ago * 1e9) for pid, ago in enumerate(killed_s_ago, 100)}
    assert is_hopeless(killed, now, now - int(met_s_ago * 1e9)) is hopeless


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=False).returncode:
        pytest.skip("cannot mount a small file system here (it takes root)")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def test_a_full_disk_loses_no_finished_run(small_disk: Path) -> None:
    bench = Bench(small_disk)
    end = await bench.run("yes | head -c 20000000; echo the end")
    assert (end.outcome, end.exit_code) == (RunOutcome.COMPLETED, 0)
    assert end.result.endswith("the end\n")


async def test_a_full_disk_at_a_restart_does_not_pass_a_living_run_for_lost(small_disk: Path) -> None:
    bench = Bench(small_disk)
    bridge, spec = bench.bridge("sleep 1; echo found"), bench.spec()
    bench.prepare(bridge, spec)
    work = asyncio.ensure_future(bridge.execute(spec, bench.run_dir, _boot(), bench.reports))
    await bench.reports.first.wait()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(b"x" * 8_000_000)
    async with asyncio.timeout(DEADLINE_S):
        end = await bridge.reattach(spec, bench.run_dir, Reports())
    assert (end.outcome, end.result) == (RunOutcome.COMPLETED, "found\n")


async def test_no_zombie_is_left(bench: Bench) -> None:
    await bench.run("true")
    pid = json.loads((bench.run_dir / "claim").read_text())["pid"]
    await _until(lambda: not os.path.exists(f"/proc/{pid}"))
