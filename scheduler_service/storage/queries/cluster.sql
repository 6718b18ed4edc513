-- The cluster, its leader and its executors.

-- name: transaction_time
-- The time by the database's clock.
SELECT now() AS now;

-- name: begin
-- Begins a transaction and tells its time by the database's clock.
BEGIN; SELECT now() AS now;

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

-- name: standing
-- What the gates look at, as one JSON object: a statement each would cost a tick most of its time.
SELECT json_build_object(
    'operator', (SELECT json_build_object(
        'cap', json_build_object('slots', s.budget_cap, 'actor', s.budget_cap_actor, 'reason', s.budget_cap_reason,
            'since_time', s.budget_cap_time),
        'overrides', coalesce((SELECT json_object_agg(o.name, to_json(o)) FROM setting_overrides o), '{}'),
        'shown_window_ms', s.window_ms, 'shown_open_duration_ms', s.open_duration_ms) FROM scheduler_settings s),
    'breakers', coalesce((SELECT json_object_agg(b.key, json_build_object(
        'key', b.key, 'state', b.state, 'failures', b.failures, 'last_failure_time', b.last_failure_time,
        'opened_time', b.opened_time, 'open_duration', 'PT' || extract(epoch FROM b.open_duration) || 'S',
        'generation', b.generation, 'probe_run_id', b.probe_run_id, 'reason', b.reason) ORDER BY b.key)
        FROM circuit_breaker_states b), '{}'),
    'tripped_by', coalesce((SELECT json_object_agg(b.key, b.tripped_by ORDER BY b.key)
        FROM circuit_breaker_states b WHERE b.tripped_by <> ''), '{}'),
    'backend_states', coalesce((SELECT json_object_agg(s.backend, to_json(s) ORDER BY s.backend) FROM backend_states s), '{}'),
    'drains', coalesce((SELECT json_agg(d ORDER BY d.source) FROM drains d), '[]'),
    'billing_pauses', coalesce((SELECT json_agg(p ORDER BY p.backend) FROM billing_pauses p), '[]'),
    'live', coalesce((SELECT json_agg(l) FROM (
        SELECT executor_id, backend, internal, count(*) AS n
        FROM tasks WHERE status IN ('dispatching', 'running') GROUP BY 1, 2, 3) l), '[]'),
    'has_internal', EXISTS (SELECT 1 FROM tasks WHERE status IN ('queued', 'dispatching', 'running') AND internal),
    -- One index probe a backend, however long the queue.
    'queued_backends', (
        WITH RECURSIVE b AS (
            (SELECT backend FROM tasks WHERE status = 'queued' ORDER BY backend LIMIT 1)
            UNION ALL
            SELECT (SELECT t.backend FROM tasks t WHERE t.status = 'queued' AND t.backend > b.backend ORDER BY t.backend LIMIT 1)
            FROM b WHERE b.backend IS NOT NULL
        )
        SELECT coalesce(json_agg(backend), '[]') FROM b WHERE backend IS NOT NULL),
    'window', (
        SELECT coalesce(json_agg(w), '[]') FROM (
            SELECT backend, '' AS executor_id, attempt, success, reason, n, last_time
            FROM dispatch_window_counts(%(now)s::timestamptz - coalesce(
                (SELECT (value #>> '{}')::bigint * interval '1 millisecond' FROM setting_overrides WHERE name = 'WINDOW_MS'),
                %(window)s::interval))) w)
) AS standing;

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
