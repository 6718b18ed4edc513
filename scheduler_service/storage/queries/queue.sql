-- How full the queue is. Tasks are numbered as they come, so that what came since the last count need not be counted.

-- name: waiting_at_most
-- No fewer than the queued tasks. A number that was drawn for nothing counts too, until the next count.
SELECT c.open_tasks + CASE WHEN s.is_called THEN s.last_value ELSE 0 END - c.seq AS n FROM queue_census c, tasks_seq_seq s;

-- name: count_waiting
-- Counts the queued tasks, and notes from what to reckon on: live tasks may come back to the queue by themselves.
WITH numbered AS MATERIALIZED (
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS seq FROM tasks_seq_seq
), counted AS (
    SELECT count(*) AS open_tasks, count(*) FILTER (WHERE status = 'queued') AS waiting
    FROM tasks WHERE status IN ('queued', 'dispatching', 'running')
), noted AS (
    UPDATE queue_census SET open_tasks = counted.open_tasks, seq = numbered.seq FROM counted, numbered
)
SELECT waiting AS n FROM counted;

-- name: note_put_back
-- Tasks that wait again without a new number.
UPDATE queue_census SET open_tasks = open_tasks + %(count)s;
