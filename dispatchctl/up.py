"""Both services on this machine, from their start to their end, and what they do, as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dispatchctl.batch_file import Batch, load_batch
from dispatchctl.client import SchedulerClient
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.feed import Feed
from dispatchctl.local_services import LocalServices
from dispatchctl.rendering import note, write
from dispatchctl.samples import SampleRun
from dispatchctl.session import new_request_id
from dispatchctl.up_plan import (
    Samples,
    UpSettings,
    child_environ,
    free_addresses,
    fresh_folder,
    load_up_settings,
    moved,
    plan_samples,
    prepare_logs,
)
from dispatchctl.up_report import Place, report

CALL_S = 5.0
CANCEL_S = 5.0
# Terminals and impatient fingers send two signals at once; only a later one asks for a quicker stop.
IMPATIENT_S = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _lower(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings under the names of their fields."""
    return {name.lower(): value for name, value in settings.items()}


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command was asked for. `once`: end when the samples have ended, after `within_s` seconds at the latest.

    `fresh`: in a new folder beside the old one; `port_offset` is added to each port.
    """

    samples: Path | None
    data_dir: Path | None
    once: bool
    within_s: float
    fresh: bool = False
    port_offset: int = 0


class Up:
    """One run of `dispatchctl up`."""

    def __init__(self, options: UpOptions, environ: Mapping[str, str]) -> None:
        self._options = options
        self._environ = environ
        self._signal = 0
        self._asked = asyncio.Event()
        self._stopping_since = 0.0

    async def run(self) -> int:
        """Starts, shows, serves, stops; the exit status. Raises Failure, and OSError when nothing can be written."""
        options, environ = self._options, self._environ
        settings = await load_up_settings(environ)
        samples = plan_samples(options.samples, environ) if options.samples is not None else None
        request_id = new_request_id()
        batch = load_batch(samples.tasks.read_text("utf-8"), str(samples.tasks), request_id) if samples else None
        addresses = free_addresses(settings.model_copy(update=_lower(moved(settings, options.port_offset))))
        data_dir = self.data_dir(settings)
        place = Place(addresses, data_dir, prepare_logs(data_dir))
        services = LocalServices(place.logs, note)
        with self._signals_ask(services):
            work = asyncio.create_task(self._work(services, samples, place, batch, request_id))
            asked = asyncio.create_task(self._asked.wait())
            try:
                await asyncio.wait([work, asked], return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                await self._stop(services, work)
        if self._signal:
            return ExitStatus.INTERRUPTED if self._signal == signal.SIGINT else ExitStatus.DONE
        return work.result()

    def data_dir(self, settings: UpSettings) -> Path:
        """As named, else the usual one; a second pair beside the first has its own, and so has a fresh one."""
        options = self._options
        folder = (options.data_dir or Path(settings.dispatch_data_dir)).expanduser().absolute()
        named = options.data_dir is not None or self._environ.get("DISPATCH_DATA_DIR")
        if options.port_offset and not named:
            folder = folder.with_name(f"{folder.name}-ports-{options.port_offset}")
        if not options.fresh:
            return folder
        fresh = fresh_folder(folder, self._environ, datetime.now())
        note(f"fresh data in {fresh}; go on with it by --data-dir {fresh}")
        if folder.exists():
            note(f"the old data stays in {folder}")
        return fresh

    @contextlib.contextmanager
    def _signals_ask(self, services: LocalServices) -> Iterator[None]:
        """The first signal asks for the end, in order; a later one that a person has sent makes that quicker."""
        loop = asyncio.get_running_loop()

        def receive(number: int) -> None:
            if number == signal.SIGINT and sys.stderr.isatty():
                # The terminal has written ^C where the cursor was.
                note("")
            if not self._stopping_since:
                self._signal = self._signal or number
                self._asked.set()
            elif number != signal.SIGHUP and loop.time() - self._stopping_since > IMPATIENT_S:
                services.hurry()

        # nohup has said that the end of the terminal is none of ours.
        numbers = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
        for number in numbers:
            loop.add_signal_handler(number, receive, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            if self._signal:
                # One more Ctrl-C while the interpreter goes home has nothing left to end.
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def _work(
        self, services: LocalServices, samples: Samples | None, place: Place, batch: Batch | None, request_id: str
    ) -> int:
        await self._start(services, samples, place)
        return await self._serve(services, place, batch, request_id)

    async def _start(self, services: LocalServices, samples: Samples | None, place: Place) -> None:
        chosen = dict(samples.settings) if samples is not None else {}
        if samples is not None and samples.own_server:
            chosen["HK_MINIMAX_URL"] = await services.start_sample_server(samples.server, self._environ)
        await services.start(place.addresses, child_environ(self._environ, place.addresses, place.data_dir, chosen))
        addresses = place.addresses
        write(f"scheduler   gRPC {addresses.scheduler_grpc}, HTTP {addresses.scheduler_http}")
        write(f"executor    gRPC {addresses.executor_grpc}, HTTP {addresses.executor_http}")
        if chosen:
            write("set for the samples, unless you set it yourself:")
        for name, value in chosen.items():
            write(f"            {name}={value}")
        note("waiting for the database and the executor ...")
        await services.until_serving(addresses)

    async def _serve(self, services: LocalServices, place: Place, batch: Batch | None, request_id: str) -> int:
        async with SchedulerClient(place.client_address, CALL_S) as client:
            feed = Feed(client, write)
            await feed.begin()
            if feed.earlier:
                feed.line(f"{'carried over':<12} {len(feed.earlier)} tasks of earlier runs, which go on")
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
        await report(client, feed, place, run)
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
            for line in run.unexpected():
                note(f"  {line}")
            what = f"the samples did not end within {self._options.within_s:g} s"
            why = f"timed_out: {run.unended} of {len(run.tasks)} have not ended"
            raise Failure(what, why, "see above what each waits for, or raise --within") from error

    async def _stop(self, services: LocalServices, work: asyncio.Task[int]) -> None:
        self._stopping_since = asyncio.get_running_loop().time()
        if self._signal:
            note("stopping: ending the runs, then the services (once more: at once)")
        work.cancel()
        done, _ = await asyncio.wait([work], timeout=CANCEL_S)
        if done and not work.cancelled():
            # Looked at here: after a signal nobody else asks.
            work.exception()
        left = await services.stop()
        if left:
            note(f"still there: {'; '.join(left)}")
        elif self._signal:
            note("everything has ended")
