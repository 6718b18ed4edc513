"""Plug-ins as an installation has them: a module and a dist-info folder, in a folder that Python looks into."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"

GOOD = """
from executor_service.backends.in_process import InProcess
from executor_service.backends.replies import completed
from executor_service.core.run import BackendKind

class Echo(InProcess):
    name = "{name}"
    kind = BackendKind.SHARED
    max_runs = 3

    async def work(self, spec):
        return completed(spec.title)

def create(settings, environ):
    return Echo()
"""


def code_of_the_page() -> str:
    """The backend that docs/backends.md writes."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(code)


def install(folder: Path, distribution: str, modules: Mapping[str, str], backends: Mapping[str, str]) -> None:
    """A distribution with its modules (name to code) and its entry points (backend to `module:attribute`)."""
    folder.mkdir(exist_ok=True)
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
    points = "".join(f"{backend} = {value}\n" for backend, value in backends.items())
    (info / "entry_points.txt").write_text(f"[cecelia_dispatch.backends]\n{points}", encoding="utf-8")
