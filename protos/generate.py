"""Generates Python from the protos into an emptied folder: `python protos/generate.py [FOLDER]` (default protos/gen)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).resolve().parent


def generate(target: Path) -> None:
    """Empties `target` and fills it. Raises CalledProcessError when protoc complains."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("cecelia/**/*.proto"))
    scripts = str(Path(sys.executable).parent)
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTOS}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
        *sources,
    ]
    subprocess.run(command, check=True, env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        generate(Path(sys.argv[1]))
    else:
        generate(PROTOS / "gen")
        # Made from what has just been generated.
        from dispatchctl.api.service_config import files

        for name, text in files().items():
            (PROTOS / name).write_text(text, encoding="utf-8")
