"""The committed generated code is what the protos give today: otherwise `make protos` was forgotten."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).resolve().parents[2] / "protos"


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
