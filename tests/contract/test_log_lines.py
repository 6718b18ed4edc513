"""The lines that the services log: each has a meaning, a level that fits it, and both ids of its run."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Read from a folder's name, or before the run's record is known.
WITHOUT_TASK = {"journal_left_over_removed", "journal_record_unreadable", "launch_not_noted", "run_not_taken_up_yet"}
# Fields that hold what people submit, or what they keep secret.
NEVER = {"title", "description", "payload", "result", "prompt", "password", "token", "conninfo", "database_url", "url", "request"}


@pytest.fixture(scope="module")
def log_lines() -> ModuleType:
    spec = importlib.util.spec_from_file_location("log_lines", DOCS / "log_lines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["log_lines"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_line_has_a_meaning_and_every_meaning_a_line(log_lines: ModuleType) -> None:
    found = log_lines.log_lines()
    assert {line.event for line in found} == set(log_lines.MEANINGS)
    assert len(found) > 50


def test_levels_are_those_that_mean_something(log_lines: ModuleType) -> None:
    levels: dict[str, set[str]] = {}
    for line in log_lines.log_lines():
        levels.setdefault(line.event, set()).add(line.level)
        assert re.fullmatch(r"[a-z][a-z_]*", line.event)
        # What has a traceback is a fault, of ours or of a plug-in.
        assert line.level == "error" or not line.traceback, line
    assert all(len(of_event) == 1 for of_event in levels.values())
    assert set().union(*levels.values()) == set(log_lines.LEVELS)


def test_a_line_about_a_run_names_its_task(log_lines: ModuleType) -> None:
    about_runs = [line for line in log_lines.log_lines() if "run_id" in line.fields]
    assert about_runs
    assert {line.event for line in about_runs if "task_id" not in line.fields} == WITHOUT_TASK


def test_no_field_holds_what_people_submit(log_lines: ModuleType) -> None:
    assert [line for line in log_lines.log_lines() if NEVER & set(line.fields)] == []


def test_a_line_that_cannot_be_read_from_the_code_is_refused(log_lines: ModuleType, tmp_path: Path) -> None:
    for wrong in ('_log.info(f"run {x}")', '_log.info("a", *rest)', '_log.info("a", **fields)'):
        (tmp_path / "code.py").write_text(wrong, "utf-8")
        with pytest.raises(ValueError, match=r"code\.py:1"):
            list(log_lines._lines_of(tmp_path / "code.py", "p"))
