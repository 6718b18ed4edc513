"""The command `up`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from dispatchctl.failures import ExitStatus
from dispatchctl.parameters import DURATION
from dispatchctl.up import Up, UpOptions

WITHIN_S = 600.0
_FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--samples", type=_FOLDER, help="Submit the sample tasks of this folder, such as deploy/examples.")
@click.option("--data-dir", type=_FOLDER, help="Where the data is kept; DISPATCH_DATA_DIR by default.")
@click.option("--fresh", is_flag=True, help="Begin with nothing, in a new folder beside the data; the old data stays.")
@click.option(
    "--port-offset", type=click.IntRange(-65_535, 65_535), default=0, metavar="N", help="Added to each of the four ports."
)
@click.option("--once", is_flag=True, help="End when the samples have ended: status 0 if as they should.")
@click.option("--within", type=DURATION, metavar="DURATION", help="With --once: at the latest; 10m by default.")
@click.option("--interrupt-status", type=click.IntRange(0, 255), default=130, show_default=True, help="Status after Ctrl-C.")
def up(
    samples: Path | None,
    data_dir: Path | None,
    fresh: bool,
    port_offset: int,
    once: bool,
    within: float | None,
    interrupt_status: int,
) -> int:
    """Run both services on this machine until Ctrl-C, which ends their runs too.

    \b
    Example:
      dispatchctl up --samples deploy/examples
      dispatchctl up --data-dir /tmp/dispatch
      dispatchctl up --fresh --port-offset 100

    A second pair beside the first takes --port-offset, with which the data folder has a name of its own too, unless one is named.
    Further settings come from the environment, such as SCHEDULER_GRPC_ADDRESS, DATABASE_URL or CECELIA_RUN_PATH.
    """
    if once and samples is None:
        raise click.UsageError("--once goes with --samples only")
    if within is not None and not once:
        raise click.UsageError("--within goes with --once only")
    options = UpOptions(samples, data_dir, once, WITHIN_S if within is None else within, fresh, port_offset)
    status = asyncio.run(Up(options, os.environ).run())
    return interrupt_status if status == ExitStatus.INTERRUPTED else status
