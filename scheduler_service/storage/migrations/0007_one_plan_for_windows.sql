-- A window is read at every tick: from PostgreSQL 18 on one plan is kept for it. Planned for each edge, it took nearly twice as long.
-- Of a range that is open above the planner expects a third of the table, and read all minutes of two weeks for sixty: so it has an end.
CREATE OR REPLACE FUNCTION dispatch_window(since timestamptz)
RETURNS TABLE (backend text, executor_id text, attempt boolean, success boolean, reason text, n bigint, last_time timestamptz)
LANGUAGE sql STABLE SET plan_cache_mode = force_generic_plan AS $$
    SELECT u.backend, u.executor_id, u.attempt, u.success, u.reason, sum(u.n)::bigint, max(u.last_time)
    FROM (
        SELECT m.backend, m.executor_id, m.attempt, m.success, m.reason, m.n, m.last_time
        FROM dispatch_minute_counts m
        WHERE m.minute > date_trunc('minute', since, 'UTC') AND m.minute < 'infinity'
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
