"""The sample command as the local bridge calls it: with hardly any environment, and a prompt file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

COMMAND = Path(__file__).parents[2] / "deploy" / "examples" / "cecelia-run"


def run(tmp_path: Path, prompt: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "prompt").write_text(prompt, encoding="utf-8")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CECELIA_TASK_TYPE": "dev"}
    environ["CECELIA_OUTCOME_FILE"] = str(tmp_path / "outcome")
    words = [str(COMMAND), "task", "run", str(tmp_path / "prompt")]
    return subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)


def test_it_reports_what_the_prompt_says(tmp_path: Path) -> None:
    done = run(tmp_path, 'Count "the" words\n\nImporter importer importer\nseconds: 0\n')
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["words"] == 5
    assert found["most_common"][0] == "importer"
    assert not (tmp_path / "outcome").exists()


def test_it_fails_when_asked_to(tmp_path: Path) -> None:
    done = run(tmp_path, "Fail\n\nThis one fails.\nseconds: 0\nexit-status: 3\n")
    assert (done.returncode, done.stdout) == (3, "")
    assert "exit status 3" in done.stderr


def test_it_leaves_an_outcome_when_asked_to(tmp_path: Path) -> None:
    done = run(tmp_path, "Quota\n\nNo quota left.\nseconds: 0\noutcome: rate_limit\nexit-status: 1\n")
    assert done.returncode == 1
    assert json.loads((tmp_path / "outcome").read_text("utf-8"))["class"] == "rate_limit"
