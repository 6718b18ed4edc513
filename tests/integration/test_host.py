"""The machine as the executor sees it: cgroup files, sessions, samples."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from executor_service.core.admission import Limits
from executor_service.core.reservation import Room
from executor_service.host.cgroup import CgroupLimits, CpuQuota, read_limits
from executor_service.host.cpu_use import CpuMeter, CpuTimes, cpu_usage_pct, read_core_times, read_cpu_times, usable_cores
from executor_service.host.guarding.files import start_ticks, who_am_i
from executor_service.host.pressure_stall import read_stalls
from executor_service.host.resource_sampler import ResourceSampler
from executor_service.host.run_use import RunUses
from executor_service.host.sessions import Sessions, count_sessions
from executor_service.runs.regular_files import read_regular
from service_runtime.clock import Clock, SystemClock
from tests.fakes.fake_clock import FakeClock

MIB = 1024 * 1024


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def process(folder: Path, groups: str, *mounts: str) -> Path:
    """A process's folder in /proc: its groups, and mounts as `root point kind options`."""
    lines = ["22 1 8:1 / / rw - ext4 /dev/sda rw"]
    for mount in mounts:
        root, point, kind, options = mount.split(" ")
        lines.append(f"30 22 0:30 {root} {point} rw,relatime shared:9 - {kind} {kind} {options}")
    write(folder / "proc", cgroup=groups, mountinfo="\n".join(lines))
    return folder / "proc"


def test_version_2_takes_the_tightest_of_the_ancestors(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    high = str(900 * MIB)
    write(
        root / "a", memory__max="max", memory__high=high, memory__stat=f"anon {800 * MIB}\nfile {90 * MIB}", cpu__max="max 100000"
    )
    write(root / "a/b", memory__max="max", cpu__max="150000 100000", cpu__stat="usage_usec 2500000\nuser_usec 1")
    stat = f"anon {100 * MIB}\nfile {400 * MIB}\nslab_reclaimable {MIB}"
    write(root / "a/b/c", memory__max=str(500 * MIB), memory__stat=stat, cpu__max="300000 100000")
    found = read_limits(process(tmp_path, "0::/a/b/c", f"/ {root} cgroup2 rw"))
    assert (found.memory_limit, found.memory_free) == (500 * MIB, 100 * MIB), "c may use 500, and 100 are left in a"
    assert found.cpu_cores == 1.5
    assert CpuQuota(str(root / "a/b"), 1.5, 2.5) in found.cpu_quotas


def test_what_the_kernel_cannot_give_back_is_used_and_page_cache_is_not(tmp_path: Path) -> None:
    lines = {"anon": 10, "file": 500, "shmem": 20, "slab_reclaimable": 300, "slab_unreclaimable": 5, "kernel_stack": 2, "sock": 1}
    write(tmp_path / "fs", memory__max=str(64 * MIB), memory__stat="\n".join(f"{n} {mb * MIB}" for n, mb in lines.items()))
    found = read_limits(process(tmp_path, "0::/", f"/ {tmp_path / 'fs'} cgroup2 rw"))
    assert found.memory_free == (64 - 38) * MIB


def test_a_limit_whose_use_is_not_told_is_an_error_and_all_of_its_use_counts_where_it_is_not_told_apart(tmp_path: Path) -> None:
    own = process(tmp_path, "0::/", f"/ {tmp_path / 'fs'} cgroup2 rw")
    write(tmp_path / "fs", memory__max=str(64 * MIB))
    with pytest.raises(OSError, match="does not tell"):
        read_limits(own)
    write(tmp_path / "fs", memory__current=str(60 * MIB))
    assert read_limits(own).memory_free == 4 * MIB
    write(tmp_path / "fs", memory__max="lots")
    with pytest.raises(ValueError, match="lots"):
        read_limits(own)


def test_inside_a_container_its_own_group_is_what_is_mounted(tmp_path: Path) -> None:
    write(tmp_path / "fs", memory__max=str(64 * MIB), memory__current="0")
    write(tmp_path / "fs/inner", memory__max=str(32 * MIB), memory__current="0")
    other = tmp_path / "other"
    write(other, memory__max=str(MIB), memory__current="0")
    mounts = (f"/docker/9 {other} cgroup2 rw", f"/docker/0123 {tmp_path / 'fs'} cgroup2 rw")

    def limit(own: str, *shown: str) -> int | None:
        return read_limits(process(tmp_path, f"0::{own}", *shown)).memory_limit

    assert limit("/docker/0123", *mounts) == 64 * MIB, "a mount of another's group says nothing of ours"
    assert limit("/docker/0123/inner", *mounts) == 32 * MIB
    assert limit("/", mounts[1]) == 64 * MIB, "in a namespace of its own"
    assert limit("/../elsewhere", mounts[1]) == 64 * MIB
    assert limit("/docker/4567", f"/ {tmp_path / 'fs'} cgroup2 rw") == 64 * MIB


def test_swap_of_the_group(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    write(root / "a", memory__swap__max=str(100 * MIB), memory__swap__current=str(80 * MIB))
    write(root / "a/b", memory__swap__max=str(50 * MIB), memory__swap__current=str(10 * MIB))
    found = read_limits(process(tmp_path, "0::/a/b", f"/ {root} cgroup2 rw"))
    assert (found.swap_limit, found.swap_used_pct) == (50 * MIB, 80.0)
    write(root / "a/b", memory__swap__max="0")
    assert read_limits(process(tmp_path, "0::/a/b", f"/ {root} cgroup2 rw")).swap_limit == 0


def test_version_1(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    none = "9223372036854771712"
    write(root / "memory", memory__limit_in_bytes=none, memory__stat=f"hierarchical_memory_limit {none}")
    stat = f"rss 1\ntotal_rss {10 * MIB}\ntotal_cache {200 * MIB}\ntotal_swap {16 * MIB}\nhierarchical_memory_limit {128 * MIB}"
    write(
        root / "memory/x", memory__limit_in_bytes=str(256 * MIB), memory__memsw__limit_in_bytes=str(320 * MIB), memory__stat=stat
    )
    write(root / "cpu/x", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    write(root / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    for group in ("x", "y"):
        write(root / "acct" / group, cpuacct__usage="7000000000")
    mounts = [f"/ {root}/{name} cgroup rw,{name}" for name in ("memory", "cpu")] + [f"/ {root}/acct cgroup rw,cpuacct"]
    found = read_limits(process(tmp_path, "5:memory:/x\n4:cpu:/x\n3:cpuacct:/x", *mounts))
    assert (found.memory_limit, found.memory_free) == (128 * MIB, 118 * MIB), "an ancestor that cannot be seen is tighter"
    assert (found.swap_limit, found.swap_used_pct) == (64 * MIB, 25.0)
    assert found.cpu_quotas == (CpuQuota(f"{root}/cpu/x", 0.5, 7.0),)
    elsewhere = read_limits(process(tmp_path, "5:memory:/x\n4:cpu:/x\n3:cpuacct:/y", *mounts))
    assert elsewhere.cpu_quotas[0].used_s is None, "another group's use is not this quota's"


def test_version_1_with_cpu_and_cpuacct_in_one_place(tmp_path: Path) -> None:
    root = tmp_path / "cpu,cpuacct"
    write(root / "a b", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000", cpuacct__usage="1000000000")
    own = process(tmp_path, "4:cpu,cpuacct:/a b", f"/ {root} cgroup rw,cpu,cpuacct")
    assert read_limits(own).cpu_quotas == (CpuQuota(f"{root}/a b", 2.0, 1.0),)


def test_nothing_to_read_is_no_limit(tmp_path: Path) -> None:
    assert read_limits(tmp_path / "none") == CgroupLimits()


def test_this_machine_can_be_read() -> None:
    found = read_limits()
    assert found.memory_limit is None or found.memory_limit > 0
    assert set(usable_cores()) <= set(range(os.cpu_count() or 1))
    times = read_core_times(usable_cores())
    assert times.total >= times.busy > 0


def test_stalls_are_the_groups_own_or_the_machines_and_never_a_neighbours(tmp_path: Path) -> None:
    lines = "some avg10={0}.50 avg60=0.00 avg300=0.00 total=1\nfull avg10={1}.25 avg60=0.00 avg300=0.00 total=1"
    write(tmp_path / "g", memory__pressure=lines.format(3, 2), cpu__pressure=lines.format(5, 4), cgroup__events="populated 1")
    write(tmp_path / "machine", memory=lines.format(7, 6), cpu="some avg10=9.00 avg60=0.00 avg300=0.00 total=1")
    assert read_stalls(tmp_path / "g", limited=True, machine=tmp_path / "machine") == (2.25, 5.5)
    assert read_stalls(None, limited=False, machine=tmp_path / "machine") == (6.25, 9.0)
    assert read_stalls(None, limited=True, machine=tmp_path / "machine") == (None, None)
    assert read_stalls(None, limited=False, machine=tmp_path / "none") == (None, None)
    assert read_limits(process(tmp_path, "0::/g", f"/ {tmp_path} cgroup2 rw")).pressure_dir == tmp_path / "g"
    (tmp_path / "g/cgroup.events").unlink()
    assert read_limits(process(tmp_path, "0::/g", f"/ {tmp_path} cgroup2 rw")).pressure_dir is None, "the topmost group"


def test_cpu_use_is_of_the_quota_where_that_is_tighter_than_the_cores(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 0 0 100 100 0 0 0 50 0\ncpu2 300 1 2 0 0 3 4 5 0 0\nintr 1\n")
    per_second = os.sysconf("SC_CLK_TCK")
    assert read_core_times({2}, stat) == CpuTimes(315 / per_second, 315 / per_second), "core 1 is off"
    assert read_core_times({0, 2}, stat) == CpuTimes(415 / per_second, 615 / per_second)
    quotas = [CpuQuota("/a", 1.5, 30.0), CpuQuota("/b", 4.0, 1.0), CpuQuota("/c", 1.0, None)]
    assert read_cpu_times(quotas, [0, 1], 100.0) == {"/a 1.5": CpuTimes(30.0, 150.0)}
    assert list(read_cpu_times(quotas[1:], [1, 0], 100.0)) == ["cores [0, 1]"]


def test_the_meter_takes_the_mean_of_its_window_and_begins_anew_when_the_limit_changes() -> None:
    meter = CpuMeter(window_s=5.0)
    assert meter.add(0.0, {"a": CpuTimes(0, 0)}) is None
    assert meter.add(1.0, {"a": CpuTimes(1, 1)}) == (100.0, 1.0), "a burst"
    for second in range(2, 6):
        found = meter.add(float(second), {"a": CpuTimes(1, float(second))})
    assert found == (20.0, 5.0)
    assert meter.add(6.0, {"a": CpuTimes(1, 6.0)}) == (0.0, 5.0)
    assert meter.add(7.0, {"b": CpuTimes(1, 7.0)}) is None
    assert meter.add(8.0, {"b": CpuTimes(1.5, 8.0)}) == (50.0, 1.0)
    both = CpuMeter()
    both.add(0.0, {"a": CpuTimes(0, 0), "b": CpuTimes(0, 0)})
    assert both.add(1.0, {"a": CpuTimes(0.25, 1), "b": CpuTimes(0.75, 1)}) == (75.0, 1.0), "the fuller one counts"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (CpuTimes(10, 100), CpuTimes(15, 110), 50.0),
        (CpuTimes(10, 100), CpuTimes(10, 100), None),
        (CpuTimes(10, 100), CpuTimes(9, 110), 0.0),
    ],
)
def test_cpu_use_is_the_difference_of_two_readings(before: CpuTimes, after: CpuTimes, expected: float | None) -> None:
    assert cpu_usage_pct(before, after) == expected


def sampler_of(clock: Clock, cgroup: Callable[[], CgroupLimits]) -> ResourceSampler:
    return ResourceSampler(Limits(), "", clock, RunUses(read_regular), dict, cgroup=cgroup)


async def test_the_first_measurement_is_no_sample_and_later_ones_are() -> None:
    limited = CgroupLimits(512 * MIB, 412 * MIB, cpu_quotas=(CpuQuota("/x", 0.5, 0.0),))
    sampler = sampler_of(SystemClock(), lambda: limited)
    assert sampler.report().reason == "no_sample"
    assert sampler.room([]) == Room(0, "no_sample")
    assert sampler.measure({}) is None
    work = asyncio.ensure_future(sampler.run())
    async with asyncio.timeout(20):
        await sampler.first_sample.wait()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    report = sampler.report()
    assert report.sample is not None
    assert (report.sample.total_mem_mb, report.sample.cpu_cores, report.sample.cpu_usage_pct) == (512, 0.5, 0.0)
    assert report.sample.free_mem_mb <= 412
    assert report.physical_capacity == 2


async def test_a_sampler_that_can_measure_no_more_refuses_after_ten_seconds() -> None:
    clock = FakeClock()
    quota = CpuQuota("/x", 0.5, 0.0)
    sampler = sampler_of(clock, lambda: CgroupLimits(cpu_quotas=(quota,)))
    sampler.measure({})
    clock.advance(seconds=1)
    sample = sampler.measure({})
    assert sample is not None
    sampler.take(sample)
    assert sampler.room([]).reason == ""
    clock.advance(seconds=10.5)
    assert sampler.room([]) == Room(0, "no_sample")
    assert sampler.report().effective_slots == 0
    clock.jump(hours=-1)
    assert sampler.report().reason == "no_sample", "a clock that was set back makes no old sample fresh"


def test_the_state_goes_from_sample_to_sample_and_not_from_question_to_question() -> None:
    clock = FakeClock()
    used = iter([0.0, 0.45, 0.75])  # of a quota of 0.5 cores 90 %, then 75 % on the whole: one slot, if it were the first
    sampler = sampler_of(clock, lambda: CgroupLimits(cpu_quotas=(CpuQuota("/x", 0.5, next(used)),)))
    sampler.measure({})
    for _ in range(2):
        clock.advance(seconds=1)
        sample = sampler.measure({})
        assert sample is not None
        sampler.take(sample)
        assert [sampler.report().effective_slots for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (CgroupLimits(), 40.0),
        (CgroupLimits(swap_limit=0, swap_used_pct=0.0), 0.0),
        (CgroupLimits(swap_limit=MIB, swap_used_pct=70.0), 70.0),
        (CgroupLimits(swap_limit=MIB, swap_used_pct=10.0), 40.0),
    ],
)
def test_swap_is_the_groups_where_it_may_have_any(group: CgroupLimits, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    swap = SimpleNamespace(total=10 * MIB, percent=40.0)
    monkeypatch.setattr("executor_service.host.resource_sampler.psutil.swap_memory", lambda: swap)
    clock = FakeClock()
    sampler = sampler_of(clock, lambda: replace(group, cpu_quotas=(CpuQuota("/x", 0.5, 0.0),)))
    sampler.measure({})
    clock.advance(seconds=1)
    sample = sampler.measure({})
    assert sample is not None
    assert sample.swap_used_pct == expected


def test_the_use_of_a_run_is_that_of_its_guard_and_all_below(tmp_path: Path) -> None:
    hold = "import sys; data = b'x' * (32 << 20); print(flush=True); sys.stdin.buffer.read()"
    grow = (
        "import subprocess, sys; data = b'x' * (32 << 20)\nfor _ in range(12_000_000): pass\n"
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {hold!r}])\nchild.wait()"
    )
    process = subprocess.Popen([sys.executable, "-S", "-c", grow], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    uses = RunUses(read_regular)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert uses.look({"run": tmp_path}) == {}, "nobody has claimed it yet"
        claim = who_am_i() | {"pid": process.pid, "start_ticks": start_ticks(process.pid)}
        (tmp_path / "claim").write_text(json.dumps(claim))
        found = uses.look({"run": tmp_path})["run"]
        assert 66 < found.memory_mb < 110, "32 MiB of its own and of its child, and two interpreters"
        assert found.cpu_seconds > 0
        for wrong in ({"start_ticks": 1}, {"pid_namespace": "pid:[1]"}, {"boot_id": "before"}, {"pid": "x"}):
            (tmp_path / "claim").write_text(json.dumps({**claim, **wrong}))
            assert RunUses(read_regular).look({"run": tmp_path}) == {}
        (tmp_path / "claim").unlink()
        os.mkfifo(tmp_path / "claim")
        assert RunUses(read_regular).look({"run": tmp_path}) == {}, "a pipe in its place hangs nobody"
        assert set(uses.look({"run": tmp_path})) == {"run"}
    finally:
        process.communicate(timeout=10)
    assert uses.look({"run": tmp_path}) == {}, "its processes have ended"


def _session(name: str, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
    """A process of that name that does nothing."""
    program = f"import ctypes, sys; ctypes.CDLL(None).prctl(15, b{name!r}); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **env},
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_sessions_are_counted_by_name_arguments_age_and_marker() -> None:
    name = f"sess{os.getpid()}"[:15]
    started = [
        _session(name),
        _session(name),
        _session(name, "-p"),
        _session(name, "--print"),
        # two runs of ours: one of two processes
        _session(name, CECELIA_RUN_ID="x"),
        _session(name, "-p", CECELIA_RUN_ID="x"),
        _session(name, CECELIA_RUN_ID="y"),
        _session("other", "-p"),
    ]
    ended = _session(name)
    ended.kill()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it is not reaped yet
    try:
        found = count_sessions(name, time.time())
        assert (found.headed, found.headless) == (2, 4), "one that has ended and waits for its parent is none"
        later = count_sessions(name, time.time() + 14_500)
        assert (later.headed, later.headless) == (0, 4), "headed ones age out, headless ones do not"
        assert count_sessions("", time.time()) == Sessions(0, 0)
    finally:
        for process in started:
            process.communicate(timeout=10)
        ended.communicate(timeout=10)
