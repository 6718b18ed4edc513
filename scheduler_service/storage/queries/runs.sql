-- Runs: one row a claim.

-- name: add_run
-- Stores a claim.
INSERT INTO task_runs (
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, state, verdict,
    verdict_reason, outcome, exit_code, signal, error, usage, claim_time, accept_time, start_time, end_time,
    lease_until, renew_seq
) VALUES (
    %(run_id)s, %(task_id)s, %(fence)s, %(executor_id)s, %(backend)s, %(breaker_key)s, %(breaker_generation)s,
    %(is_probe)s, %(state)s, %(verdict)s, %(verdict_reason)s, %(outcome)s, %(exit_code)s, %(signal)s, %(error)s,
    %(usage)s, %(claim_time)s, %(accept_time)s, %(start_time)s, %(end_time)s, %(lease_until)s, %(renew_seq)s
);

-- name: get_runs
-- Runs by id. Their task's lock guards them.
SELECT
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, state, verdict,
    verdict_reason, outcome, exit_code, signal, error, usage, claim_time, accept_time, start_time, end_time,
    lease_until, renew_seq
FROM task_runs WHERE run_id = ANY(%(run_ids)s);

-- name: runs_of_task
-- A task's runs, newest first.
SELECT
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, state, verdict,
    verdict_reason, outcome, exit_code, signal, error, usage, claim_time, accept_time, start_time, end_time,
    lease_until, renew_seq
FROM task_runs WHERE task_id = %(task_id)s ORDER BY fence DESC LIMIT %(limit)s;

-- name: live_runs
-- Runs that have not ended, of one executor or of all.
SELECT
    run_id, task_id, fence, executor_id, backend, breaker_key, breaker_generation, is_probe, state, verdict,
    verdict_reason, outcome, exit_code, signal, error, usage, claim_time, accept_time, start_time, end_time,
    lease_until, renew_seq
FROM task_runs WHERE state <> 'ended' AND (%(executor_id)s::text IS NULL OR executor_id = %(executor_id)s)
ORDER BY claim_time, run_id;

-- name: save_run
-- Writes what can change.
UPDATE task_runs SET
    state = %(state)s, verdict = %(verdict)s, verdict_reason = %(verdict_reason)s, outcome = %(outcome)s,
    exit_code = %(exit_code)s, signal = %(signal)s, error = %(error)s, usage = %(usage)s,
    accept_time = %(accept_time)s, start_time = %(start_time)s, end_time = %(end_time)s,
    lease_until = %(lease_until)s, renew_seq = %(renew_seq)s
WHERE run_id = %(run_id)s;
