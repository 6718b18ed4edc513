"""What `up` shows when the samples have ended: the window, the breakers, and what is where."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import BREAKERS, WINDOW_HEADERS, window_rows
from dispatchctl.feed import Feed
from dispatchctl.rendering import table_text, write
from dispatchctl.samples import SampleRun
from dispatchctl.session import DEFAULT_ADDRESS
from dispatchctl.up_plan import Addresses, reachable


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is."""

    addresses: Addresses
    data_dir: Path
    logs: Path

    @property
    def client_address(self) -> str:
        """The scheduler for clients on this machine."""
        return reachable(self.addresses.scheduler_grpc)


async def report(client: SchedulerClient, feed: Feed, place: Place, run: SampleRun | None) -> None:
    """The window, the breakers, and what is where."""
    stats = await client.call(client.stub.GetDispatchStats, pb.GetDispatchStatsRequest())
    breakers = await client.call(client.stub.ListBreakers, pb.ListBreakersRequest())
    feed.pause()
    write("")
    if run is not None:
        write(run.summary())
        for line in run.unexpected():
            write(f"  {line}")
        write("")
    write(table_text(WINDOW_HEADERS, window_rows(stats)))
    write("")
    rows = [[cell(breaker) for _, cell in BREAKERS] for breaker in breakers.breakers]
    write(table_text([header for header, _ in BREAKERS], rows))
    write("")
    write(f"gRPC        {place.client_address} (reflection is on: grpcurl -plaintext {place.client_address} list)")
    write(f"status      http://{reachable(place.addresses.scheduler_http)}/")
    write(f"metrics     http://{reachable(place.addresses.scheduler_http)}/metrics")
    write(f"            http://{reachable(place.addresses.executor_http)}/metrics")
    write(f"data        {place.data_dir}")
    write(f"logs        {place.logs}")
    program = _program(place)
    write(f"try         {program} status")
    write(f'            {program} submit --title "Count the words" --description "Count the words of this text." --wait')
    write(f"            {program} explain")


def _program(place: Place) -> str:
    """How `dispatchctl` is called from here."""
    beside = Path(sys.executable).with_name("dispatchctl")
    name = "dispatchctl"
    if shutil.which(name) is None and beside.exists():
        name = os.path.relpath(beside)
    return name if place.client_address == DEFAULT_ADDRESS else f"DISPATCH_ADDRESS={place.client_address} {name}"
