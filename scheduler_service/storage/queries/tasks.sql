-- Tasks and their dependencies. Only transitions of core/task.py change a status; these queries carry rows.

-- name: add_tasks
-- Stores new tasks, given as JSON without what is core/task.py's default, in their order.
INSERT INTO tasks (
    id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, description, skill, payload, depends_on, not_before_time, hold_reason, run_id, fence, tries,
    start_failures, last_start_failure_time, executor_id, exit_code, result, error, cancel_requested,
    blocked_by, start_time, end_time, next_attempt_time, dependency_policy, backoff_count
)
SELECT
    id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, coalesce(description, ''), coalesce(skill, ''), coalesce(payload, '{}'),
    coalesce(depends_on, '{}'), not_before_time, coalesce(hold_reason, ''), run_id, coalesce(fence, 0),
    coalesce(tries, 0), coalesce(start_failures, 0), last_start_failure_time, coalesce(executor_id, ''),
    exit_code, coalesce(result, ''), coalesce(error, ''), coalesce(cancel_requested, false),
    coalesce(blocked_by, 0), start_time, end_time, next_attempt_time, coalesce(dependency_policy, 'fail'),
    coalesce(backoff_count, 0)
FROM json_populate_recordset(NULL::tasks, %(rows)s);

-- name: add_dependencies
-- Notes prerequisites, given as JSON.
INSERT INTO task_dependencies (task_id, depends_on_id)
SELECT task_id, depends_on_id FROM json_populate_recordset(NULL::task_dependencies, %(rows)s);

-- name: get_tasks
-- Tasks by id.
SELECT
    id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, description, skill, payload, depends_on, not_before_time, hold_reason, run_id, fence, tries,
    start_failures, last_start_failure_time, executor_id, exit_code, result, error, cancel_requested,
    blocked_by, start_time, end_time, next_attempt_time, dependency_policy, backoff_count
FROM tasks WHERE id = ANY(%(ids)s);

-- name: get_tasks_for_share
-- Tasks by id, kept as they are until the commit.
SELECT
    id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, description, skill, payload, depends_on, not_before_time, hold_reason, run_id, fence, tries,
    start_failures, last_start_failure_time, executor_id, exit_code, result, error, cancel_requested,
    blocked_by, start_time, end_time, next_attempt_time, dependency_policy, backoff_count
FROM tasks WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE;

-- name: get_tasks_for_update
-- Tasks by id, locked in the order of ids.
SELECT
    id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, description, skill, payload, depends_on, not_before_time, hold_reason, run_id, fence, tries,
    start_failures, last_start_failure_time, executor_id, exit_code, result, error, cancel_requested,
    blocked_by, start_time, end_time, next_attempt_time, dependency_policy, backoff_count
FROM tasks WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE;

-- name: get_tasks_to_move
-- The same, locked too, without the large columns that no transition looks at.
SELECT
    id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, '' AS description, skill, '{}'::jsonb AS payload, depends_on, not_before_time, hold_reason,
    run_id, fence, tries, start_failures, last_start_failure_time, executor_id, exit_code, result, error,
    cancel_requested, blocked_by, start_time, end_time, next_attempt_time, dependency_policy, backoff_count
FROM tasks WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE;

-- name: due_tasks
-- The next due tasks of a backend in rank order.
SELECT
    id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, description, skill, payload, depends_on, not_before_time, hold_reason, run_id, fence, tries,
    start_failures, last_start_failure_time, executor_id, exit_code, result, error, cancel_requested,
    blocked_by, start_time, end_time, next_attempt_time, dependency_policy, backoff_count
FROM tasks
WHERE status = 'queued' AND backend = %(backend)s AND blocked_by = 0 AND id <> ALL(%(skip)s)
    AND (next_attempt_time IS NULL OR next_attempt_time <= %(now)s) AND (not_before_time IS NULL OR not_before_time <= %(now)s)
    AND (NOT %(unfailed_only)s OR last_start_failure_time IS NULL)
ORDER BY rank_time, seq
LIMIT %(limit)s;

-- name: due_tasks_for_update
-- The same, locked; what others have locked is passed over.
SELECT
    id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, description, skill, payload, depends_on, not_before_time, hold_reason, run_id, fence, tries,
    start_failures, last_start_failure_time, executor_id, exit_code, result, error, cancel_requested,
    blocked_by, start_time, end_time, next_attempt_time, dependency_policy, backoff_count
FROM tasks
WHERE status = 'queued' AND backend = %(backend)s AND blocked_by = 0 AND id <> ALL(%(skip)s)
    AND (next_attempt_time IS NULL OR next_attempt_time <= %(now)s) AND (not_before_time IS NULL OR not_before_time <= %(now)s)
    AND (NOT %(unfailed_only)s OR last_start_failure_time IS NULL)
ORDER BY rank_time, seq
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED;

-- name: due_task_ids
-- The ids of the same: asked when one of them cannot be read, which must not hide the others.
SELECT id FROM tasks
WHERE status = 'queued' AND backend = %(backend)s AND blocked_by = 0 AND id <> ALL(%(skip)s)
    AND (next_attempt_time IS NULL OR next_attempt_time <= %(now)s) AND (not_before_time IS NULL OR not_before_time <= %(now)s)
    AND (NOT %(unfailed_only)s OR last_start_failure_time IS NULL)
ORDER BY rank_time, seq
LIMIT %(limit)s;

-- name: due_task_ids_for_update
-- The same, locked; what others have locked is passed over.
SELECT id FROM tasks
WHERE status = 'queued' AND backend = %(backend)s AND blocked_by = 0 AND id <> ALL(%(skip)s)
    AND (next_attempt_time IS NULL OR next_attempt_time <= %(now)s) AND (not_before_time IS NULL OR not_before_time <= %(now)s)
    AND (NOT %(unfailed_only)s OR last_start_failure_time IS NULL)
ORDER BY rank_time, seq
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED;

-- name: describe_task
-- What of a row can be read whatever is wrong with the rest.
SELECT id, title, task_type, priority, backend, tries FROM tasks WHERE id = %(id)s;

-- name: quarantine_unreadable
-- Puts a task aside whose row cannot be read, so that no transition can.
UPDATE tasks SET status = 'quarantined', hold_reason = 'unreadable', error = %(why)s, next_attempt_time = NULL,
    end_time = %(now)s, update_time = %(now)s
WHERE id = %(id)s AND status = 'queued';

-- name: save_tasks
-- Writes what a transition can change of tasks that are given as JSON. The status is what the transition made it.
UPDATE tasks t SET
    status = r.status, hold_reason = coalesce(r.hold_reason, ''), run_id = r.run_id, fence = r.fence, tries = coalesce(r.tries, 0),
    start_failures = coalesce(r.start_failures, 0), last_start_failure_time = r.last_start_failure_time,
    backoff_count = coalesce(r.backoff_count, 0), executor_id = coalesce(r.executor_id, ''), exit_code = r.exit_code,
    result = coalesce(r.result, ''), error = coalesce(r.error, ''), cancel_requested = coalesce(r.cancel_requested, false),
    blocked_by = coalesce(r.blocked_by, 0), due_time = r.due_time,
    update_time = r.update_time, start_time = r.start_time, end_time = r.end_time, next_attempt_time = r.next_attempt_time
FROM json_populate_recordset(NULL::tasks, %(rows)s) r
WHERE t.id = r.id;

-- name: save_edited_tasks
-- Writes what an operator has changed of tasks that are given as JSON.
UPDATE tasks t SET
    title = r.title, description = r.description, priority = r.priority, skill = r.skill, payload = r.payload,
    not_before_time = r.not_before_time, rank_time = r.rank_time
FROM json_populate_recordset(NULL::tasks, %(rows)s) r
WHERE t.id = r.id;

-- name: unblock_dependents
-- One prerequisite less for each queued task that waits for a completed one.
UPDATE tasks t SET blocked_by = blocked_by - d.n, update_time = %(now)s,
    hold_reason = CASE WHEN t.blocked_by = d.n AND t.hold_reason = 'dependency' THEN '' ELSE t.hold_reason END
FROM (SELECT task_id, count(*) AS n FROM task_dependencies WHERE depends_on_id = ANY(%(ids)s) GROUP BY task_id) d
WHERE t.id = d.task_id AND t.status = 'queued';

-- name: recount_blocked
-- Waiting tasks that have missed the completion of a prerequisite, as one does that was submitted while it came and went.
UPDATE tasks t SET blocked_by = c.open, update_time = %(now)s,
    hold_reason = CASE WHEN c.open = 0 AND t.hold_reason = 'dependency' THEN '' ELSE t.hold_reason END
FROM (
    SELECT w.id, count(*) FILTER (WHERE p.status IS DISTINCT FROM 'completed') AS open
    FROM tasks w JOIN task_dependencies d ON d.task_id = w.id LEFT JOIN tasks p ON p.id = d.depends_on_id
    WHERE w.status = 'queued' AND w.blocked_by > 0
    GROUP BY w.id
) c
WHERE t.id = c.id AND t.status = 'queued' AND t.blocked_by > c.open;

-- name: waiting_dependents
-- Queued tasks that wait for one of these.
SELECT d.depends_on_id, d.task_id FROM task_dependencies d JOIN tasks t ON t.id = d.task_id
WHERE d.depends_on_id = ANY(%(ids)s) AND t.status = 'queued' ORDER BY d.task_id;

-- name: dependents
-- Tasks that depend on this one, in the order of ids, and how many there are in all.
SELECT task_id, count(*) OVER () AS total FROM task_dependencies
WHERE depends_on_id = %(id)s ORDER BY task_id LIMIT %(limit)s;

-- name: live_counts
-- Tasks dispatching or running, by executor, backend and kind.
SELECT executor_id, backend, internal, count(*) AS n
FROM tasks WHERE status IN ('dispatching', 'running') GROUP BY 1, 2, 3;

-- name: queue_position
-- One more than the due, unblocked tasks of the backend that stand before this one.
SELECT count(*) + 1 AS n FROM tasks t, (SELECT rank_time, seq FROM tasks WHERE id = %(id)s) me
WHERE t.status = 'queued' AND t.backend = %(backend)s AND t.blocked_by = 0
    AND (t.next_attempt_time IS NULL OR t.next_attempt_time <= %(now)s)
    AND (t.not_before_time IS NULL OR t.not_before_time <= %(now)s)
    AND (t.rank_time, t.seq) < (me.rank_time, me.seq);

-- name: list_tasks
-- A page, newest first, without the large columns.
SELECT
    seq, id, title, task_type, priority, max_tries, timeout, backend, status, rank_time, due_time, create_time,
    update_time, '' AS description, skill, '{}'::jsonb AS payload, depends_on, not_before_time, hold_reason,
    run_id, fence, tries, start_failures, last_start_failure_time, executor_id, exit_code, '' AS result, error,
    cancel_requested, blocked_by, start_time, end_time, next_attempt_time, dependency_policy, backoff_count
FROM tasks
WHERE (%(before_seq)s::bigint IS NULL OR seq < %(before_seq)s)
    AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s))
    AND (%(task_types)s::text[] IS NULL OR task_type = ANY(%(task_types)s))
    AND (%(priorities)s::smallint[] IS NULL OR priority = ANY(%(priorities)s))
ORDER BY seq DESC LIMIT %(limit)s;

-- name: count_tasks
-- Tasks that a filter chooses, counted up to a limit.
SELECT count(*) AS n FROM (SELECT 1 FROM tasks
    WHERE seq > %(after_seq)s
        AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s))
        AND (%(task_types)s::text[] IS NULL OR task_type = ANY(%(task_types)s))
        AND (%(priorities)s::smallint[] IS NULL OR priority = ANY(%(priorities)s))
    LIMIT %(limit)s) chosen;

-- name: task_ids
-- Tasks that a filter chooses, oldest first.
SELECT seq, id FROM tasks
WHERE seq > %(after_seq)s
    AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s))
    AND (%(task_types)s::text[] IS NULL OR task_type = ANY(%(task_types)s))
    AND (%(priorities)s::smallint[] IS NULL OR priority = ANY(%(priorities)s))
ORDER BY seq LIMIT %(limit)s;

-- name: purge_tasks
-- Ended tasks past their retention that nobody depends on any more, with their runs.
WITH old AS MATERIALIZED (
    SELECT id FROM tasks t
    WHERE status IN ('completed', 'failed', 'cancelled') AND end_time < %(before)s
        AND NOT EXISTS (SELECT 1 FROM task_dependencies d WHERE d.depends_on_id = t.id)
    ORDER BY end_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), gone_runs AS (
    DELETE FROM task_runs WHERE task_id IN (SELECT id FROM old)
)
DELETE FROM tasks WHERE id IN (SELECT id FROM old);

-- name: vacuum_settings
-- A connection that may take its time, takes it as autovacuum does, and keeps migrations waiting meanwhile.
SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '10s', false),
    set_config('vacuum_cost_delay', '2ms', false), pg_advisory_lock(4922340);

-- name: vacuum
-- Frees the room of rows that housekeeping has deleted. Autovacuum gives way to it. Cutting off a table's end would lock it.
VACUUM (TRUNCATE false)
    tasks, task_runs, request_ids, audit_entries, dispatch_second_counts, dispatch_minute_counts;
