-- Decisions (dispatch_events), their counters by second, and events.

-- name: record
-- Appends decisions and events, given as JSON, and adds the decisions, counted, to the counters of their seconds and minutes.
WITH locked AS MATERIALIZED (
    -- Held until the commit, so that ids become visible in their order.
    SELECT pg_advisory_xact_lock(4922341)
), decided AS (
    INSERT INTO dispatch_events (id, create_time, success, reason, detail, attempt, backend, task_id, run_id, executor_id)
    SELECT nextval('dispatch_events_id'), r.create_time, r.success, r.reason, r.detail, r.attempt, r.backend, r.task_id, r.run_id,
        r.executor_id
    FROM locked, json_populate_recordset(NULL::dispatch_events, %(decisions)s) r
), counted AS (
    SELECT r.* FROM locked, json_to_recordset(%(counted)s) AS r (
        create_time timestamptz, backend text, executor_id text, attempt boolean, success boolean, reason text, n bigint)
), seconds AS (
    INSERT INTO dispatch_second_counts AS c (second, backend, executor_id, attempt, success, reason, n, last_time)
    SELECT date_trunc('second', create_time, 'UTC'), backend, executor_id, attempt, success, reason, sum(n), max(create_time)
    FROM counted GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (second, backend, executor_id, attempt, success, reason)
    DO UPDATE SET n = c.n + excluded.n, last_time = greatest(c.last_time, excluded.last_time)
), minutes AS (
    INSERT INTO dispatch_minute_counts AS c (minute, backend, executor_id, attempt, success, reason, n, last_time)
    SELECT date_trunc('minute', create_time, 'UTC'), backend, executor_id, attempt, success, reason, sum(n), max(create_time)
    FROM counted GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (minute, backend, executor_id, attempt, success, reason)
    DO UPDATE SET n = c.n + excluded.n, last_time = greatest(c.last_time, excluded.last_time)
)
INSERT INTO events (id, type, time, source, payload)
SELECT nextval('events_id'), r.type, r.time, r.source, r.payload
FROM locked, json_populate_recordset(NULL::events, %(events)s) r;

-- name: window_rows
-- Decisions at or after a time, grouped.
SELECT backend, '' AS executor_id, attempt, success, reason, n, last_time FROM dispatch_window_counts(%(since)s);

-- name: window_rows_by_executor
-- The same, of each executor.
SELECT backend, executor_id, attempt, success, reason, n, last_time FROM dispatch_window(%(since)s);

-- name: list_dispatch_events
-- A page of decisions, newest first.
SELECT id, create_time, success, reason, detail, attempt, backend, task_id, run_id, executor_id FROM dispatch_events
WHERE (%(before_id)s::bigint IS NULL OR id < %(before_id)s)
    AND (%(task_id)s::uuid IS NULL OR task_id = %(task_id)s)
    AND (%(reason)s = '' OR reason = %(reason)s)
    AND (%(success)s::boolean IS NULL OR success = %(success)s)
ORDER BY id DESC LIMIT %(limit)s;

-- name: events_after
-- Events after an id, in order.
SELECT id, type, time, source, payload FROM events
WHERE id > %(after_id)s AND (%(types)s::text[] IS NULL OR type = ANY(%(types)s)) ORDER BY id LIMIT %(limit)s;

-- name: newest_event_id
-- The id of the newest event; 0 when there is none.
SELECT coalesce(max(id), 0) AS id FROM events;

-- name: last_event_id_given
-- The highest id that any event was ever given, also one that is not committed yet or is gone.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS id FROM events_id;

-- name: get_last_dispatch
-- The newest successful start.
SELECT task_id, task_title, run_id, dispatched_time FROM last_dispatch;

-- name: ensure_partitions
-- Partitions for two days back and fourteen ahead.
SELECT ensure_daily_partitions(parent, (%(now)s::timestamptz AT TIME ZONE 'UTC')::date - 2,
                               (%(now)s::timestamptz AT TIME ZONE 'UTC')::date + 14)
FROM (VALUES ('dispatch_events'), ('events')) parents (parent);

-- name: old_partitions
-- Daily partitions that end before a time.
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('dispatch_events'::regclass, 'events'::regclass) AND c.relname ~ '^(dispatch_)?events_[0-9]{8}$'
    AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= (%(before)s::timestamptz AT TIME ZONE 'UTC')::date;

-- name: purge_second_counts
-- Counters past their retention.
DELETE FROM dispatch_second_counts WHERE second < %(before)s;

-- name: purge_minute_counts
-- Counters past their retention.
DELETE FROM dispatch_minute_counts WHERE minute < %(before)s;

-- name: working_memory
-- What the reference showed its operators.
SELECT key, value_json, updated_at FROM working_memory ORDER BY key;
