"""The command `up`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from dispatchctl.parameters import DURATION
from dispatchctl.up import Up, UpOptions

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--samples", type=_FOLDER, help="Submit the sample tasks of this folder, such as deploy/examples.")
@click.option("--data-dir", type=_FOLDER, help="Where the data is kept; DISPATCH_DATA_DIR by default.")
@click.option("--once", is_flag=True, help="End when the samples have ended: status 0 if as they should.")
@click.option("--within", type=DURATION, default="10m", metavar="DURATION", help="With --once: at the latest.")
def up(samples: Path | None, data_dir: Path | None, once: bool, within: float) -> int:
    """Run both services on this machine until Ctrl-C, which ends their runs too.

    \b
    Example:
      dispatchctl up --samples deploy/examples
      dispatchctl up --data-dir /tmp/dispatch

    Further settings come from the environment, such as SCHEDULER_GRPC_ADDRESS, DATABASE_URL or CECELIA_RUN_PATH.
    """
    if once and samples is None:
        raise click.UsageError("--once goes with --samples only")
    return asyncio.run(Up(UpOptions(samples, data_dir, once, within), os.environ).run())
