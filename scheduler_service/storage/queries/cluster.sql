-- The cluster, its leader and its executors.

-- name: transaction_time
-- The transaction's time by the database's clock.
SELECT now() AS now;

-- name: cluster_id
-- The cluster's id, made with the database.
SELECT cluster_id FROM cluster;

-- name: get_leader
-- Who ticks.
SELECT holder, address, term, lease_until, tick_success_time, tick_error FROM leader;

-- name: get_leader_for_share
-- The same, kept as it is until the commit: what a tick takes.
SELECT holder, address, term, lease_until, tick_success_time, tick_error FROM leader FOR SHARE;

-- name: get_leader_for_update
-- The same, locked: what an override takes, so that no claim commits after it answered.
SELECT holder, address, term, lease_until, tick_success_time, tick_error FROM leader FOR UPDATE;

-- name: save_leader
-- Writes the leader row.
UPDATE leader SET holder = %(holder)s, address = %(address)s, term = %(term)s,
    lease_until = %(lease_until)s,
    tick_success_time = %(tick_success_time)s, tick_error = %(tick_error)s;

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
