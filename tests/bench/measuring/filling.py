"""Databases as a long life leaves them, made by SQL: decisions with their counters, queues, finished tasks with their runs.

What is made is what the services would have written: counters are counted from the events, and identity columns draw their numbers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

DESCRIPTION = "A description that is long enough for pre-flight to let it pass."

_EVENTS = """
INSERT INTO dispatch_events (id, create_time, success, reason, detail, attempt, backend, task_id, run_id, executor_id)
SELECT nextval('dispatch_events_id'), now() - make_interval(secs => %(seconds)s::float8 * (1 - i::float8 / %(count)s)), i %% 10 <> 0,
    CASE WHEN i %% 10 = 0 THEN 'executor_failed' ELSE '' END, '', true,
    CASE WHEN i %% 3 = 0 THEN 'hk-minimax' ELSE 'cecelia-run' END, gen_random_uuid(), gen_random_uuid(), 'host-a'
FROM generate_series(1, %(count)s) i
"""
# In the order of time, as they come: in the order of a hash, a window would be read from a block a row.
_COUNTS = """
INSERT INTO dispatch_{unit}_counts ({unit}, backend, executor_id, attempt, success, reason, n, last_time)
SELECT date_trunc('{unit}', create_time, 'UTC'), backend, executor_id, attempt, success, reason, count(*), max(create_time)
FROM dispatch_events GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1
ON CONFLICT ({unit}, backend, executor_id, attempt, success, reason) DO UPDATE SET n = excluded.n, last_time = excluded.last_time
"""
_TASK_COLUMNS = """
    id, title, description, task_type, priority, skill, payload, depends_on, max_tries, not_before_time, timeout, backend, status,
    hold_reason, run_id, fence, tries, start_failures, last_start_failure_time, backoff_count, executor_id, exit_code, result, error,
    cancel_requested, blocked_by, rank_time, due_time, create_time, update_time, start_time, end_time, next_attempt_time,
    dependency_policy
"""
# Of ten: one waits for a prerequisite, one for its back-off, one is of a backend that is full; seven are due.
_QUEUED = f"""
INSERT INTO tasks ({_TASK_COLUMNS})
SELECT gen_random_uuid(), 'Task number ' || i, %(description)s, 'dev', 1, '', '{{}}',
    CASE WHEN i %% 10 = 1 THEN ARRAY[%(prerequisite)s::uuid] ELSE '{{}}' END, 3, NULL, interval '1 hour',
    CASE WHEN i %% 10 = 3 THEN 'hk-minimax' ELSE 'cecelia-run' END, 'queued',
    CASE i %% 10 WHEN 1 THEN 'dependency' WHEN 2 THEN 'backoff' ELSE '' END, NULL, (i %% 10 = 2)::int, 0, (i %% 10 = 2)::int,
    CASE WHEN i %% 10 = 2 THEN made END, (i %% 10 = 2)::int, '', NULL, '', '', false, (i %% 10 = 1)::int, made + interval '1 hour',
    CASE WHEN i %% 10 = 2 THEN now() + interval '1 day' ELSE made END, made, made, NULL, NULL,
    CASE WHEN i %% 10 = 2 THEN now() + interval '1 day' END, 'wait'
FROM (SELECT i, now() - interval '6 hours' + i * interval '1 hour' / %(count)s AS made FROM generate_series(1, %(count)s) i) s
"""
_DEPENDENCIES = """
INSERT INTO task_dependencies (task_id, depends_on_id) SELECT id, unnest(depends_on) FROM tasks WHERE blocked_by > 0
"""
_FINISHED = f"""
INSERT INTO tasks ({_TASK_COLUMNS})
SELECT gen_random_uuid(), 'Task number ' || i, %(description)s, 'dev', 1, '', '{{}}', '{{}}', 3, NULL, interval '1 hour', 'cecelia-run',
    'completed', '', gen_random_uuid(), 1, 1, 0, NULL, 0, 'host-a', 0, 'done', '', false, 0, ended - interval '1 minute',
    ended - interval '1 minute', ended - interval '1 minute', ended, ended - interval '30 seconds', ended, NULL, 'fail'
FROM (SELECT i, now() - interval '7 days' * (1 - i::float8 / %(count)s) AS ended FROM generate_series(1, %(count)s) i) s
"""
_FINISHED_RUNS = """
INSERT INTO task_runs (run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, state, verdict,
    verdict_reason, outcome, exit_code, signal, error, usage, claim_time, accept_time, start_time, end_time, lease_until, renew_seq)
SELECT run_id, id, fence, executor_id, backend, backend || '@' || executor_id, 0, false, 'ended', 'success', '', 'completed', 0, NULL,
    '', '{}', start_time, start_time, start_time, end_time, end_time, 1
FROM tasks WHERE status = 'completed'
"""
_EVENTS_OF_TASKS = """
INSERT INTO events (id, type, time, source, payload)
SELECT nextval('events_id'), 'task_completed', now() - make_interval(secs => %(seconds)s::float8 * (1 - i::float8 / %(count)s)), 'tick',
    jsonb_build_object('task_id', gen_random_uuid(), 'run_id', gen_random_uuid())
FROM generate_series(1, %(count)s) i
"""


async def _connect(url: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(url, autocommit=True, options="-c statement_timeout=0 -c timezone=UTC")


@asynccontextmanager
async def _bare(connection: psycopg.AsyncConnection[tuple[object, ...]], table: str) -> AsyncIterator[None]:
    """The table without its key and indexes, which are built anew afterwards: in a fraction of the time that they take row by row."""
    cursor = await connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'", (table,)
    )
    keys = await cursor.fetchall()
    names = [name for name, _ in keys]
    cursor = await connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexname <> ALL(%s)", (table, names)
    )
    indexes = await cursor.fetchall()
    for name, _ in indexes:
        await connection.execute(f"DROP INDEX {name}")
    for name in names:
        await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    yield
    await connection.execute("SET maintenance_work_mem = '512MB'")
    for name, definition in keys:
        await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    for _, definition in indexes:
        await connection.execute(str(definition).replace(" ON ONLY ", " ON "))


async def fill_window(url: str, count: int) -> None:
    """`count` decisions in the last 40 minutes, so that a window of an hour holds them for 20 minutes more."""
    await fill_decisions(url, count, seconds=2_400.0)


async def fill_decisions(url: str, count: int, *, seconds: float) -> None:
    """`count` decisions spread evenly over the last `seconds`, with their counters."""
    async with await _connect(url) as connection:
        await _partitions(connection, seconds)
        async with _bare(connection, "dispatch_events"):
            await connection.execute(_EVENTS, {"count": count, "seconds": seconds})
        for unit in ("second", "minute"):
            await connection.execute(_COUNTS.format(unit=unit))


async def fill_events(url: str, count: int, *, seconds: float) -> None:
    """`count` events that callers watch, spread evenly over the last `seconds`."""
    async with await _connect(url) as connection:
        await _partitions(connection, seconds)
        async with _bare(connection, "events"):
            await connection.execute(_EVENTS_OF_TASKS, {"count": count, "seconds": seconds})


async def fill_queue(url: str, count: int) -> None:
    """`count` queued tasks six hours old; a tenth each waits for a prerequisite, for a back-off, and for a backend that is full."""
    given = {"count": count, "description": DESCRIPTION, "prerequisite": "00000000-0000-4000-8000-000000000001"}
    async with await _connect(url) as connection:
        await connection.execute(_QUEUED, given)
        await connection.execute(_DEPENDENCIES)


async def fill_finished(url: str, count: int) -> None:
    """`count` tasks that completed over the last week, each with its run."""
    async with await _connect(url) as connection:
        await connection.execute(_FINISHED, {"count": count, "description": DESCRIPTION})
        await connection.execute(_FINISHED_RUNS)


async def _partitions(connection: psycopg.AsyncConnection[tuple[object, ...]], seconds: float) -> None:
    await connection.execute(
        "SELECT ensure_daily_partitions(parent, (now() AT TIME ZONE 'UTC' - make_interval(secs => %s::float8))::date, "
        "(now() AT TIME ZONE 'UTC')::date + 1) FROM (VALUES ('dispatch_events'), ('events')) p (parent)",
        (seconds,),
    )
