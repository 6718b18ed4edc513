-- What a prerequisite that ended badly, or does not exist, does to a task: 'fail' ends it, 'wait' leaves it in the queue.
ALTER TABLE tasks ADD COLUMN dependency_policy text NOT NULL DEFAULT 'fail'
    CONSTRAINT tasks_dependency_policy CHECK (dependency_policy IN ('fail', 'wait'));

-- What no program of ours writes and none could read back: refused where it would come in.
ALTER TABLE tasks
    ADD CONSTRAINT tasks_payload CHECK (jsonb_typeof(payload) = 'object'),
    ADD CONSTRAINT tasks_depends_on CHECK (array_position(depends_on, NULL) IS NULL),
    ADD CONSTRAINT tasks_fence CHECK (fence BETWEEN 0 AND 9007199254740991),
    ADD CONSTRAINT tasks_times CHECK (
        least(create_time, update_time, rank_time, due_time, not_before_time, next_attempt_time, start_time, end_time,
            last_start_failure_time) > '0001-01-02'
        AND greatest(create_time, update_time, rank_time, due_time, not_before_time, next_attempt_time, start_time, end_time,
            last_start_failure_time) < '9999-12-31 23:59:59+00');
