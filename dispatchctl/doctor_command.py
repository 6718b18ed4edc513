"""The command `doctor`."""

from __future__ import annotations

import asyncio
import json
import os

import click

from dispatchctl.client import SchedulerClient
from dispatchctl.failures import ExitStatus
from dispatchctl.findings import Finding, Level, is_well, report_lines, summary
from dispatchctl.host_checks import host_findings
from dispatchctl.pair_checks import pair_findings
from dispatchctl.parameters import POSITIVE_DURATION
from dispatchctl.rendering import clean, note, write
from dispatchctl.session import Output, Session, common_options
from service_runtime.clock import SystemClock

LOOK_EVERY_S = 1.0


@click.command()
@click.option("--pre", is_flag=True, help="Look at this machine before a start, instead of a running pair.")
@click.option(
    "--wait", "wait_s", type=POSITIVE_DURATION, metavar="DURATION", help="Look again until all is well, at most so long."
)
@common_options()
@click.pass_obj
def doctor(session: Session, pre: bool, wait_s: float | None) -> int:
    """Look for what is wrong, and say what to do. Status 0: no problem, 1: one at least.

    --pre: Python, settings, ports and who has them, folders, database, the command of the local bridge, limits. Without it: the
    scheduler, its database, leader, executors, backends, clocks, overrides, disk. A warning does not change the status.

    \b
    Example:
      dispatchctl doctor --pre
      dispatchctl doctor --wait 60s -o json
    """
    return asyncio.run(_doctor(session, pre, wait_s))


async def _doctor(session: Session, pre: bool, wait_s: float | None) -> int:
    loop = asyncio.get_running_loop()
    until, said = loop.time() + (wait_s or 0.0), ""
    while True:
        findings = await _look(session, pre)
        if is_well(findings) or loop.time() >= until:
            break
        if (words := summary(findings)) != said:
            note(f"waiting: {words}")
            said = words
        await asyncio.sleep(min(LOOK_EVERY_S, max(until - loop.time(), 0.0)))
    _write(session, findings)
    return ExitStatus.DONE if is_well(findings) else ExitStatus.FAILED


async def _look(session: Session, pre: bool) -> list[Finding]:
    if pre:
        return await host_findings(os.environ)
    # A channel of its own each time: one that has failed waits before it tries again.
    async with SchedulerClient(session.address, session.timeout_s) as client:
        return await pair_findings(client, os.environ, SystemClock())


def _write(session: Session, findings: list[Finding]) -> None:
    match session.output:
        case Output.JSON:
            body = {"well": is_well(findings), "findings": [finding.fields() for finding in findings]}
            write(json.dumps(body, indent=2, ensure_ascii=False))
        case Output.JSONL:
            for finding in findings:
                write(json.dumps(finding.fields(), ensure_ascii=False))
        case Output.NAME:
            for finding in findings:
                if finding.level in (Level.PROBLEM, Level.WARNING):
                    write(clean(f"{finding.category}/{finding.check}").replace(" ", "_"))
        case _:
            for line in report_lines(findings):
                write(line)
