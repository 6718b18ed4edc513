"""Short runs by the hundred: what is asked, written and told once for all of them, and in which order for each."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from executor_service.backends.in_process import InProcess
from executor_service.backends.plugged import Plugged
from executor_service.backends.replies import Ended, completed
from executor_service.core.admission import ResourceReport
from executor_service.core.reservation import LocalRun, Room
from executor_service.core.run import BackendKind, RunOutcome, RunSpec, RunState, StartVerdict
from executor_service.runs import manager as manager_module
from executor_service.runs import watching
from executor_service.runs.door import CallerIdentity
from executor_service.runs.journal import Journal
from executor_service.runs.manager import RunManager
from executor_service.runs.watching import Watcher, newest
from tests.fakes.fake_clock import FakeClock

CALLER = CallerIdentity("c", 1)


class Noop(InProcess):
    """Does nothing, at once."""

    name = "noop"
    kind = BackendKind.SHARED
    max_runs = 10_000

    def __init__(self, *, local: bool = False) -> None:
        super().__init__()
        self.local = local
        self.checked = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    def check_configuration(self) -> str:
        self.checked += 1
        return ""

    async def work(self, spec: RunSpec) -> Ended:
        await self.go_on.wait()
        return completed("done")


class Machine:
    """Has room for a thousand runs; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def report(self) -> ResourceReport:
        return ResourceReport(True, "", 1_000, 1_000, 1_000, None)

    def room(self, runs: Sequence[LocalRun]) -> Room:
        self.asked += 1
        return Room(1_000, "all slots are taken" if len(runs) >= 1_000 else "")


class Bench:
    def __init__(self, folder: Path, backend: Noop) -> None:
        self.folder = folder
        self.backend = backend
        self.machine = Machine()
        self.journal = Journal(folder)
        self.journal.open()
        self.manager = RunManager(
            self.journal, {"noop": Plugged(backend)}, self.machine, FakeClock(), boot_id="b", now_stamp=lambda: 1
        )  # fmt: skip
        self.manager.load()

    async def dispatch(self, count: int) -> list[str]:
        """So many runs in one batch; their ids. All of them are accepted."""
        specs = [
            RunSpec(
                str(uuid4()), str(uuid4()), 1, "A title", "", "dev", "noop", {}, timedelta(hours=1), timedelta(0), cluster_id="c"
            )
            for _ in range(count)
        ]
        answers = await self.manager.dispatch(specs, CALLER)
        assert {(answer.accepted, answer.detail) for answer in answers} == {(True, "")}
        return [spec.run_id for spec in specs]

    async def until_ended(self) -> None:
        async with asyncio.timeout(20):
            while self.manager.records(live_only=True):
                await asyncio.sleep(0.002)

    @contextlib.contextmanager
    def disk_held(self) -> Iterator[None]:
        """The disk takes as long as this lasts."""
        assert self.journal._thread is not None
        go_on = threading.Event()
        self.journal._thread.submit(go_on.wait, 10)
        try:
            yield
        finally:
            go_on.set()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "executor", Noop())
    yield made
    await made.manager.stop(end_runs=False, drain=timedelta(0))
    made.journal.close()


async def test_a_batch_is_written_in_two_transactions_and_keeps_no_folder(bench: Bench) -> None:
    commits = []

    def trace(statement: str) -> None:
        commits.extend([statement] if statement == "COMMIT" else [])

    bench.journal._in_thread(lambda: bench.journal._opened_database().set_trace_callback(trace))
    await bench.dispatch(300)
    await bench.until_ended()
    # The term, the acceptances, the finals.
    assert len(commits) <= 4
    assert list((bench.folder / "runs").iterdir()) == []


async def test_a_backend_is_looked_at_once_a_batch(bench: Bench) -> None:
    await bench.dispatch(300)
    assert bench.backend.checked == 1


async def test_the_machine_is_asked_once_a_batch_and_the_room_is_counted_down(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "executor", Noop(local=True))
    bench.backend.go_on.clear()
    await bench.dispatch(999)
    assert bench.machine.asked == 1
    specs = [
        RunSpec(str(uuid4()), str(uuid4()), 1, "A title", "", "dev", "noop", {}, timedelta(hours=1), timedelta(0), cluster_id="c")
        for _ in range(100)
    ]
    answers = await bench.manager.dispatch(specs, CALLER)
    assert [(a.accepted, a.detail) for a in answers] == [(True, ""), *[(False, "all slots are taken")] * 99]
    assert bench.machine.asked == 3, "once more, for the words"
    bench.backend.go_on.set()
    await bench.until_ended()
    bench.journal.close()


async def test_a_final_is_told_when_it_is_on_disk_and_not_before(bench: Bench) -> None:
    bench.backend.go_on.clear()
    with bench.manager.watchers.watch("c") as watcher:
        (run_id,) = await bench.dispatch(1)
        with bench.disk_held():
            bench.backend.go_on.set()
            assert await watcher.next(0.05) is None
            record = bench.manager.record(run_id)
            assert record is not None
            assert record.live
        told = newest([item for item in [await watcher.next(10), *watcher.waiting()] if item is not None])
    (final,) = told
    assert final.start is not None
    assert final.end is not None
    assert (final.state, final.start.verdict, final.end.outcome) == (RunState.ENDED, StartVerdict.SUCCESS, RunOutcome.COMPLETED)


async def test_a_run_that_has_ended_by_then_is_told_of_once(bench: Bench) -> None:
    with bench.manager.watchers.watch("c") as watcher:
        ids = await bench.dispatch(300)
        await bench.until_ended()
        first = await watcher.next(10)
        assert first is not None
        told = newest([first, *watcher.waiting()])
    assert [record.spec.run_id for record in told] == ids
    assert {record.state for record in told} == {RunState.ENDED}


async def test_an_acceptance_is_told_though_nothing_comes_of_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "ACCEPTANCE_HELD_S", 0.01)
    bench.backend.go_on.clear()
    with bench.manager.watchers.watch("c") as watcher:
        ids = await bench.dispatch(2)
        first = await watcher.next(10)
        assert first is not None
        assert [(r.spec.run_id, r.state) for r in (first, *watcher.waiting())] == [(id_, RunState.ACCEPTED) for id_ in ids]
        bench.backend.go_on.set()
        second = await watcher.next(10)
        assert second is not None
        assert second.state is RunState.ENDED


async def test_news_stop_at_a_request_for_a_snapshot(bench: Bench) -> None:
    watcher = Watcher("c")
    ids = await bench.dispatch(2)
    await bench.until_ended()
    for run_id in ids:
        watcher.offer(bench.manager.record(run_id))
        watcher.offer(None)
    for run_id in ids:
        item = await watcher.next(10)
        assert item is not None
        assert (item.spec.run_id, watcher.waiting()) == (run_id, [])
        assert await watcher.next(10) is None
    assert await watcher.next(0.01) is None


async def test_memory_does_not_wait_for_the_housekeeping(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "KNOWN_MAX", 10)
    ids = await bench.dispatch(21)
    await bench.until_ended()
    assert await bench.manager.acknowledge(ids[:20], CALLER) == 20
    assert all(bench.manager.record(run_id) for run_id in ids)
    assert await bench.manager.acknowledge(ids, CALLER) == 21
    assert [run_id for run_id in ids if bench.manager.record(run_id)] == ids[11:]
    bench.journal.close()
    bench.journal.open()
    assert [record.spec.run_id for record, acknowledged in bench.journal.load() if acknowledged] == ids[11:]
