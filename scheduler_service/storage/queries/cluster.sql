-- The cluster, its leader and its executors.

-- name: transaction_time
-- The time by the database's clock.
SELECT now() AS now;

-- name: begin
-- Begins a transaction and tells its time by the database's clock.
BEGIN; SELECT now() AS now;

-- name: commit
-- Ends a transaction, behind what it writes.
COMMIT;

-- name: limit_transactions
-- How long a transaction of this connection may last.
SELECT set_config('transaction_timeout', %(milliseconds)s, false);

-- name: cluster_id
-- The cluster's id, made with the database.
SELECT cluster_id FROM cluster;

-- name: get_leader
-- Who ticks.
SELECT holder, address, term, lease_until, tick_success_time, tick_error FROM leader;

-- name: get_leader_for_key_share
-- The same, whose holder and term stay until the commit: what a tick takes.
SELECT holder, address, term, lease_until, tick_success_time, tick_error FROM leader FOR KEY SHARE;

-- name: get_leader_for_no_key_update
-- The same, locked against other renewals, not against ticks: what a renewal takes.
SELECT holder, address, term, lease_until, tick_success_time, tick_error FROM leader FOR NO KEY UPDATE;

-- name: get_leader_for_update
-- The same, locked: what an override takes, so that no claim commits after it answered.
SELECT holder, address, term, lease_until, tick_success_time, tick_error FROM leader FOR UPDATE;

-- name: save_leader
-- Writes the leader row.
UPDATE leader SET holder = %(holder)s, address = %(address)s, term = %(term)s,
    lease_until = %(lease_until)s,
    tick_success_time = %(tick_success_time)s, tick_error = %(tick_error)s;

-- name: part_operator
-- The parts of a standing, each one value: what is asked for of them becomes one statement, as a statement each would cost a tick most of its time.
SELECT json_build_object(
    'cap', json_build_object('slots', s.budget_cap, 'actor', s.budget_cap_actor, 'reason', s.budget_cap_reason,
        'since_time', s.budget_cap_time),
    'overrides', coalesce((SELECT json_object_agg(o.name, to_json(o)) FROM setting_overrides o), '{}'),
    'shown_window_ms', s.window_ms, 'shown_open_duration_ms', s.open_duration_ms) FROM scheduler_settings s;

-- name: part_breakers
-- Every breaker.
SELECT json_object_agg(b.key, json_build_object(
    'key', b.key, 'state', b.state, 'failures', b.failures, 'last_failure_time', b.last_failure_time,
    'opened_time', b.opened_time, 'open_duration', 'PT' || extract(epoch FROM b.open_duration) || 'S',
    'generation', b.generation, 'probe_run_id', b.probe_run_id, 'reason', b.reason) ORDER BY b.key)
FROM circuit_breaker_states b;

-- name: part_tripped_by
-- Who tripped the breakers that a person tripped.
SELECT json_object_agg(b.key, b.tripped_by ORDER BY b.key) FROM circuit_breaker_states b WHERE b.tripped_by <> '';

-- name: part_backend_states
-- What is remembered of all backends.
SELECT json_object_agg(s.backend, to_json(s) ORDER BY s.backend) FROM backend_states s;

-- name: part_drains
-- Every drain.
SELECT json_agg(d ORDER BY d.source) FROM drains d;

-- name: part_billing_pauses
-- Every billing pause, over or not.
SELECT json_agg(p ORDER BY p.backend) FROM billing_pauses p;

-- name: part_live
-- Tasks dispatching or running, by executor, backend and kind.
SELECT json_agg(l) FROM (
    SELECT executor_id, backend, internal, count(*) AS n FROM tasks WHERE status IN ('dispatching', 'running') GROUP BY 1, 2, 3) l;

-- name: part_has_internal
-- Whether an internal task is queued, dispatching or running.
SELECT EXISTS (SELECT 1 FROM tasks WHERE status IN ('queued', 'dispatching', 'running') AND internal);

-- name: part_queued_backends
-- Of which backends tasks are queued: one index probe a backend, however long the queue.
WITH RECURSIVE b AS (
    (SELECT backend FROM tasks WHERE status = 'queued' ORDER BY backend LIMIT 1)
    UNION ALL
    SELECT (SELECT t.backend FROM tasks t WHERE t.status = 'queued' AND t.backend > b.backend ORDER BY t.backend LIMIT 1)
    FROM b WHERE b.backend IS NOT NULL
)
SELECT json_agg(backend) FROM b WHERE backend IS NOT NULL;

-- name: part_queue
-- Queued tasks by backend, and how many of them are due: this counts all of them.
SELECT json_agg(q) FROM (
    SELECT backend, count(*) AS queued, count(*) FILTER (WHERE blocked_by = 0
        AND (next_attempt_time IS NULL OR next_attempt_time <= coalesce(%(now)s::timestamptz, now()))
        AND (not_before_time IS NULL OR not_before_time <= coalesce(%(now)s::timestamptz, now()))) AS due
    FROM tasks WHERE status = 'queued' GROUP BY backend) q;

-- name: part_window
-- Decisions of the window, grouped.
SELECT json_agg(w) FROM (
    SELECT backend, '' AS executor_id, attempt, success, reason, n, last_time
    FROM dispatch_window_counts(coalesce(%(now)s::timestamptz, now()) - coalesce(
        (SELECT (value #>> '{}')::bigint * interval '1 millisecond' FROM setting_overrides WHERE name = 'WINDOW_MS'),
        %(window)s::interval))) w;

-- name: part_window_by_executor
-- The same, of each executor.
SELECT json_agg(w) FROM (
    SELECT backend, executor_id, attempt, success, reason, n, last_time
    FROM dispatch_window(coalesce(%(now)s::timestamptz, now()) - coalesce(
        (SELECT (value #>> '{}')::bigint * interval '1 millisecond' FROM setting_overrides WHERE name = 'WINDOW_MS'),
        %(window)s::interval))) w;

-- name: part_about
-- What people are shown besides: who leads, who was heard, what has not ended, and since when the oldest due task of each priority is due.
SELECT json_build_object(
    'cluster_id', (SELECT cluster_id FROM cluster),
    'leadership', (SELECT json_build_object('holder', l.holder, 'address', l.address, 'term', l.term,
        'lease_until', l.lease_until, 'tick_success_time', l.tick_success_time, 'tick_error', l.tick_error) FROM leader l),
    'executors', coalesce((SELECT json_agg(e ORDER BY e.executor_id) FROM executors e), '[]'),
    'last_dispatch', (SELECT to_json(d) FROM last_dispatch d),
    'depths', coalesce((SELECT json_agg(d) FROM (
        SELECT priority, status, count(*) AS n FROM tasks
        WHERE status IN ('queued', 'dispatching', 'running', 'quarantined') GROUP BY 1, 2) d), '[]'),
    'oldest_due', coalesce((SELECT json_agg(json_build_object('priority', p.priority, 'due_time', t.due_time))
        FROM (VALUES (0), (1), (2)) p (priority), LATERAL (
            SELECT due_time FROM tasks
            WHERE status = 'queued' AND blocked_by = 0 AND priority = p.priority AND due_time <= coalesce(%(now)s::timestamptz, now())
            ORDER BY due_time LIMIT 1) t), '[]'));

-- name: save_window_settings
-- What the working_memory view counts with.
UPDATE scheduler_settings SET window_ms = %(window_ms)s, open_duration_ms = %(open_duration_ms)s
WHERE window_ms <> %(window_ms)s OR open_duration_ms <> %(open_duration_ms)s;

-- name: get_executors
-- Executors as they were last heard.
SELECT executor_id, target, boot_id, snapshot, last_heard_time FROM executors ORDER BY executor_id;

-- name: save_executor
-- Writes one.
INSERT INTO executors (executor_id, target, boot_id, snapshot, last_heard_time)
VALUES (%(executor_id)s, %(target)s, %(boot_id)s, %(snapshot)s, %(last_heard_time)s)
ON CONFLICT (executor_id) DO UPDATE SET target = excluded.target, boot_id = excluded.boot_id,
    snapshot = excluded.snapshot, last_heard_time = excluded.last_heard_time;
