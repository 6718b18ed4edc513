"""The journal on a real disk: what is durable when, what is written together, and what is no journal of ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from executor_service.core.run import EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport, StartVerdict
from executor_service.errors import JournalError
from executor_service.runs.journal import FILE, FORMAT, Journal

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def accepted(**changes: Any) -> RunRecord:
    spec = RunSpec(
        str(uuid4()), str(uuid4()), 7, "A title", "ü 👩", "dev", "b", {"n": [1, None]}, timedelta(hours=1), timedelta(seconds=9),
        "skill", "plan", "m-1", "p", "c",
    )  # fmt: skip
    return RunRecord(replace(spec, **changes), RunState.ACCEPTED, NOW)


def ended(record: RunRecord) -> RunRecord:
    end = EndReport(RunOutcome.FAILED, 3, None, "re\nsult", "e", "task", NOW + timedelta(hours=1), {"tokens": 7, "share": 0.5})
    return record.started(StartReport(StartVerdict.SUCCESS, "r", "d"), NOW).ended(end, NOW + timedelta(seconds=5))


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(tmp_path)
    made.open()
    yield made
    made.close()


def reopened(journal: Journal) -> Journal:
    journal.close()
    journal.open()
    return journal


@contextlib.contextmanager
def held(journal: Journal) -> Iterator[None]:
    """The disk takes as long as this lasts."""
    assert journal._thread is not None
    go_on = threading.Event()
    journal._thread.submit(go_on.wait, 10)
    try:
        yield
    finally:
        go_on.set()


def commits(journal: Journal) -> list[str]:
    """Fills with what is committed from now on."""
    seen: list[str] = []

    def trace(statement: str) -> None:
        if statement == "COMMIT":
            seen.append(statement)

    journal._in_thread(lambda: journal._opened_database().set_trace_callback(trace))
    return seen


async def test_what_was_written_is_read_again_as_it_was(journal: Journal) -> None:
    live, final, over = accepted(), accepted(), accepted()
    await journal.add([over, live, final])
    await journal.save_final(ended(final))
    await journal.save_final(ended(over))
    journal.acknowledge([over.spec.run_id])
    await journal.refuse("never-seen", NOW)
    await journal.save_term("c", 3)
    await journal.save_term("c", 5)
    again = reopened(journal)
    assert again.load() == [(ended(over), True), (live, False), (ended(final), False)], "in the order of acceptance"
    assert (again.refused(), again.terms()) == ({"never-seen": NOW}, {"c": 5})
    again.forget([over.spec.run_id])
    again.forget_refusals(NOW + timedelta(seconds=1))
    await again.add([over])
    assert [record.spec.run_id for record, _ in reopened(again).load()] == [r.spec.run_id for r in (live, final, over)]
    assert again.load()[-1] == (over, False), "nothing is left of what was forgotten"
    assert again.refused() == {}


async def test_what_comes_while_the_disk_works_is_written_together(journal: Journal) -> None:
    runs = [accepted() for _ in range(1_000)]
    await journal.add(runs)
    seen = commits(journal)
    with held(journal):
        writing = [asyncio.ensure_future(journal.save_final(ended(run))) for run in runs]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later = asyncio.ensure_future(journal.save_term("c", 1))
        journal.acknowledge([runs[0].spec.run_id])
        await asyncio.sleep(0)
        assert not any(one.done() for one in (*writing, later)), "nothing is told before it is on disk"
    await asyncio.gather(*writing, later)
    assert len(seen) == 2
    assert sum(record.end is not None for record, _ in reopened(journal).load()) == 1_000


async def test_a_sqlite_that_takes_few_values_gets_few_at_a_time(journal: Journal) -> None:
    journal._in_thread(lambda: journal._opened_database().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 40))
    runs = [accepted() for _ in range(100)]
    await journal.add(runs)
    journal.acknowledge([run.spec.run_id for run in runs])
    journal.forget([run.spec.run_id for run in runs[1:]])
    assert reopened(journal).load() == [(runs[0], True)]


async def test_one_who_waits_may_go_away_and_the_others_are_told(journal: Journal) -> None:
    first, second = accepted(), accepted()
    with held(journal):
        impatient, patient = (asyncio.ensure_future(journal.add([run])) for run in (first, second))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
    await patient
    assert len(reopened(journal).load()) == 2


async def test_what_had_gathered_is_written_when_it_is_closed(journal: Journal) -> None:
    run = accepted()
    await journal.add([run])
    await journal.save_final(ended(run))
    with held(journal):
        await asyncio.sleep(0)
        journal.acknowledge([run.spec.run_id])
    assert reopened(journal).load() == [(ended(run), True)]


async def test_a_full_disk_refuses_what_it_does_not_hold_and_poisons_nothing(journal: Journal) -> None:
    database = journal._opened_database
    (pages,) = journal._in_thread(lambda: database().execute("PRAGMA page_count").fetchone())
    journal._in_thread(lambda: database().execute(f"PRAGMA max_page_count = {pages + 2}"))
    large, small = accepted(description="x" * 100_000), accepted()
    with pytest.raises(JournalError, match=r"journal\.sqlite3 failed: database or disk is full"):
        await journal.add([small, large])
    await journal.add([small])
    journal._in_thread(lambda: database().execute("PRAGMA max_page_count = 1000000"))
    await journal.add([large])
    assert [record for record, _ in reopened(journal).load()] == [small, large]


async def test_the_same_run_twice_is_an_error_and_changes_nothing(journal: Journal) -> None:
    run, other = accepted(), accepted()
    await journal.add([run])
    with pytest.raises(JournalError, match="UNIQUE"):
        await journal.add([other, run])
    assert [record for record, _ in journal.load()] == [run]


async def test_a_closed_journal_says_so(journal: Journal) -> None:
    journal.close()
    with pytest.raises(JournalError, match="not open"):
        journal.load()
    with pytest.raises(JournalError, match="not open"):
        async with asyncio.timeout(5):
            await journal.add([accepted()])
    journal.open()


def database(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def test_what_is_no_journal_is_refused_in_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(JournalError, match=r"journal\.sqlite3 failed: file is not a database"):
        Journal(tmp_path).open()
    assert file.read_bytes().startswith(b"Dear diary"), "it is somebody's"
    file.unlink()
    database(file, "CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(JournalError, match=r"journal\.sqlite3 is a database of another program: move it away"):
        Journal(tmp_path).open()


async def test_a_journal_of_a_later_version_is_left_alone(journal: Journal, tmp_path: Path) -> None:
    journal.close()
    database(tmp_path / FILE, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(JournalError, match=f"has format {FORMAT + 1}, of another version of the executor; must be {FORMAT}"):
        journal.open()
    database(tmp_path / FILE, f"PRAGMA user_version = {FORMAT}")
    journal.open()


async def test_a_journal_that_the_disk_has_spoilt_is_no_empty_journal(journal: Journal, tmp_path: Path) -> None:
    await journal.add([accepted(description="x" * 3_000) for _ in range(50)])
    journal.close()
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    journal.open()
    with pytest.raises(JournalError, match=r"journal\.sqlite3 failed: database disk image is malformed"):
        journal.load()
    journal.close()
    file.write_bytes(whole)
    assert len(reopened(journal).load()) == 50


async def test_a_record_that_cannot_be_read_hides_no_other(journal: Journal, tmp_path: Path) -> None:
    unreadable, run = accepted(), accepted()
    await journal.add([unreadable, run])
    journal.close()
    database(tmp_path / FILE, f"UPDATE runs SET payload = '{{' WHERE run_id = '{unreadable.spec.run_id}'")
    journal.open()
    journal.folders.of(unreadable.spec.run_id).mkdir()
    assert journal.load() == [(run, False)]
    assert journal.folders.of(unreadable.spec.run_id).exists(), "what is there may still run"


async def test_nobody_who_looks_into_the_file_holds_a_commit_up(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        database(tmp_path / FILE, "BEGIN", "SELECT * FROM runs")
    await journal.add([accepted()])


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=f"EXECUTOR_DATA_DIR={tmp_path}/file/executor cannot be written"):
        Journal(tmp_path / "file" / "executor").open()


# --- the older format: a file a run


def old_record(run: RunRecord) -> str:
    """run.json as it was written."""
    spec = {name: getattr(run.spec, name) for name in RunSpec.__struct_fields__}
    spec |= {"timeout": run.spec.timeout.total_seconds(), "lease_ttl": run.spec.lease_ttl.total_seconds()}
    times = {
        name: moment and moment.isoformat()
        for name in ("accept_time", "start_time", "end_time")
        for moment in [getattr(run, name)]
    }
    start, end = run.start, run.end
    return json.dumps(
        {
            "spec": spec,
            "state": run.state.value,
            **times,
            "start": start and {"verdict": start.verdict.value, "reason": start.reason, "detail": start.detail},
            "end": end
            and {
                **{name: getattr(end, name) for name in EndReport.__struct_fields__},
                "outcome": end.outcome.value,
                "retry_time": end.retry_time and end.retry_time.isoformat(),
            },
        }
    )


def older(root: Path, run: RunRecord, *, acknowledged: bool = False) -> RunRecord:
    folder = root / "runs" / run.spec.run_id
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(old_record(run))
    (folder / "output.log").write_text("so far")
    if acknowledged:
        (folder / "acknowledged").touch()
    return run


async def test_a_journal_of_the_older_format_is_taken_over_once(tmp_path: Path) -> None:
    live, final = older(tmp_path, accepted()), older(tmp_path, ended(accepted()))
    over = older(tmp_path, ended(accepted()), acknowledged=True)
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text('{"spec"')
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "never-seen").write_text("{}")
    (tmp_path / "refused" / ".half.new").write_text("{")
    (tmp_path / "terms.json").write_text('{"c": 5}')
    journal = Journal(tmp_path)
    for _ in range(2):
        journal.open()
        try:
            wanted = {r.spec.run_id: (r, r is over) for r in (live, final, over)}
            assert {record.spec.run_id: (record, known) for record, known in journal.load()} == wanted
            assert (list(journal.refused()), journal.terms()) == (["never-seen"], {"c": 5})
        finally:
            journal.close()
        kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        runs = sorted(f"runs/{r.spec.run_id}/output.log" for r in (live, final, over))
        assert kept == sorted([FILE, "lock", "runs/broken/run.json", *runs])


async def test_a_takeover_that_was_broken_off_is_done_again(tmp_path: Path) -> None:
    run = accepted()
    journal = Journal(tmp_path)
    journal.open()
    await journal.add([run])
    await journal.save_final(ended(run))
    await journal.save_term("c", 9)
    journal.close()
    older(tmp_path, run)
    (tmp_path / "terms.json").write_text('{"c": 5}')
    journal.open()
    assert (journal.load(), journal.terms()) == ([(ended(run), False)], {"c": 9}), "what is known stays as it is"
    journal.close()


async def test_terms_of_the_older_format_that_cannot_be_read_are_no_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "terms.json").write_text("[]")
    with pytest.raises(JournalError, match=r"terms\.json cannot be read"):
        Journal(tmp_path).open()
