"""Runs from acceptance to acknowledgement on a real journal, with a backend that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from executor_service.core.admission import Limits, ResourceReport, ResourceSample, assess
from executor_service.core.reservation import LocalRun, Room, room
from executor_service.core.run import BackendKind, EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport, StartVerdict
from executor_service.errors import BackendError, JournalError
from executor_service.runs.carrier import ENDED_ELSEWHERE
from executor_service.runs.door import CallerIdentity
from executor_service.runs.folders import fresh_folder
from executor_service.runs.journal import Journal
from executor_service.runs.manager import RunManager
from executor_service.runs.ports import Reporter
from executor_service.runs.terms import StaleTerm
from executor_service.runs.watching import QUEUE_MAX, TooSlow
from tests.fakes.fake_clock import FakeClock

BOOT = "boot-1"
LEASE = timedelta(seconds=60)


class Told:
    """A backend: `end(run_id, report)` ends a run, and what it was asked is kept."""

    def __init__(self, name: str, *, local: bool, max_runs: int = 0) -> None:
        self.name, self.local, self.max_runs = name, local, max_runs
        self.kind = BackendKind.PER_EXECUTOR if local else BackendKind.SHARED
        self.outlives_executor = local
        self.ends_by_callback = False
        self.wrong = ""
        self.unprepared = ""
        self.broken_disk = False
        self.unrenewable = ""
        self.gone: list[str] = []
        self.executed: list[str] = []
        self.reattached: list[str] = []
        self.cancelled: list[str] = []
        self.renewed: list[tuple[str, int]] = []
        self._ends: dict[str, asyncio.Future[EndReport]] = {}

    def check_configuration(self) -> str:
        return self.wrong

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:
        if self.unprepared:
            raise BackendError(self.unprepared)
        if self.broken_disk:
            raise OSError(errno.ENOSPC, "no space left")
        fresh_folder(run_dir)
        (run_dir / "prepared").touch()

    def _end_of(self, run_id: str) -> asyncio.Future[EndReport]:
        return self._ends.setdefault(run_id, asyncio.get_running_loop().create_future())

    def end(self, run_id: str, report: EndReport) -> None:
        future = self._end_of(run_id)
        if not future.done():
            future.set_result(report)

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        self.executed.append(spec.run_id)
        reporter.started(StartReport(StartVerdict.SUCCESS))
        if spec.title == "broken backend":
            raise RuntimeError("plug-ins may raise anything")
        return await self._end_of(spec.run_id)

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        self.reattached.append(spec.run_id)
        return await self._end_of(spec.run_id)

    async def make_sure_gone(self, spec: RunSpec, run_dir: Path) -> None:
        self.gone.append(spec.run_id)

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        self.cancelled.append(spec.run_id)
        self.end(spec.run_id, EndReport(RunOutcome.CANCELLED, error=reason))

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:
        if spec.run_id == self.unrenewable:
            raise BackendError("as told")
        self.renewed.append((spec.run_id, lease_from))

    async def close(self) -> None:
        """Nothing to let go of."""


class Machine:
    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.reason = ""

    def report(self) -> ResourceReport:
        return ResourceReport(self.slots > 0, self.reason, self.slots, self.slots, self.slots, None)

    def room(self, runs: Sequence[LocalRun]) -> Room:
        full = f"{len(runs)} of {self.slots} slots are taken" if len(runs) >= self.slots else ""
        return Room(self.slots, self.reason or full)


class Measured(Machine):
    """What the decisions really make of a sample."""

    def __init__(self, sample: ResourceSample, clock: FakeClock) -> None:
        super().__init__(0)
        self._sample = sample
        self._clock = clock

    def report(self) -> ResourceReport:
        return assess(self._sample, Limits(), self._clock.now())

    def room(self, runs: Sequence[LocalRun]) -> Room:
        return room(self.report(), runs, Limits(), self._clock.now())


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.stamp = 1_000_000_000_000
        self.local, self.remote = Told("cecelia-run", local=True), Told("hk-minimax", local=False, max_runs=1)
        self.machine: Machine = Machine(3)
        self.ended: list[RunOutcome] = []
        self.open()

    def open(self, offered: Sequence[str] = ("cecelia-run", "hk-minimax")) -> None:
        """A process of this executor takes the journal up."""
        self.journal = Journal(self.folder)
        self.journal.open()
        installed = {backend.name: backend for backend in (self.local, self.remote)}
        self.manager = RunManager(
            self.journal,
            {name: installed[name] for name in offered},
            self.machine,
            self.clock,
            boot_id=BOOT,
            now_stamp=lambda: self.stamp,
            make_backend=installed.get,
            on_end=lambda record: self.ended.append(record.end.outcome) if record.end is not None else None,
        )
        self.manager.load()

    async def die(self) -> None:
        """The process ends without a word."""
        for work in list(self.manager._carrier.work.values()):
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        self.journal.close()

    def spec(self, **changes: object) -> RunSpec:
        made = RunSpec(
            str(uuid4()),
            str(uuid4()),
            1,
            "A title",
            "",
            "dev",
            "cecelia-run",
            {"n": 1},
            timedelta(hours=1),
            LEASE,
            cluster_id="c",
        )
        return replace(made, **changes)  # type: ignore[arg-type]  # fields of the spec

    def caller(self, **changes: object) -> CallerIdentity:
        return replace(CallerIdentity("c", 1, BOOT, self.stamp), **changes)  # type: ignore[arg-type]  # fields of it

    async def dispatch(self, *specs: RunSpec, **caller: object) -> list[tuple[bool, str]]:
        answers = await self.manager.dispatch(specs, self.caller(**caller))
        return [(answer.accepted, answer.reason) for answer in answers]

    async def until(self, look: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not look():
                await asyncio.sleep(0.002)

    def record(self, spec: RunSpec) -> RunRecord:
        found = self.manager.record(spec.run_id)
        assert found is not None
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "executor")
    yield made
    await made.die()


async def test_the_same_run_id_gets_the_same_answer_and_one_start(bench: Bench) -> None:
    spec = bench.spec()
    assert await bench.dispatch(spec, spec) == [(True, ""), (True, "")]
    assert await bench.dispatch(spec) == [(True, "")]
    assert await bench.dispatch(replace(spec, title="Another title")) == [(False, "config_error")]
    twin = bench.spec()
    assert await bench.dispatch(twin, replace(twin, title="Another")) == [(True, ""), (False, "config_error")]
    await bench.until(lambda: bench.local.executed != [])
    await bench.until(lambda: len(bench.local.executed) == 2)
    assert bench.local.executed == [spec.run_id, twin.run_id]
    assert (bench.folder / "runs" / spec.run_id / "prepared").exists()


async def test_a_task_runs_once_at_a_time(bench: Bench) -> None:
    spec = bench.spec()
    again = replace(spec, run_id=str(uuid4()), fence=2)
    assert await bench.dispatch(spec, again) == [(True, ""), (False, "already_running")]
    assert await bench.dispatch(again) == [(False, "already_running")]


async def test_what_does_not_fit_is_refused_and_not_queued(bench: Bench) -> None:
    specs = [bench.spec() for _ in range(4)]
    assert [reason for _, reason in await bench.dispatch(*specs)] == ["", "", "", "server_overloaded"]
    remote = [bench.spec(backend="hk-minimax") for _ in range(2)]
    assert [reason for _, reason in await bench.dispatch(*remote)] == ["", "server_overloaded"], "its own bulkhead"
    bench.machine.slots, bench.machine.reason = 0, "no_sample"
    assert await bench.dispatch(bench.spec()) == [(False, "no_sample")]


async def test_a_batch_counts_those_of_it_that_were_let_in_and_the_next_one_too(bench: Bench) -> None:
    await bench.die()
    # Eight seats and an idle machine, on which something else leaves memory for four.
    sample = ResourceSample(bench.clock.now(), 0.0, 8.0, 5_000, 2_400, 0.0, 0.5, 0, 0)
    bench.machine = Measured(sample, bench.clock)
    bench.open()
    batch = [bench.spec() for _ in range(3)]
    assert await bench.dispatch(*batch) == [(True, "")] * 3
    assert await bench.dispatch(bench.spec(), bench.spec()) == [(True, ""), (False, "server_overloaded")]
    bench.local.end(batch[0].run_id, EndReport(RunOutcome.COMPLETED))
    await bench.until(lambda: not bench.record(batch[0]).live)
    assert await bench.dispatch(bench.spec(), bench.spec()) == [(True, ""), (False, "server_overloaded")]
    bench.clock.advance(seconds=10.5)
    assert await bench.dispatch(bench.spec()) == [(False, "no_sample")]


async def test_every_refusal_has_its_code(bench: Bench) -> None:
    assert await bench.dispatch(bench.spec(backend="unknown")) == [(False, "config_error")]
    assert await bench.dispatch(bench.spec(), boot_id="another boot") == [(False, "stale_request")]
    old = bench.stamp - int(16e9)
    assert await bench.dispatch(bench.spec(), stamp=old) == [(False, "stale_request")], "older than a quarter of the lease"
    assert await bench.dispatch(bench.spec(lease_ttl=timedelta(0)), stamp=old) == [(True, "")], "no lease, no age"
    bench.local.wrong = "CECELIA_RUN_PATH is missing"
    assert await bench.dispatch(bench.spec()) == [(False, "config_error")]
    bench.local.wrong, bench.local.unprepared = "", "gone in between"
    unprepared = bench.spec()
    assert await bench.dispatch(unprepared) == [(False, "config_error")]
    assert not (bench.folder / "runs" / unprepared.run_id).exists()
    bench.local.unprepared = ""
    bench.manager.drain()
    assert await bench.dispatch(bench.spec()) == [(False, "draining")]


async def test_a_lower_term_is_refused_over_a_restart_too(bench: Bench) -> None:
    assert await bench.dispatch(bench.spec(), term=7) == [(True, "")]
    assert await bench.dispatch(bench.spec(), term=6) == [(False, "stale_term")]
    await bench.die()
    bench.open()
    assert await bench.dispatch(bench.spec(), term=6) == [(False, "stale_term")]
    assert await bench.dispatch(bench.spec(), cluster_id="another", term=1) == [(True, "")]
    with pytest.raises(StaleTerm):
        await bench.manager.acknowledge([], bench.caller(term=6))


async def test_a_cancelled_run_that_was_never_seen_is_refused_for_good(bench: Bench) -> None:
    spec = bench.spec()
    assert await bench.manager.cancel(spec.run_id, "", bench.caller()) is None
    await bench.die()
    bench.open()
    assert await bench.dispatch(spec) == [(False, "refused")]
    assert bench.local.executed == []


async def test_finals_are_kept_until_acknowledged_over_a_restart_too(bench: Bench) -> None:
    spec = bench.spec()
    await bench.dispatch(spec)
    bench.local.end(spec.run_id, EndReport(RunOutcome.COMPLETED, exit_code=0, result="done"))
    await bench.until(lambda: not bench.record(spec).live)
    await bench.die()
    bench.open()
    (kept,) = bench.manager.open_records("c")
    assert kept.end is not None
    assert (kept.state, kept.end.result, kept.end.exit_code) == (RunState.ENDED, "done", 0)
    assert bench.manager.open_records("another cluster") == []
    assert await bench.manager.acknowledge([spec.run_id, str(uuid4())], bench.caller()) == 1
    assert bench.manager.open_records("c") == []
    await bench.die()
    bench.open()
    assert bench.manager.open_records("c") == []
    assert await bench.dispatch(spec) == [(True, "")], "still known, and not started again"
    bench.clock.advance(days=8)
    assert await bench.manager.forget(bench.clock.now() - timedelta(days=7)) == 1
    assert not (bench.folder / "runs" / spec.run_id).exists()


async def test_a_live_run_is_taken_up_again_after_a_restart(bench: Bench) -> None:
    spec = bench.spec()
    await bench.dispatch(spec)
    await bench.until(lambda: bench.local.executed != [])
    await bench.die()
    bench.open()
    await bench.until(lambda: bench.local.reattached == [spec.run_id])
    assert bench.record(spec).live
    bench.local._ends.clear()
    await bench.die()
    bench.open()
    await bench.until(lambda: len(bench.local.reattached) == 2)
    bench.local.end(spec.run_id, EndReport(RunOutcome.LOST, error="gone"))
    await bench.until(lambda: not bench.record(spec).live)
    assert bench.local.executed == [spec.run_id]


async def test_a_backend_that_raises_ends_its_run_and_nothing_else(bench: Bench) -> None:
    broken, fine = bench.spec(title="broken backend"), bench.spec()
    await bench.dispatch(broken, fine)
    await bench.until(lambda: not bench.record(broken).live)
    end = bench.record(broken).end
    assert end is not None
    assert end.outcome is RunOutcome.LOST
    assert "anything" not in end.error
    assert bench.local.gone == [broken.run_id], "nothing of it may live on when it is called lost"
    assert bench.record(fine).live


async def test_a_caller_that_goes_away_leaves_no_half_of_a_journal_entry(bench: Bench) -> None:
    spec = bench.spec()
    for moment in range(20):
        one = replace(spec, run_id=str(uuid4()), task_id=str(uuid4()))
        asking = asyncio.ensure_future(bench.dispatch(one))
        for _ in range(moment):
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        (accepted, _), *_ = await bench.dispatch(one)
        bench.local.end(one.run_id, EndReport(RunOutcome.COMPLETED))
        assert accepted, "sent again, it gets an answer, whatever became of the first sending"
        await bench.until(lambda: not bench.record(one).live)  # noqa: B023 - awaited within this round
    assert len(bench.local.executed) == len(set(bench.local.executed)) == 20


async def test_a_full_disk_refuses_a_batch_whole_and_poisons_nothing(bench: Bench) -> None:
    specs = [bench.spec(), bench.spec()]
    bench.local.broken_disk = True
    with pytest.raises(JournalError, match="no space left"):
        await bench.dispatch(*specs)
    assert list((bench.folder / "runs").iterdir()) == []
    bench.local.broken_disk = False
    assert await bench.dispatch(*specs) == [(True, "")] * 2


async def test_a_folder_that_was_left_over_does_not_stand_in_the_way(bench: Bench) -> None:
    spec = bench.spec()
    (bench.folder / "runs" / spec.run_id).mkdir()
    (bench.folder / "runs" / spec.run_id / "run.json").write_text("{")
    assert await bench.dispatch(spec) == [(True, "")]


async def test_a_rejected_run_stays_rejected(bench: Bench) -> None:
    bench.machine.slots = 0
    late = bench.spec()
    assert await bench.dispatch(late) == [(False, "server_overloaded")]
    bench.machine.slots = 3
    assert await bench.dispatch(late) == [(False, "server_overloaded")], "its task may be running elsewhere by now"
    assert await bench.dispatch(replace(late, run_id=str(uuid4()))) == [(True, "")]


async def test_a_refusal_is_forgotten_when_it_is_old_and_not_before(bench: Bench) -> None:
    spec = bench.spec()
    await bench.manager.cancel(spec.run_id, "", bench.caller())
    bench.clock.advance(days=8)
    assert await bench.manager.forget(bench.clock.now() - timedelta(days=9)) == 0
    assert await bench.dispatch(spec) == [(False, "refused")]
    assert await bench.manager.forget(bench.clock.now() - timedelta(days=7)) == 0
    assert not bench.manager.is_refused(spec.run_id)
    await bench.die()
    bench.open()
    assert not bench.manager.is_refused(spec.run_id)


async def test_a_stop_waits_for_remote_calls_which_nobody_else_carries_on(bench: Bench) -> None:
    call = bench.spec(backend="hk-minimax")
    await bench.dispatch(call)
    await bench.until(lambda: bench.remote.executed != [])
    stopping = asyncio.ensure_future(bench.manager.stop(end_runs=False, drain=timedelta(seconds=30)))
    for _ in range(20):
        await asyncio.sleep(0)
    bench.remote.end(call.run_id, EndReport(RunOutcome.COMPLETED, result="paid for"))
    await stopping
    end = bench.record(call).end
    assert end is not None
    assert end.outcome is RunOutcome.COMPLETED


async def test_one_lease_that_cannot_be_written_hurts_no_other(bench: Bench) -> None:
    first, second, ended = bench.spec(), bench.spec(), bench.spec()
    await bench.dispatch(first, second, ended)
    bench.local.unrenewable = first.run_id
    renewed, _, _ = await bench.manager.renew([first.run_id, second.run_id], [ended.run_id], LEASE, bench.caller())
    assert renewed == [second.run_id]
    assert bench.local.cancelled == [ended.run_id]


async def test_a_run_whose_end_came_by_callback_ends_as_what_was_recorded(bench: Bench) -> None:
    bench.local.ends_by_callback = True
    completed, failed, cancelled = (bench.spec() for _ in range(3))
    await bench.dispatch(completed, failed, cancelled)
    recorded = {completed.run_id: RunOutcome.COMPLETED, failed.run_id: RunOutcome.FAILED}
    for spec in (completed, failed, cancelled):
        await bench.manager.cancel(spec.run_id, "let go", bench.caller(), recorded.get(spec.run_id))
    await bench.until(lambda: len(bench.ended) == 3)
    assert set(bench.ended) == {RunOutcome.COMPLETED, RunOutcome.FAILED, RunOutcome.CANCELLED}, "in whatever order"
    ends = [record.end for spec in (completed, failed) if (record := bench.manager.record(spec.run_id)) is not None]
    assert [end.error for end in ends if end is not None] == ["", ENDED_ELSEWHERE]
    await bench.until(lambda: not bench.manager._carrier.ended_elsewhere)


async def test_a_recorded_end_is_not_believed_of_a_run_that_is_ended_here(bench: Bench) -> None:
    spec = bench.spec()
    await bench.dispatch(spec)
    await bench.manager.cancel(spec.run_id, "", bench.caller(), RunOutcome.COMPLETED)
    await bench.until(lambda: bench.ended == [RunOutcome.CANCELLED])


async def test_leases_are_renewed_from_the_callers_stamp_and_strays_are_named(bench: Bench) -> None:
    mine, stray = bench.spec(), bench.spec()
    await bench.dispatch(mine, stray)
    unknown = str(uuid4())
    answer = await bench.manager.renew([mine.run_id, unknown], [], LEASE, bench.caller(stamp=bench.stamp - 5))
    assert answer == ([mine.run_id], [unknown], [stray.run_id])
    assert bench.local.renewed == [(mine.run_id, bench.stamp - 5)]
    assert bench.local.cancelled == [], "a run that is not named is not ended by that"
    await bench.manager.renew([], [stray.run_id], LEASE, bench.caller())
    assert bench.local.cancelled == [stray.run_id]
    other_boot = await bench.manager.renew([mine.run_id], [], LEASE, bench.caller(boot_id="another boot"))
    assert other_boot[0] == []


async def test_watchers_see_every_change_and_a_slow_one_is_cut_off(bench: Bench) -> None:
    with bench.manager.watchers.watch("c") as watcher, bench.manager.watchers.watch("another") as other:
        spec = bench.spec()
        await bench.dispatch(spec)
        bench.local.end(spec.run_id, EndReport(RunOutcome.COMPLETED))
        states = []
        for _ in range(3):
            record = await watcher.next(5)
            assert record is not None
            states.append(record.state)
        assert states == [RunState.ACCEPTED, RunState.RUNNING, RunState.ENDED]
        assert await other.next(0.01) is None
        for _ in range(QUEUE_MAX + 1):
            bench.manager.watchers.publish_snapshot()
        with pytest.raises(TooSlow):
            await watcher.next(1)


async def test_a_stop_keeps_runs_unless_they_are_to_end(bench: Bench) -> None:
    kept = bench.spec()
    await bench.dispatch(kept)
    await bench.manager.stop(end_runs=False, drain=timedelta(0))
    assert bench.local.cancelled == []
    assert bench.record(kept).live


async def test_a_stop_that_ends_runs_reports_them_lost_so_that_they_cost_no_try(bench: Bench) -> None:
    spec = bench.spec()
    await bench.dispatch(spec)
    await bench.until(lambda: bench.local.executed != [])
    await bench.manager.stop(end_runs=True, drain=timedelta(0))
    end = bench.record(spec).end
    assert end is not None
    assert (end.outcome, end.error) == (RunOutcome.LOST, "the executor stops")


async def test_a_folder_is_used_by_one_executor(bench: Bench) -> None:
    with pytest.raises(JournalError, match="in use by another executor"):
        Journal(bench.folder).open()


async def test_a_half_written_run_was_never_accepted(bench: Bench) -> None:
    half = bench.folder / "runs" / str(uuid4())
    half.mkdir()
    (half / ".run.json.new").write_text('{"spec"')
    await bench.die()
    bench.open()
    assert not half.exists()


async def test_a_stop_leaves_what_a_bridge_has_launched_to_the_next_process(bench: Bench) -> None:
    bench.local.ends_by_callback = True
    await bench.dispatch(bench.spec())
    await bench.manager.stop(end_runs=True, drain=timedelta(seconds=60))
    assert bench.local.cancelled == []
    (record,) = bench.manager.records(live_only=True)
    assert record.live


async def test_a_backend_that_is_not_offered_any_more_still_looks_after_its_runs(bench: Bench) -> None:
    spec = bench.spec()
    await bench.dispatch(spec)
    await bench.until(lambda: bench.local.executed != [])
    await bench.die()
    bench.local._ends.clear()
    bench.open(offered=["hk-minimax"])
    await bench.until(lambda: bench.local.reattached == [spec.run_id])
    assert bench.record(spec).live, "called lost, its task would run twice"
    assert await bench.dispatch(bench.spec()) == [(False, "config_error")]
    assert "EXECUTOR_BACKENDS" in bench.manager.door.availability(bench.local)[1]
    bench.local.end(spec.run_id, EndReport(RunOutcome.COMPLETED))
    await bench.until(lambda: not bench.record(spec).live)
    await bench.die()
    bench.open(offered=["hk-minimax"])
    assert list(bench.manager.backends) == ["hk-minimax"], "nobody needs it any more"


async def test_a_local_backend_may_have_a_limit_of_its_own_besides_the_slots(bench: Bench) -> None:
    bench.local.max_runs = 1
    first, second = bench.spec(), bench.spec()
    assert await bench.dispatch(first, second) == [(True, ""), (False, "server_overloaded")]
    assert bench.manager.door.availability(bench.local) == ("server_overloaded", "1 of 1 runs are under way")
    bench.local.max_runs, bench.machine.slots = 9, 1
    assert await bench.dispatch(bench.spec()) == [(False, "server_overloaded")]


async def test_a_slow_remote_backend_takes_no_local_slot(bench: Bench) -> None:
    bench.machine.slots = 1
    slow = bench.spec(backend="hk-minimax")
    assert await bench.dispatch(slow, bench.spec()) == [(True, ""), (True, "")]
    assert (bench.manager.door.running(), bench.manager.door.running("hk-minimax")) == (1, 1)
    bench.remote.end(slow.run_id, EndReport(RunOutcome.COMPLETED))
    await bench.until(lambda: bench.manager.door.running("hk-minimax") == 0)
    bench.machine.slots = 0
    assert await bench.dispatch(bench.spec(backend="hk-minimax")) == [(True, "")], "local load does not concern it"
