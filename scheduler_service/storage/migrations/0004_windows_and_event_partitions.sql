-- Counters by executor too, with a row a minute beside the row a second: a window costs its minutes, and one minute's seconds.
CREATE TABLE dispatch_second_counts (
    second      timestamptz NOT NULL,
    backend     text NOT NULL,
    executor_id text NOT NULL,
    attempt     boolean NOT NULL,
    success     boolean NOT NULL,
    reason      text NOT NULL,
    n           bigint NOT NULL,
    last_time   timestamptz NOT NULL,
    PRIMARY KEY (second, backend, executor_id, attempt, success, reason)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE dispatch_minute_counts (
    minute      timestamptz NOT NULL,
    backend     text NOT NULL,
    executor_id text NOT NULL,
    attempt     boolean NOT NULL,
    success     boolean NOT NULL,
    reason      text NOT NULL,
    n           bigint NOT NULL,
    last_time   timestamptz NOT NULL,
    PRIMARY KEY (minute, backend, executor_id, attempt, success, reason)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

INSERT INTO dispatch_second_counts (second, backend, executor_id, attempt, success, reason, n, last_time)
SELECT date_trunc('second', create_time, 'UTC'), backend, executor_id, attempt, success, reason, count(*), max(create_time)
FROM dispatch_events GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO dispatch_minute_counts (minute, backend, executor_id, attempt, success, reason, n, last_time)
SELECT date_trunc('minute', second, 'UTC'), backend, executor_id, attempt, success, reason, sum(n), max(last_time)
FROM dispatch_second_counts GROUP BY 1, 2, 3, 4, 5, 6;

-- Decisions since `since` (inclusive), grouped: whole minutes, then the whole seconds of the edge minute, then the edge second's events.
CREATE FUNCTION dispatch_window(since timestamptz)
RETURNS TABLE (backend text, executor_id text, attempt boolean, success boolean, reason text, n bigint, last_time timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT u.backend, u.executor_id, u.attempt, u.success, u.reason, sum(u.n)::bigint, max(u.last_time)
    FROM (
        SELECT m.backend, m.executor_id, m.attempt, m.success, m.reason, m.n, m.last_time
        FROM dispatch_minute_counts m
        WHERE m.minute > date_trunc('minute', since, 'UTC')
        UNION ALL
        SELECT s.backend, s.executor_id, s.attempt, s.success, s.reason, s.n, s.last_time
        FROM dispatch_second_counts s
        WHERE s.second > date_trunc('second', since, 'UTC') AND s.second < date_trunc('minute', since, 'UTC') + interval '1 minute'
        UNION ALL
        SELECT e.backend, e.executor_id, e.attempt, e.success, e.reason, 1, e.create_time
        FROM dispatch_events e
        WHERE e.create_time >= since AND e.create_time < date_trunc('second', since, 'UTC') + interval '1 second'
    ) u
    GROUP BY 1, 2, 3, 4, 5
$$;

CREATE OR REPLACE FUNCTION dispatch_window_counts(since timestamptz)
RETURNS TABLE (backend text, attempt boolean, success boolean, reason text, n bigint, last_time timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT w.backend, w.attempt, w.success, w.reason, sum(w.n)::bigint, max(w.last_time)
    FROM dispatch_window(since) w GROUP BY 1, 2, 3, 4
$$;
DROP TABLE dispatch_event_counts;

-- Events go by whole days too: retention drops tables, and leaves no dead rows.
ALTER TABLE events RENAME TO events_before;
ALTER TABLE events_before RENAME CONSTRAINT events_pkey TO events_before_pkey;
DROP INDEX events_time;
CREATE TABLE events (
    id      bigint NOT NULL,
    type    text NOT NULL,
    time    timestamptz NOT NULL,
    source  text NOT NULL,
    payload jsonb NOT NULL,
    PRIMARY KEY (id, time)
) PARTITION BY RANGE (time);

DROP FUNCTION ensure_dispatch_event_partitions(date, date);
-- Creates the daily partitions (UTC) of a table that cover [first_day, last_day]. Idempotent.
CREATE FUNCTION ensure_daily_partitions(parent text, first_day date, last_day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    day date := first_day;
    name text;
BEGIN
    WHILE day <= last_day LOOP
        name := parent || '_' || to_char(day, 'YYYYMMDD');
        IF to_regclass(name) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                               name, parent, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
            EXCEPTION WHEN duplicate_table OR unique_violation THEN
                NULL;  -- another replica was faster
            END;
        END IF;
        day := day + 1;
    END LOOP;
END $$;

SELECT ensure_daily_partitions('events', (d.first AT TIME ZONE 'UTC')::date, (d.last AT TIME ZONE 'UTC')::date)
FROM (SELECT min(time) AS first, max(time) AS last FROM events_before) d WHERE d.first IS NOT NULL;
INSERT INTO events SELECT id, type, time, source, payload FROM events_before;
DROP TABLE events_before;
