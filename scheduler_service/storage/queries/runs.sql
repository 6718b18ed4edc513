-- Runs: one row a claim.

-- name: add_runs
-- Stores claims, given as JSON.
INSERT INTO task_runs (
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, claim_time,
    lease_until, state, verdict_reason, error, usage, renew_seq
)
SELECT
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, claim_time,
    lease_until, state, '', '', '{}', 0
FROM json_populate_recordset(NULL::task_runs, %(rows)s);

-- name: get_runs
-- Runs by id. Their task's lock guards them.
SELECT
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, claim_time,
    lease_until, state, verdict, verdict_reason, outcome, exit_code, signal, error, usage, accept_time,
    start_time, end_time, renew_seq
FROM task_runs WHERE run_id = ANY(%(run_ids)s);

-- name: run_places
-- The tasks and breakers of runs, which never change.
SELECT DISTINCT task_id, breaker_key FROM task_runs WHERE run_id = ANY(%(run_ids)s);

-- name: runs_of_task
-- A task's runs, newest first.
SELECT
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, claim_time,
    lease_until, state, verdict, verdict_reason, outcome, exit_code, signal, error, usage, accept_time,
    start_time, end_time, renew_seq
FROM task_runs WHERE task_id = %(task_id)s ORDER BY fence DESC LIMIT %(limit)s;

-- name: live_runs
-- Runs of an executor that have not ended.
SELECT
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, claim_time,
    lease_until, state, verdict, verdict_reason, outcome, exit_code, signal, error, usage, accept_time,
    start_time, end_time, renew_seq
FROM task_runs WHERE state <> 'ended' AND executor_id = %(executor_id)s
ORDER BY claim_time, run_id;

-- name: unanswered_runs
-- Claims of an executor that are as old as that, and still unanswered.
SELECT
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, claim_time,
    lease_until, state, verdict, verdict_reason, outcome, exit_code, signal, error, usage, accept_time,
    start_time, end_time, renew_seq
FROM task_runs WHERE state <> 'ended' AND executor_id = %(executor_id)s
    AND state = 'dispatching' AND claim_time <= %(claimed_by)s
ORDER BY claim_time, run_id;

-- name: runs_to_cancel
-- Live runs of an executor whose task is to be cancelled.
SELECT r.run_id FROM task_runs r JOIN tasks t ON t.id = r.task_id
WHERE r.state <> 'ended' AND r.executor_id = %(executor_id)s AND t.cancel_requested ORDER BY r.claim_time, r.run_id;

-- name: live_leases
-- The leases of all runs that have not ended.
SELECT run_id, renew_seq, lease_until FROM task_runs WHERE state <> 'ended';

-- name: save_runs
-- Writes what can change of runs that are given as JSON.
UPDATE task_runs t SET
    state = r.state, verdict = r.verdict, verdict_reason = coalesce(r.verdict_reason, ''), outcome = r.outcome,
    exit_code = r.exit_code, signal = r.signal, error = coalesce(r.error, ''), usage = coalesce(r.usage, '{}'),
    accept_time = r.accept_time, start_time = r.start_time, end_time = r.end_time,
    lease_until = r.lease_until, renew_seq = coalesce(r.renew_seq, 0)
FROM json_populate_recordset(NULL::task_runs, %(rows)s) r
WHERE t.run_id = r.run_id;
