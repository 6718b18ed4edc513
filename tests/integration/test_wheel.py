"""What an installed wheel has: the files that are no Python, too."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = [
    "scheduler_service/http/static/*",
    "scheduler_service/storage/migrations/*.sql",
    "scheduler_service/storage/queries/*.sql",
]


def test_a_wheel_carries_the_page_and_the_sql(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    for pattern in DATA:
        wanted = list(ROOT.glob(pattern))
        assert wanted, pattern
        for path in wanted:
            assert packed.get(str(path.relative_to(ROOT))) == path.read_bytes(), path
    documents = {name: text for name, text in packed.items() if name.startswith("scheduler_service/documents/")}
    served = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".svg", ".png")]
    wanted_documents = {f"scheduler_service/documents/{path.relative_to(ROOT / 'docs')}": path.read_bytes() for path in served}
    assert "scheduler_service/documents/index.md" in wanted_documents
    assert documents == wanted_documents
