"""The settings of both services, checked by the services themselves, so that all mistakes are told at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

from dispatchctl.failures import ExitStatus, Failure

CHECK_S = 30.0
_SERVICES = ("scheduler_service", "executor_service")


async def settings_failure(environ: Mapping[str, str], known: str = "") -> Failure | None:
    """The error that names every wrong setting, a `known` one a line first; None when all are right."""
    said = await asyncio.gather(*(_mistakes(service, environ) for service in _SERVICES))
    found: dict[str, str] = {}
    for line in [*known.splitlines(), *said[0], *said[1]]:
        found.setdefault(line.partition("=")[0], line)
    if not found:
        return None
    what = "a setting is wrong" if len(found) == 1 else f"{len(found)} settings are wrong"
    remedy = f"correct or unset {', '.join(found)}"
    return Failure(what, f"config_error: {'; '.join(found.values())}", remedy, ExitStatus.USAGE)


async def _mistakes(service: str, environ: Mapping[str, str]) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", service, "--check"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environ),
    )
    try:
        async with asyncio.timeout(CHECK_S):
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = err.decode("utf-8", "replace").splitlines()
    return [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
