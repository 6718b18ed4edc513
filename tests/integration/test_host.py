"""The machine as the executor sees it: cgroup files, sessions, samples."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from executor_service.core.admission import Limits
from executor_service.host.cgroup import CgroupLimits, read_limits
from executor_service.host.resource_sampler import CpuTimes, ResourceSampler, cpu_usage_pct
from executor_service.host.sessions import count_sessions
from service_runtime.clock import SystemClock

MIB = 1024 * 1024


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_version_2_takes_the_tightest_of_the_ancestors(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    write(root, cgroup__controllers="cpu memory")
    write(
        root / "a", memory__max=str(900 * MIB), memory__stat=f"anon {800 * MIB}\nfile {90 * MIB}\nkernel 0", cpu__max="max 100000"
    )
    write(root / "a/b", memory__max="max", cpu__max="150000 100000")
    write(
        root / "a/b/c", memory__max=str(500 * MIB), memory__stat=f"anon {100 * MIB}\nfile {400 * MIB}", cpu__max="300000 100000"
    )
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b/c\n")
    found = read_limits(own, root)
    assert found == CgroupLimits(900 * MIB, 800 * MIB, 1.5), "100 MiB are left in a, 400 in c; page cache is given back"


def test_version_2_inside_a_container_reads_its_own_root(tmp_path: Path) -> None:
    write(tmp_path / "fs", cgroup__controllers="memory", memory__max=str(64 * MIB), memory__stat=f"anon {MIB}")
    own = tmp_path / "cgroup"
    own.write_text("0::/docker/0123456789\n")
    assert read_limits(own, tmp_path / "fs").memory_limit == 64 * MIB


def test_version_1(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    write(root / "memory", memory__limit_in_bytes="9223372036854771712")
    write(root / "memory/x", memory__limit_in_bytes=str(256 * MIB), memory__stat=f"total_rss {10 * MIB}\ntotal_cache {200 * MIB}")
    write(root / "cpu/x", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    write(root / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    own = tmp_path / "cgroup"
    own.write_text("5:memory:/x\n4:cpu,cpuacct:/x\n")
    assert read_limits(own, root) == CgroupLimits(256 * MIB, 10 * MIB, 0.5)


def test_nothing_to_read_is_no_limit(tmp_path: Path) -> None:
    assert read_limits(tmp_path / "none", tmp_path) == CgroupLimits()


def test_this_machine_can_be_read() -> None:
    found = read_limits()
    assert found.memory_limit is None or found.memory_limit > 0


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


async def test_the_first_measurement_is_no_sample_and_later_ones_are(tmp_path: Path) -> None:
    limited = CgroupLimits(512 * MIB, 100 * MIB, 0.5)
    sampler = ResourceSampler(Limits(), "", SystemClock(), cgroup=lambda: limited)
    assert sampler.report().reason == "no_sample"
    assert sampler.measure(SystemClock().now()) is None
    work = asyncio.ensure_future(sampler.run())
    async with asyncio.timeout(20):
        await sampler.first_sample.wait()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    report = sampler.report()
    assert report.sample is not None
    assert (report.sample.total_mem_mb, report.sample.cpu_cores) == (512, 0.5)
    assert report.sample.free_mem_mb <= 412
    assert report.physical_capacity == 2


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
        _session(name, CECELIA_RUN_ID="x"),
    ]
    try:
        found = count_sessions(name, time.time())
        assert (found.headed, found.headless) == (2, 3)
        later = count_sessions(name, time.time() + 14_500)
        assert (later.headed, later.headless) == (0, 3), "headed ones age out, headless ones do not"
        assert count_sessions("", time.time()).headed == 0
    finally:
        for process in started:
            process.communicate(timeout=10)
