"""Which part of the cgroup tree is ours to divide: the real tree, where there is one."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest

from executor_service.host.delegation import delegated_group

NONE = Path("/nonexistent")
GROUP = delegated_group(systemd=NONE)
needs_cgroup = pytest.mark.skipif(GROUP is None, reason="no cgroup v2 is delegated to us here")


@pytest.mark.parametrize("lines", ["", "4:memory:/a\n", "0::/../elsewhere\n", "0::/no/such/group\n"])
def test_no_group_of_version_2_means_none(tmp_path: Path, lines: str) -> None:
    own = tmp_path / "cgroup"
    own.write_text(lines)
    assert delegated_group(own, systemd=NONE) is None


def test_a_folder_that_is_no_cgroup_is_not_divided(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "cgroup.procs").touch()
    assert delegated_group(tmp_path / "own", tmp_path, NONE) is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cgroup.controllers", "cgroup.procs", "own"]


@needs_cgroup
def test_under_systemd_only_a_group_that_it_has_delegated_is_ours(tmp_path: Path) -> None:
    assert GROUP is not None
    unit = GROUP / f"cecelia-test-{uuid4()}"
    below = unit / "below"
    below.mkdir(parents=True)
    base = next(folder for folder in (unit, *unit.parents) if not (folder.parent / "cgroup.controllers").exists())
    own = tmp_path / "own"
    own.write_text(f"0::/{below.relative_to(base)}\n")
    try:
        assert delegated_group(own, systemd=NONE) == below
        assert delegated_group(own, systemd=tmp_path) is None
        try:
            os.setxattr(unit, "trusted.delegate", b"1")
        except OSError as error:
            pytest.skip(f"a cgroup takes no extended attribute here: {error.strerror}")
        assert delegated_group(own, systemd=tmp_path) == below
    finally:
        below.rmdir()
        unit.rmdir()
