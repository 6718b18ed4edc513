"""Which part of the cgroup tree is ours to divide: the real tree, where there is one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from executor_service.host.delegation import delegated_group

NONE = Path("/nonexistent")
GROUP = delegated_group(systemd=NONE)
needs_cgroup = pytest.mark.skipif(GROUP is None, reason="no cgroup v2 is delegated to us here")


def process(folder: Path, lines: str, mounts: str) -> Path:
    """A process's folder as in /proc, in these groups."""
    folder.mkdir()
    (folder / "cgroup").write_text(lines)
    (folder / "mountinfo").write_text(mounts)
    return folder


@pytest.mark.parametrize("lines", ["", "4:memory:/a\n", "0::/../elsewhere\n", "0::/no/such/group\n"])
def test_no_group_of_version_2_means_none(tmp_path: Path, lines: str) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    assert delegated_group(process(tmp_path / "self", lines, mounts), systemd=NONE) is None


def test_a_folder_that_is_no_cgroup_is_not_divided(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "cgroup.controllers").touch()
    (tree / "cgroup.procs").write_text("self\n")
    mounts = f"30 20 0:26 / {tree} rw - cgroup2 cgroup2 rw\n"
    assert delegated_group(process(tmp_path / "self", "0::/\n", mounts), NONE) is None
    assert sorted(entry.name for entry in tree.iterdir()) == ["cgroup.controllers", "cgroup.procs"]


@needs_cgroup
def test_under_systemd_only_a_group_that_it_has_delegated_is_ours(tmp_path: Path) -> None:
    assert GROUP is not None
    unit = GROUP / f"cecelia-test-{uuid4()}"
    below = unit / "below"
    below.mkdir(parents=True)
    somebody = subprocess.Popen(["sleep", "600"])
    own = Path(f"/proc/{somebody.pid}")
    try:
        (below / "cgroup.procs").write_text(str(somebody.pid))
        assert delegated_group(own, systemd=NONE) == below
        assert delegated_group(own, systemd=tmp_path) is None
        try:
            os.setxattr(unit, "trusted.delegate", b"1")
        except OSError as error:
            pytest.skip(f"a cgroup takes no extended attribute here: {error.strerror}")
        assert delegated_group(own, systemd=tmp_path) == below
    finally:
        somebody.kill()
        somebody.wait()
        below.rmdir()
        unit.rmdir()
