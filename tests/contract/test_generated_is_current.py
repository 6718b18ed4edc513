"""What is generated and committed is what its sources give today: otherwise `make protos` or `make docs` was forgotten."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler_service.core import reasons
from scheduler_service.core.events import EVENT_SHAPES, EventType
from service_runtime.error_reasons import ERROR_REASONS
from service_runtime.grpc_errors import STATUS_CODES

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
DOCS = ROOT / "docs"
SOURCES = [
    path for folder in ("service_runtime", "scheduler_service", "executor_service") for path in (ROOT / folder).rglob("*.py")
]


def _files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.suffix in (".py", ".pyi"))
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in found}


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="grpcio-tools (the `dev` extra) is not installed")
def test_generated_code_is_current(tmp_path: Path) -> None:
    fresh = tmp_path / "gen"
    subprocess.run([sys.executable, PROTOS / "generate.py", fresh], check=True, timeout=120)
    expected, committed = _files(fresh), _files(PROTOS / "gen")
    assert sorted(committed) == sorted(expected), "run `make protos`"
    stale = [name for name, text in expected.items() if committed[name] != text]
    assert stale == [], "run `make protos`"


def test_the_reference_pages_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DOCS / "generate.py", tmp_path], check=True, timeout=60)
    fresh = {str(p.relative_to(tmp_path)): p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.*")}
    pages = {"settings.md", "metrics.md", "reason-codes.md", "events.md", "logs.md"}
    assert set(fresh) == pages | {"runbooks/index.md", "images/breaker.svg", "images/check-chain.svg"}
    stale = [name for name, text in fresh.items() if (DOCS / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs`"


def test_every_code_is_told_once() -> None:
    assert set(reasons.REASON_KINDS) == set(reasons.REASON_MEANINGS) == set(reasons.Reason)
    assert set(reasons.HOLD_MEANINGS) == set(reasons.HoldReason) - {reasons.HoldReason.NONE}
    assert set(reasons.EXECUTOR_CODE_MEANINGS) == set(reasons.EXECUTOR_REASON_MAP)
    assert set(EVENT_SHAPES) == set(EventType)


def test_every_reason_of_an_error_in_the_code_is_in_the_table_and_none_other() -> None:
    told = set().union(*(_reasons_in(path) for path in SOURCES))
    assert told <= set(ERROR_REASONS)
    words = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES if path.name != "error_reasons.py")
    assert [reason for reason in ERROR_REASONS if f'"{reason}"' not in words] == []


def _reasons_in(path: Path) -> set[str]:
    """The reasons that a file's errors and problem documents carry as literals."""
    errors = {error.__name__ for error in STATUS_CODES} | {"ErrorInfo"}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            values = [keyword.value for keyword in node.keywords if keyword.arg == "reason"] if name in errors else []
            values += node.args[2:3] if name == "problem" else []
            found |= {value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)}
    return found
