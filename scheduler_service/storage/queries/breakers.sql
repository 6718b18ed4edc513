-- Breakers and what is remembered of backends. core/breaker.py decides; these queries carry rows.

-- name: get_breakers
-- Breakers by key; all when no keys are given.
SELECT key, state, failures, last_failure_time, opened_time, open_duration, generation, probe_run_id, reason
FROM circuit_breaker_states WHERE %(keys)s::text[] IS NULL OR key = ANY(%(keys)s) ORDER BY key;

-- name: get_breakers_for_update
-- The same, locked in the order of keys.
SELECT key, state, failures, last_failure_time, opened_time, open_duration, generation, probe_run_id, reason
FROM circuit_breaker_states WHERE %(keys)s::text[] IS NULL OR key = ANY(%(keys)s) ORDER BY key FOR NO KEY UPDATE;

-- name: add_breaker
-- A CLOSED row for a key that has none.
INSERT INTO circuit_breaker_states (key, state, failures, generation, reason, update_time)
VALUES (%(key)s, 'CLOSED', 0, 0, '', %(now)s) ON CONFLICT (key) DO NOTHING;

-- name: save_breaker
-- Writes a row; a NULL actor keeps who tripped it.
UPDATE circuit_breaker_states SET
    state = %(state)s, failures = %(failures)s, last_failure_time = %(last_failure_time)s, opened_time = %(opened_time)s,
    open_duration = %(open_duration)s, generation = %(generation)s, probe_run_id = %(probe_run_id)s, reason = %(reason)s,
    tripped_by = CASE WHEN %(state)s = 'CLOSED' THEN '' ELSE coalesce(%(actor)s, tripped_by) END, update_time = %(now)s
WHERE key = %(key)s;

-- name: purge_breakers
-- Rows of executors that are gone for long.
DELETE FROM circuit_breaker_states b USING executors e
WHERE e.last_heard_time < %(before)s AND right(b.key, length(e.executor_id) + 1) = '@' || e.executor_id;

-- name: purge_executors
-- Executors that are gone for long and have no live run.
DELETE FROM executors e WHERE last_heard_time < %(before)s
    AND NOT EXISTS (SELECT 1 FROM task_runs r WHERE r.executor_id = e.executor_id AND r.state <> 'ended');

-- name: get_backend_states
-- What is remembered of all backends.
SELECT backend, last_start_success_time, last_trickle_time FROM backend_states ORDER BY backend;

-- name: note_start_successes
-- The newest successful starts of backends, given as JSON, and the newest of all.
WITH newest AS (
    INSERT INTO last_dispatch AS l (task_id, task_title, run_id, dispatched_time)
    VALUES (%(task_id)s, %(task_title)s, %(run_id)s, %(dispatched_time)s)
    ON CONFLICT (singleton) DO UPDATE SET task_id = excluded.task_id, task_title = excluded.task_title,
        run_id = excluded.run_id, dispatched_time = excluded.dispatched_time
)
INSERT INTO backend_states AS s (backend, last_start_success_time)
SELECT r.backend, r.last_start_success_time FROM json_populate_recordset(NULL::backend_states, %(rows)s) r ORDER BY r.backend
ON CONFLICT (backend) DO UPDATE SET last_start_success_time = excluded.last_start_success_time;

-- name: note_trickle
-- When the single try of a backend was spent.
INSERT INTO backend_states AS s (backend, last_trickle_time) VALUES (%(backend)s, %(time)s)
ON CONFLICT (backend) DO UPDATE SET last_trickle_time = excluded.last_trickle_time;
