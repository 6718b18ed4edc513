"""Puts the scheduler together, starts it, stops it: the only module that knows all of its parts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import structlog
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc
from prometheus_client import CollectorRegistry

from scheduler_service.core.callback import Callback
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.routing import known_backends
from scheduler_service.errors import StorageUnavailable
from scheduler_service.fleet import Fleet
from scheduler_service.http.documents import documents_folder, load_documents
from scheduler_service.http.routes import BrainPaths
from scheduler_service.metrics import SchedulerMetrics
from scheduler_service.rpc.calls import Bell, callers_words
from scheduler_service.rpc.executor_client import GrpcExecutorClient, GrpcOutputs, close_all
from scheduler_service.rpc.scheduler_servicer import SchedulerServicer
from scheduler_service.settings import SchedulerSettings
from scheduler_service.storage.embedded import EmbeddedPostgres
from scheduler_service.storage.migrate import MigrationError, migrate
from scheduler_service.storage.postgres import DatabaseUrlError, PostgresDatabase, service_conninfo
from scheduler_service.tick.leader import Leader
from scheduler_service.tick.maintenance import Maintenance
from scheduler_service.transactions.callbacks import CallbackResult, record_callback
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.reading import read_status
from scheduler_service.transactions.stored import MemoryRow
from service_runtime.clock import SystemClock
from service_runtime.disk import watch_free_bytes
from service_runtime.grpc_server import GrpcServer, OfferedService
from service_runtime.http_app import make_app
from service_runtime.http_server import HttpServer, Readiness, operational_routes
from service_runtime.lifecycle import (
    Background,
    Cleanups,
    StartupError,
    exit_at_the_latest,
    split_address,
    until_signal,
)
from service_runtime.metrics import distribution_version

_log = structlog.get_logger(__name__)

ERROR_DOMAIN = "dispatch.cecelia"
DISTRIBUTION = "cecelia-dispatch"
_SERVICE = pb.DESCRIPTOR.services_by_name["SchedulerService"]
SERVICE_NAME = _SERVICE.full_name
METHODS = tuple(method.name for method in _SERVICE.methods)
DATABASE_TRIES_S = 30.0
WATCH_DATABASE_S = 1.0
OBSERVE_S = 5.0
GRACE_S = 2.0
STOP_AT_THE_LATEST_S = 60.0


class SchedulerApp:
    """One scheduler process. `grpc_port` and `http_port` are known after `start`."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings = settings
        self._rules = settings.rules
        self._clock = SystemClock()
        self._registry = CollectorRegistry()
        self._version = distribution_version(DISTRIBUTION)
        self._metrics = SchedulerMetrics(self._registry, self._version, known_backends(self._rules.backends))
        self._bell = Bell()
        self._background = Background()
        self._cleanups = Cleanups()
        self._database_answers = False
        self._leader: Leader | None = None
        self._fleet: Fleet | None = None
        self._data_dir = Path(settings.dispatch_data_dir).expanduser()
        self.grpc_port = 0
        self.http_port = 0

    def _readiness(self) -> Readiness:
        return Readiness(True) if self._database_answers else Readiness(False, "the database does not answer")

    # --- start

    async def start(self) -> None:
        """Binds, brings the database up, serves. Raises StartupError with one clear line."""
        try:
            await self._start()
        except BaseException:
            await self._background.stop()
            await self._cleanups.run()
            raise

    async def _start(self) -> None:
        settings = self._settings
        http = HttpServer(settings.scheduler_http_address, "SCHEDULER_HTTP_ADDRESS")
        self.http_port = http.bind()
        self._cleanups.add("http", http.stop)
        server = GrpcServer(
            settings.scheduler_grpc_address,
            "SCHEDULER_GRPC_ADDRESS",
            domain=ERROR_DOMAIN,
            durations=self._metrics.rpc_durations,
        )
        self.grpc_port = server.bind()
        self._cleanups.add("grpc", lambda: server.stop(GRACE_S))
        host, _port = split_address(settings.scheduler_grpc_address)
        conninfo = settings.database_url.get_secret_value() if settings.database_url else ""
        embedded = EmbeddedPostgres(self._data_dir) if not conninfo else None
        if embedded is not None:
            await embedded.start()
            self._cleanups.add("embedded PostgreSQL", embedded.stop)
            self._background.start("embedded PostgreSQL", embedded.supervise())
            conninfo = embedded.database_url
        await self._migrate(conninfo)
        database = PostgresDatabase(conninfo, on_events=self._bell.ring)
        await database.open()
        self._cleanups.add("database", database.close)
        lease_database = PostgresDatabase(conninfo, size=1)
        await lease_database.open()
        self._cleanups.add("the lease's database", lease_database.close)
        clients = [GrpcExecutorClient(target) for target in settings.targets]
        self._cleanups.add("executor channels", lambda: close_all(clients))
        self._leader = Leader(
            database,
            clients,
            self._rules,
            self._clock,
            self._metrics,
            holder=uuid4(),
            address=f"{host}:{self.grpc_port}",
            lease=timedelta(milliseconds=settings.leader_lease_ms),
            lease_database=lease_database,
            maintenance=Maintenance(database, self._clock, self._rules),
        )
        self._fleet = Fleet(database, self._leader, settings.targets)
        servicer = SchedulerServicer(
            database,
            self._rules,
            self._leader,
            self._fleet,
            self._bell,
            self._metrics,
            GrpcOutputs(),
            settings,
            self._clock,
            version=self._version,
        )
        server.offer(OfferedService(pb_grpc.add_SchedulerServiceServicer_to_server, servicer, SERVICE_NAME, METHODS))
        await server.start()
        # Once more, before what the calls need is closed; stopping twice does no harm.
        self._cleanups.add("calls under way", lambda: server.stop(GRACE_S))
        self._cleanups.add("leadership", self._leader.resign)
        self._cleanups.add("background work", self._background.stop)
        callbacks = _Callbacks(database, self._rules, self._leader, self._metrics)
        policy = settings.http_policy
        paths = BrainPaths(servicer, _Memory(database), callbacks, self._clock, policy, hide_payloads=settings.http_hide_payloads)
        documents = load_documents(documents_folder())
        routes = [*operational_routes(self._registry, self._readiness), *documents.routes(), *paths.routes()]
        await http.start(make_app(routes, policy))
        self._background.start("database watch", self._watch_database(database, server))
        self._background.start("leader", self._leader.run())
        self._background.start("metrics", self._observe(database, self._fleet))
        self._background.start("disk", watch_free_bytes(self._data_dir, self._metrics.disk_free.set))
        self._write_ports()
        _log.info("scheduler_started", grpc_port=self.grpc_port, http_port=self.http_port, version=self._version)

    async def _migrate(self, conninfo: str) -> None:
        """Brings the schema up to date; a database that does not answer is tried for 30 s."""
        loop = asyncio.get_running_loop()
        until = loop.time() + DATABASE_TRIES_S
        while True:
            try:
                async with asyncio.timeout(DATABASE_TRIES_S):
                    applied = await migrate(service_conninfo(conninfo))
            except (MigrationError, DatabaseUrlError) as error:
                raise StartupError(str(error)) from error
            except psycopg.ProgrammingError as error:
                raise StartupError(f"DATABASE_URL cannot be used: {_first_line(error)}") from error
            except (psycopg.Error, TimeoutError) as error:
                if loop.time() >= until:
                    raise StartupError(
                        f"the database did not answer for {DATABASE_TRIES_S:g} s ({_first_line(error)}): "
                        "start it, or set DATABASE_URL to one that runs"
                    ) from error
                _log.warning("database_not_there_yet", error=_first_line(error))
                await asyncio.sleep(1.0)
            else:
                if applied:
                    _log.info("migrated", applied=applied)
                return

    def _write_ports(self) -> None:
        """Where the scheduler listens, for whoever let the system choose the ports."""
        with contextlib.suppress(OSError):
            self._data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
            ports = {"grpc": self.grpc_port, "http": self.http_port}
            temporary = self._data_dir / ".ports.json.new"
            temporary.write_text(json.dumps(ports), encoding="ascii")
            temporary.rename(self._data_dir / "ports.json")

    # --- work

    async def _watch_database(self, database: PostgresDatabase, server: GrpcServer) -> None:
        """Health follows the database: SERVING while it answers."""
        while True:
            try:
                await database.run(_ask, read_only=True)
                answers = True
            except StorageUnavailable as error:
                answers = False
                if self._database_answers:
                    _log.warning("database_lost", error=str(error))
            if answers != self._database_answers:
                self._database_answers = answers
                await server.set_serving(answers)
                if answers:
                    _log.info("database_answers")
            await asyncio.sleep(WATCH_DATABASE_S)

    async def _observe(self, database: PostgresDatabase, fleet: Fleet) -> None:
        while True:
            try:
                await self._look(database, fleet)
            except StorageUnavailable as error:
                _log.debug("metrics_not_observed", error=str(error))
            await asyncio.sleep(OBSERVE_S)

    async def _look(self, database: PostgresDatabase, fleet: Fleet) -> None:
        able = [report for report in await fleet.reports() if not report.draining]
        self._metrics.observe(
            await database.run(lambda tx: read_status(tx, able, self._rules), read_only=True, begins_with_standing=True)
        )

    async def run(self) -> int:
        """Starts, serves until a signal, stops. The process's exit status."""
        await self.start()
        asked = await until_signal(self._background)
        await self.stop()
        return 0 if asked else 1

    async def stop(self) -> None:
        """Stops ticking, gives the lease back, lets calls under way end, stops the embedded database."""
        exit_at_the_latest(STOP_AT_THE_LATEST_S)
        await self._cleanups.run()
        _log.info("scheduler_stopped")


class _Memory:
    """The rows of `working_memory`, in callers' words: see http.ports.WorkingMemory."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def working_memory(self) -> Sequence[MemoryRow]:
        with callers_words():
            return await self._database.working_memory()


class _Callbacks:
    """What bridges report over HTTP, recorded: see http.ports.Callbacks."""

    def __init__(self, database: PostgresDatabase, rules: DispatchRules, leader: Leader, metrics: SchedulerMetrics) -> None:
        self._database = database
        self._rules = rules
        self._leader = leader
        self._metrics = metrics

    async def record(self, callback: Callback) -> CallbackResult:
        with callers_words():
            result = await self._database.run(lambda tx: record_callback(tx, callback, self._rules, random.random))
        if result.recorded is not None:
            self._metrics.recorded(result.recorded)
            self._leader.compare_soon()
            self._leader.wake()
        return result


async def _ask(tx: Transaction) -> datetime:
    return tx.now


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
