"""The bare pair as the bench starts it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, LiteralString

import grpc
import psycopg

from tests.acceptance.programs import channel_to
from tests.bench.measuring.bench import Bench
from tests.bench.peers.programs import PEERS, PeerProgram, environment, running

pb, pb_grpc = grpc.protos_and_services("tests/bench/peers/bare_pair.proto")
PROGRAM = str(PEERS / "bare_pair.py")


@dataclass(frozen=True, slots=True)
class Rows:
    """What the pair keeps. `setup` makes it in a database that has our tables if `migrated`, `fill` makes a backlog.

    `complete_and_claim`: the pair's one statement, of the ids of what has ended and how many may begin. `left`: whether any is left.
    """

    migrated: bool
    setup: LiteralString
    fill: LiteralString
    complete_and_claim: str
    left: LiteralString


OWN_ROWS = Rows(
    migrated=False,
    setup="""
CREATE TABLE jobs (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status      smallint NOT NULL DEFAULT 0,
    priority    smallint NOT NULL DEFAULT 0,
    payload     jsonb NOT NULL DEFAULT '{}',
    lease_until timestamptz,
    attempt     integer NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT now(),
    end_time    timestamptz
) WITH (fillfactor = 70);
CREATE INDEX jobs_ready ON jobs (priority DESC, id) WHERE status = 0;
""",
    fill="INSERT INTO jobs (payload) SELECT '{\"k\": 1}' FROM generate_series(1, %s)",
    complete_and_claim="""
WITH done AS (UPDATE jobs SET status = 2, end_time = now() WHERE id = ANY(%s) AND status = 1)
UPDATE jobs SET status = 1, attempt = attempt + 1, lease_until = now() + interval '60s'
WHERE id IN (SELECT id FROM jobs WHERE status = 0 ORDER BY priority DESC, id FOR UPDATE SKIP LOCKED LIMIT %s)
RETURNING id, payload::text
""",
    # The first of the two is answered by an index, and the second only asked at the end.
    left="SELECT EXISTS (SELECT 1 FROM jobs WHERE status = 0) OR EXISTS (SELECT 1 FROM jobs WHERE status < 2)",
)
"""One row a job, changed twice."""

OUR_ROWS = Rows(
    migrated=True,
    setup="",
    fill="""
INSERT INTO tasks (id, title, description, task_type, priority, skill, payload, depends_on, max_tries, timeout, backend, status,
    hold_reason, fence, tries, start_failures, backoff_count, executor_id, result, error, cancel_requested, blocked_by, rank_time,
    due_time, create_time, update_time, dependency_policy)
SELECT gen_random_uuid(), 'Task number ' || i, repeat('d', 66), 'dev', 1, '', '{}', '{}', 3, interval '1 hour', 'noop', 'queued', '', 0, 0,
    0, 0, '', '', '', false, 0, now(), now(), now(), now(), 'fail'
FROM generate_series(1, %s) i
""",
    complete_and_claim="""
WITH done AS (
    UPDATE tasks SET status = 'completed', exit_code = 0, start_time = now(), end_time = now(), update_time = now()
    WHERE seq = ANY(%s) AND status = 'dispatching'
    RETURNING id, title, task_type, backend, run_id, executor_id
), ended AS (
    UPDATE task_runs r SET state = 'ended', verdict = 'success', outcome = 'completed', exit_code = 0, accept_time = now(),
        start_time = now(), end_time = now()
    FROM done d WHERE r.run_id = d.run_id
), decided AS (
    INSERT INTO dispatch_events (id, create_time, success, reason, detail, attempt, backend, task_id, run_id, executor_id)
    SELECT nextval('dispatch_events_id'), now(), true, '', '', true, backend, id, run_id, executor_id FROM done
), seconds AS (
    INSERT INTO dispatch_second_counts AS c (second, backend, executor_id, attempt, success, reason, n, last_time)
    SELECT date_trunc('second', now(), 'UTC'), backend, executor_id, true, true, '', count(*), now() FROM done GROUP BY 2, 3
    ON CONFLICT (second, backend, executor_id, attempt, success, reason) DO UPDATE SET n = c.n + excluded.n
), minutes AS (
    INSERT INTO dispatch_minute_counts AS c (minute, backend, executor_id, attempt, success, reason, n, last_time)
    SELECT date_trunc('minute', now(), 'UTC'), backend, executor_id, true, true, '', count(*), now() FROM done GROUP BY 2, 3
    ON CONFLICT (minute, backend, executor_id, attempt, success, reason) DO UPDATE SET n = c.n + excluded.n
), told AS (
    INSERT INTO events (id, type, time, source, payload)
    SELECT nextval('events_id'), type, now(), 'tick', jsonb_build_object('task_id', id, 'title', title, 'task_type', task_type,
        'priority', 'P1', 'backend', backend, 'status', 'completed', 'tries', 0, 'run_id', run_id, 'executor_id', executor_id)
    FROM done, (VALUES ('task_dispatched'), ('task_completed')) t (type)
), claimed AS (
    UPDATE tasks t SET status = 'dispatching', run_id = gen_random_uuid(), fence = t.fence + 1, executor_id = 'host-a', update_time = now()
    FROM (
        SELECT id FROM tasks WHERE status = 'queued' AND backend = 'noop' AND blocked_by = 0
            AND (next_attempt_time IS NULL OR next_attempt_time <= now()) AND (not_before_time IS NULL OR not_before_time <= now())
        ORDER BY rank_time, seq LIMIT %s FOR NO KEY UPDATE SKIP LOCKED) due
    WHERE t.id = due.id
    RETURNING t.seq, t.id, t.run_id, t.fence, t.payload
), begun AS (
    INSERT INTO task_runs (run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, claim_time,
        lease_until, state, verdict_reason, error, usage, renew_seq)
    SELECT run_id, id, fence, 'host-a', 'noop', 'noop', 0, false, now(), now() + interval '60s', 'dispatching', '', '', '{}', 0 FROM claimed
)
SELECT seq, payload::text FROM claimed
""",
    left="SELECT EXISTS (SELECT 1 FROM tasks WHERE status IN ('queued', 'dispatching'))",
)
"""The rows that we keep of a task that starts and completes, all made by one statement: what any scheduler pays that keeps them."""


class BarePair:
    """Both processes, the executor not attached yet; `stub` calls the scheduler."""

    def __init__(self, url: str, rows: Rows, scheduler: PeerProgram, executor: PeerProgram, stub: Any) -> None:
        self.url = url
        self.rows = rows
        self.pids = (scheduler.pid, executor.pid)
        self.stub = stub
        self._executor = executor

    async def attach(self) -> None:
        """Jobs flow from now on."""
        await self._executor.say("go")


@contextlib.asynccontextmanager
async def bare_pair(
    bench: Bench, *, credits: int, backlog: int = 0, started_address: str = "", rows: Rows = OWN_ROWS
) -> AsyncIterator[BarePair]:
    """The bare pair on a fresh database with so many jobs."""
    with bench.scratch("bare") as folder:
        async with bench.fresh_database(migrated=rows.migrated) as url:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                if rows.setup:
                    await connection.execute(rows.setup)
                await connection.execute(rows.fill, (backlog,))
            await bench.settle(url)
            env = environment(DATABASE_URL=url, STARTED_ADDRESS=started_address, COMPLETE_AND_CLAIM=rows.complete_and_claim)
            async with running((sys.executable, PROGRAM, "scheduler"), env, folder / "scheduler.log") as scheduler:
                port = int(await scheduler.line())
                command = (sys.executable, PROGRAM, "executor", str(port), str(credits))
                async with running(command, env, folder / "executor.log") as executor, channel_to(port) as channel:
                    await executor.line()
                    yield BarePair(url, rows, scheduler, executor, pb_grpc.BareSchedulerStub(channel))
