-- What a prerequisite that ended badly, or does not exist, does to a task: 'fail' ends it, 'wait' leaves it in the queue.
ALTER TABLE tasks ADD COLUMN dependency_policy text NOT NULL DEFAULT 'fail'
    CONSTRAINT tasks_dependency_policy CHECK (dependency_policy IN ('fail', 'wait'));
