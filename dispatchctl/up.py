"""Both services on this machine, from their start to their end, and what they do, as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.batch_file import Batch, load_batch
from dispatchctl.client import SchedulerClient
from dispatchctl.columns import BREAKERS, WINDOW_HEADERS, window_rows
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.feed import Feed
from dispatchctl.local_services import LocalServices
from dispatchctl.rendering import note, table_text, write
from dispatchctl.samples import SampleRun
from dispatchctl.session import DEFAULT_ADDRESS, new_request_id
from dispatchctl.up_plan import (
    Addresses,
    Samples,
    child_environ,
    free_addresses,
    load_up_settings,
    plan_samples,
    prepare_logs,
    reachable,
)

CALL_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command was asked for. `once`: end when the samples have ended, after `within_s` seconds at the latest."""

    samples: Path | None = None
    data_dir: Path | None = None
    once: bool = False
    within_s: float = 600.0


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


class Up:
    """One run of `dispatchctl up`."""

    def __init__(self, options: UpOptions, environ: Mapping[str, str]) -> None:
        self._options = options
        self._environ = environ
        self._signal = 0

    async def run(self) -> int:
        """Starts, shows, serves, stops; the exit status. Raises Failure."""
        options, environ = self._options, self._environ
        settings = load_up_settings(environ)
        samples = plan_samples(options.samples, environ) if options.samples is not None else None
        request_id = new_request_id()
        batch = load_batch(samples.tasks.read_text("utf-8"), str(samples.tasks), request_id) if samples else None
        addresses = free_addresses(settings)
        data_dir = (options.data_dir or Path(settings.dispatch_data_dir)).expanduser().absolute()
        place = Place(addresses, data_dir, prepare_logs(data_dir))
        services = LocalServices(place.logs, note)
        with self._signals_cancel(services):
            try:
                await self._start(services, samples, place)
                return await self._serve(services, place, batch, request_id)
            except asyncio.CancelledError:
                if not self._signal:
                    raise
            finally:
                await self._stop(services)
        return ExitStatus.INTERRUPTED if self._signal == signal.SIGINT else ExitStatus.DONE

    @contextlib.contextmanager
    def _signals_cancel(self, services: LocalServices) -> Iterator[None]:
        """The first signal ends the work, so that everything is stopped in order; a second one ends everything at once."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def receive(number: int) -> None:
            if self._signal:
                services.kill()
            elif task is not None:
                self._signal = number
                task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, receive, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def _start(self, services: LocalServices, samples: Samples | None, place: Place) -> None:
        chosen = dict(samples.settings) if samples is not None else {}
        if samples is not None and samples.own_server:
            chosen["HK_MINIMAX_URL"] = await services.start_sample_server(samples.server, self._environ)
        await services.start(place.addresses, child_environ(self._environ, place.addresses, place.data_dir, chosen))
        addresses = place.addresses
        write(f"scheduler   gRPC {addresses.scheduler_grpc}, HTTP {addresses.scheduler_http}")
        write(f"executor    gRPC {addresses.executor_grpc}, HTTP {addresses.executor_http}")
        for name, value in chosen.items():
            write(f"for the samples: {name}={value} (set it yourself to have it otherwise)")
        note("waiting for the database and the executor ...")
        await services.until_serving(addresses)

    async def _serve(self, services: LocalServices, place: Place, batch: Batch | None, request_id: str) -> int:
        async with SchedulerClient(place.client_address, CALL_S) as client:
            feed = Feed(client, write)
            await feed.begin()
            work: list[Coroutine[Any, Any, Any]] = [feed.follow_events(), feed.follow_decisions(), *services.upkeep()]
            background = [asyncio.create_task(one) for one in work]
            shown = asyncio.create_task(self._show(client, feed, place, batch, request_id))
            try:
                done, _ = await asyncio.wait([shown, *background], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                return shown.result()
            finally:
                for task in (shown, *background):
                    task.cancel()
                await asyncio.gather(shown, *background, return_exceptions=True)

    async def _show(self, client: SchedulerClient, feed: Feed, place: Place, batch: Batch | None, request_id: str) -> int:
        """Carries out the samples if there are any, shows where everything is, and serves until a signal comes."""
        run = SampleRun(client, feed, batch, request_id) if batch is not None else None
        if run is not None:
            await run.submit()
            feed.line(f"{'submitted':<12} {len(run.tasks)} sample tasks")
            await self._until_ended(run)
        await _report(client, feed, place, run)
        if self._options.once:
            return ExitStatus.DONE if run is None or not run.unexpected() else ExitStatus.FAILED
        note("serving until Ctrl-C")
        await asyncio.Event().wait()
        return ExitStatus.DONE

    async def _until_ended(self, run: SampleRun) -> None:
        if not self._options.once:
            await run.until_ended()
            return
        try:
            async with asyncio.timeout(self._options.within_s):
                await run.until_ended()
        except TimeoutError as error:
            within = f"{self._options.within_s:g} s"
            raise Failure(
                f"the samples did not end within {within}", f"timed_out: {'; '.join(run.unexpected())}", "raise --within"
            ) from error

    async def _stop(self, services: LocalServices) -> None:
        if self._signal:
            note("stopping: ending the runs, then the services (once more: at once)")
        await services.stop()
        if self._signal:
            note("everything has ended")


async def _report(client: SchedulerClient, feed: Feed, place: Place, run: SampleRun | None) -> None:
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
