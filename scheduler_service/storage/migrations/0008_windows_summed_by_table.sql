-- Summed in each table: of rows of several tables the planner knows nothing, and made room for groups by how many rows there are.
-- With the seconds of a week that was half a megabyte for five groups, and took 0.1 of the 0.78 ms of a reading.
-- One plan is kept (see 0007). On a young system it expects one row and would sort hundreds, which takes a reading a sixth longer.
-- A second's events are few, and nobody analyzes a partitioned table: they are summed with the rest.
CREATE FUNCTION dispatch_window_sums(since timestamptz)
RETURNS TABLE (backend text, executor_id text, attempt boolean, success boolean, reason text, n bigint, last_time timestamptz)
LANGUAGE sql STABLE SET plan_cache_mode = force_generic_plan SET enable_sort = off AS $$
    SELECT m.backend, m.executor_id, m.attempt, m.success, m.reason, sum(m.n)::bigint, max(m.last_time)
    FROM dispatch_minute_counts m
    WHERE m.minute > date_trunc('minute', since, 'UTC') AND m.minute < 'infinity'
    GROUP BY 1, 2, 3, 4, 5
    UNION ALL
    SELECT s.backend, s.executor_id, s.attempt, s.success, s.reason, sum(s.n)::bigint, max(s.last_time)
    FROM dispatch_second_counts s
    WHERE s.second > date_trunc('second', since, 'UTC') AND s.second < date_trunc('minute', since, 'UTC') + interval '1 minute'
    GROUP BY 1, 2, 3, 4, 5
    UNION ALL
    SELECT e.backend, e.executor_id, e.attempt, e.success, e.reason, 1, e.create_time
    FROM dispatch_events e
    WHERE e.create_time >= since AND e.create_time < date_trunc('second', since, 'UTC') + interval '1 second'
$$;

CREATE OR REPLACE FUNCTION dispatch_window(since timestamptz)
RETURNS TABLE (backend text, executor_id text, attempt boolean, success boolean, reason text, n bigint, last_time timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT w.backend, w.executor_id, w.attempt, w.success, w.reason, sum(w.n)::bigint, max(w.last_time)
    FROM dispatch_window_sums(since) w GROUP BY 1, 2, 3, 4, 5
$$;

CREATE OR REPLACE FUNCTION dispatch_window_counts(since timestamptz)
RETURNS TABLE (backend text, attempt boolean, success boolean, reason text, n bigint, last_time timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT w.backend, w.attempt, w.success, w.reason, sum(w.n)::bigint, max(w.last_time)
    FROM dispatch_window_sums(since) w GROUP BY 1, 2, 3, 4
$$;
