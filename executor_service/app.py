"""Puts the executor together, starts it, stops it: the only module that knows all of its parts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cecelia.executor.v1 import executor_service_pb2 as pb
from cecelia.executor.v1 import executor_service_pb2_grpc as pb_grpc
from prometheus_client import CollectorRegistry

from executor_service.backends.loading import BackendLoader
from executor_service.backends.plugged import Plugged
from executor_service.core.admission import ResourceReport
from executor_service.core.reservation import Room
from executor_service.core.run import RunOutcome, RunRecord, RunSpec
from executor_service.errors import JournalError
from executor_service.host.guarding.files import boot_id
from executor_service.host.resource_sampler import ResourceSampler
from executor_service.host.run_use import RunUses
from executor_service.metrics import ExecutorMetrics
from executor_service.rpc.executor_servicer import SNAPSHOT_EVERY_S, ExecutorServicer
from executor_service.runs.door import CallerIdentity
from executor_service.runs.journal import Journal
from executor_service.runs.manager import RunManager
from executor_service.runs.ports import BackendState
from executor_service.runs.regular_files import read_regular
from executor_service.runs.terms import StaleTerm
from executor_service.runs.watching import TooSlow, newest
from executor_service.settings import ExecutorSettings
from service_runtime.clock import Clock, SystemClock
from service_runtime.disk import watch_free_bytes
from service_runtime.errors import FailedPrecondition, ResourceExhausted, Unavailable
from service_runtime.grpc_server import GrpcServer, OfferedService
from service_runtime.http_app import HttpPolicy, make_app
from service_runtime.http_server import OPERATIONAL_PATHS, HttpServer, Readiness, operational_routes
from service_runtime.lifecycle import Background, Cleanups, StartupError, exit_at_the_latest, until_signal
from service_runtime.metrics import distribution_version

_log = structlog.get_logger(__name__)

ERROR_DOMAIN = "dispatch.cecelia"
DISTRIBUTION = "cecelia-dispatch"
_SERVICE = pb.DESCRIPTOR.services_by_name["ExecutorService"]
SERVICE_NAME = _SERVICE.full_name
METHODS = tuple(method.name for method in _SERVICE.methods)
GRACE_S = 2.0
FORGET_EVERY_S = 600.0
LOOK_EVERY_S = 1.0


class Executor:
    """The running executor as its rpcs see it: see rpc.executor_servicer.ExecutorPart."""

    def __init__(self, executor_id: str, version: str, manager: RunManager, clock: Clock) -> None:
        self.executor_id = executor_id
        self.version = version
        self._manager = manager
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    def resources(self) -> ResourceReport:
        return self._manager.resources.report()

    def running_local(self) -> int:
        return self._manager.door.running()

    def room(self) -> Room:
        return self._manager.door.room()

    def backends(self) -> list[BackendState]:
        door = self._manager.door
        return [
            BackendState(name, b.kind, b.local, b.max_runs, door.running(name), b.ends_by_callback, *door.availability(b))
            for name, b in self._manager.backends.items()
        ]

    @property
    def draining(self) -> bool:
        return self._manager.door.draining

    def stamp(self) -> tuple[str, int]:
        return self._manager.boot_id, self._manager.now_stamp()

    async def dispatch(
        self, specs: Sequence[RunSpec], cluster_id: str, term: int, boot_id_: str, stamp: int
    ) -> list[tuple[str, bool, str, str]]:
        with _callers_words():
            answers = await self._manager.dispatch(specs, CallerIdentity(cluster_id, term, boot_id_, stamp))
        return [(answer.run_id, answer.accepted, answer.reason, answer.detail) for answer in answers]

    def record(self, run_id: str) -> RunRecord | None:
        return self._manager.record(run_id)

    def is_refused(self, run_id: str) -> bool:
        return self._manager.is_refused(run_id)

    def records(self, *, live_only: bool) -> list[RunRecord]:
        return self._manager.records(live_only=live_only)

    async def cancel(self, run_id: str, reason: str, cluster_id: str, term: int, recorded: RunOutcome | None) -> RunRecord | None:
        with _callers_words():
            return await self._manager.cancel(run_id, reason, CallerIdentity(cluster_id, term), recorded)

    async def watch(self, cluster_id: str, term: int) -> AsyncGenerator[Sequence[RunRecord] | int | None, None]:
        with _callers_words():
            await self._manager.note_term(CallerIdentity(cluster_id, term))
        # Watching begins before the replay, so that nothing falls between the two.
        with self._manager.watchers.watch(cluster_id) as watcher:
            yield None
            replay = self._manager.open_records(cluster_id)
            yield replay
            yield len(replay)
            while True:
                try:
                    news = await watcher.next(SNAPSHOT_EVERY_S)
                    yield None if news is None else newest([news, *watcher.waiting()])
                except TooSlow:
                    raise ResourceExhausted(
                        "the stream was read too slowly; open it anew", reason="TOO_SLOW", retry_after=timedelta(seconds=1)
                    ) from None

    def output(self, run_id: str, offset: int, *, tail_bytes: int, follow: bool) -> AsyncGenerator[tuple[int, bytes], None]:
        return self._manager.output(run_id, offset, tail_bytes=tail_bytes, follow=follow)

    async def acknowledge(self, run_ids: Sequence[str], cluster_id: str, term: int) -> int:
        with _callers_words():
            return await self._manager.acknowledge(run_ids, CallerIdentity(cluster_id, term))

    async def renew(
        self,
        run_ids: Sequence[str],
        end_runs: Sequence[str],
        lease_ttl: timedelta,
        cluster_id: str,
        term: int,
        boot_id_: str,
        stamp: int,
    ) -> tuple[list[str], list[str], list[str]]:
        caller = CallerIdentity(cluster_id, term, boot_id_, stamp)
        with _callers_words():
            return await self._manager.renew(run_ids, end_runs, lease_ttl, caller)


class _callers_words:
    """Our errors as what callers may see."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, StaleTerm):
            raise FailedPrecondition(str(error), reason="stale_term") from error
        if isinstance(error, JournalError):
            _log.error("journal_failed", error=str(error))
            raise Unavailable(
                "the journal cannot be written; try again", reason="JOURNAL_FAILED", retry_after=timedelta(seconds=5)
            ) from error


class ExecutorApp:
    """One executor process. `grpc_port` and `http_port` are known after `start`."""

    def __init__(self, settings: ExecutorSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._registry = CollectorRegistry()
        version = distribution_version(DISTRIBUTION)
        self._clock = SystemClock()
        self._data_dir = Path(settings.executor_data_dir).expanduser()
        self._journal = Journal(self._data_dir)
        self._sampler = ResourceSampler(
            settings.limits,
            settings.session_process_name,
            self._clock,
            RunUses(read_regular),
            lambda: self.manager.local_run_dirs(),
        )
        loader = BackendLoader(settings, environ)
        backends = loader.offered()
        self._metrics = ExecutorMetrics(self._registry, version, backends)
        self._metrics.process_control({b.process_control for b in backends.values() if isinstance(b, Plugged)})
        self.manager = RunManager(
            self._journal,
            backends,
            self._sampler,
            self._clock,
            boot_id=boot_id(),
            now_stamp=lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            on_end=self._metrics.run_ended,
            make_backend=loader.make,
        )
        servicer = ExecutorServicer(Executor(settings.executor_id, version, self.manager, self._clock))
        self._grpc = GrpcServer(
            settings.executor_grpc_address,
            "EXECUTOR_GRPC_ADDRESS",
            domain=ERROR_DOMAIN,
            durations=self._metrics.rpc_durations,
        )
        self._grpc.offer(OfferedService(pb_grpc.add_ExecutorServiceServicer_to_server, servicer, SERVICE_NAME, METHODS))
        self._http = HttpServer(settings.executor_http_address, "EXECUTOR_HTTP_ADDRESS")
        self._background = Background()
        self._cleanups = Cleanups()
        self.grpc_port = 0
        self.http_port = 0

    def _readiness(self) -> Readiness:
        if self.manager.door.draining:
            return Readiness(False, "draining")
        if not self._sampler.first_sample.is_set():
            return Readiness(False, "no resource sample yet")
        return Readiness(True, notes=tuple(f"config_error: {name}: {why}" for name, why in self._wrong().items() if why))

    def _wrong(self) -> dict[str, str]:
        """What is wrong with the configuration of each backend; '' where nothing is."""
        return {name: self.manager.door.misconfigured(backend) for name, backend in self.manager.backends.items()}

    async def start(self) -> None:
        """Binds, takes the journal up, serves. Raises StartupError."""
        self.grpc_port = self._grpc.bind()
        self.http_port = self._http.bind()
        self._cleanups.add("http", self._http.stop)
        try:
            self._journal.open()
            self._cleanups.add("journal", self._close_journal)
            self.manager.load()
        except JournalError as error:
            await self._cleanups.run()
            raise StartupError(str(error)) from error
        self._cleanups.add("background work", self._background.stop)
        self._background.start("resources", self._sampler.run())
        self._background.start("housekeeping", self._keep_house())
        self._background.start("disk", watch_free_bytes(self._data_dir, self._metrics.disk_free.set))
        self._background.start("looking at resources", self._look_at_resources())
        await self._grpc.start()
        self._cleanups.add("grpc", lambda: self._grpc.stop(GRACE_S))
        policy = HttpPolicy(open_paths=OPERATIONAL_PATHS)
        await self._http.start(make_app(operational_routes(self._registry, self._readiness), policy))
        self._background.start("serving", self._serve_when_sampled())
        self._write_ports()
        _log.info(
            "executor_started",
            executor_id=self._settings.executor_id,
            grpc_port=self.grpc_port,
            http_port=self.http_port,
            data_dir=str(self._data_dir),
        )

    async def _close_journal(self) -> None:
        self._journal.close()

    def _write_ports(self) -> None:
        """Where the executor listens, for whoever let the system choose the ports."""
        ports = {"grpc": self.grpc_port, "http": self.http_port}
        temporary = self._data_dir / ".ports.json.new"
        temporary.write_text(json.dumps(ports), encoding="ascii")
        temporary.rename(self._data_dir / "ports.json")

    async def _serve_when_sampled(self) -> None:
        await self._sampler.first_sample.wait()
        if not self.manager.door.draining:
            await self._grpc.set_serving(True)
            self._background.start("looking at backends", self._look_at_backends())
            self.manager.watchers.publish_snapshot()

    async def _keep_house(self) -> None:
        retention = timedelta(milliseconds=self._settings.run_retention_ms)
        while True:
            try:
                await self.manager.forget(self._clock.now() - retention)
            except JournalError as error:
                _log.warning("housekeeping_put_off", error=str(error))
            await asyncio.sleep(FORGET_EVERY_S)

    async def _look_at_resources(self) -> None:
        told = (-1, -1)
        while True:
            report, room = self._sampler.report(), self.manager.door.room()
            self._metrics.observe(report, room, self.manager.records(live_only=True))
            if (report.effective_slots, room.slots) != told:
                # Whoever sends runs should know before it sends too many.
                told = (report.effective_slots, room.slots)
                self.manager.watchers.publish_snapshot()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_at_backends(self) -> None:
        """Each backend's own health follows its configuration; the executor's does not: the others can do their work."""
        told: dict[str, str] = {}
        while not self.manager.door.draining:
            wrong = self._wrong()
            self._metrics.configured(wrong)
            for name, why in wrong.items():
                if told.get(name) != why:
                    await self._grpc.set_part_serving(f"{SERVICE_NAME}/{name}", not why)
                    if why:
                        _log.warning("backend_misconfigured", backend=name, detail=why)
            told = wrong
            await asyncio.sleep(LOOK_EVERY_S)

    async def run(self) -> int:
        """Starts, serves until a signal, stops. The process's exit status."""
        await self.start()
        asked = await until_signal(self._background)
        await self.stop()
        return 0 if asked else 1

    async def stop(self) -> None:
        """Drains; local runs go on under their guards, unless they are to end with the executor."""
        drain = self._settings.drain
        exit_at_the_latest(drain.total_seconds() + 60)
        await self._grpc.set_serving(False)
        await self.manager.stop(end_runs=self._settings.executor_end_runs_on_stop, drain=drain)
        await self._cleanups.run()
        _log.info("executor_stopped", executor_id=self._settings.executor_id)
