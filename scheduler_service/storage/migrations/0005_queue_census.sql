-- How many tasks could be waiting, without counting them: those that were open when last counted, and every one numbered since.
-- A submission looks here, and counts anew only when this says that the queue might be full.
CREATE TABLE queue_census (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT queue_census_is_one CHECK (singleton),
    -- Queued, dispatching and running tasks when they were counted, and those that were put back by hand since.
    open_tasks bigint NOT NULL DEFAULT 0,
    -- The highest tasks.seq given out by then.
    seq        bigint NOT NULL DEFAULT 0
);
-- Nothing counted yet: every task there ever was.
INSERT INTO queue_census DEFAULT VALUES;
