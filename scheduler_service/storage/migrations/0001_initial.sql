-- The whole state of a cluster. Times are timestamptz; "now" is the database's, taken once a transaction.

CREATE TABLE cluster (
    singleton   boolean PRIMARY KEY DEFAULT true CONSTRAINT cluster_is_one CHECK (singleton),
    cluster_id  uuid NOT NULL DEFAULT gen_random_uuid(),
    create_time timestamptz NOT NULL DEFAULT now()
);
INSERT INTO cluster DEFAULT VALUES;

-- Who ticks. Locked FOR SHARE by every tick and FOR UPDATE by every override, so that no claim commits after an override answered.
CREATE TABLE leader (
    singleton         boolean PRIMARY KEY DEFAULT true CONSTRAINT leader_is_one CHECK (singleton),
    holder            uuid,
    address           text NOT NULL DEFAULT '',
    term              bigint NOT NULL DEFAULT 0,
    lease_until       timestamptz,
    tick_success_time timestamptz,
    tick_error        text NOT NULL DEFAULT ''
);
INSERT INTO leader DEFAULT VALUES;

CREATE TABLE scheduler_settings (
    singleton         boolean PRIMARY KEY DEFAULT true CONSTRAINT scheduler_settings_is_one CHECK (singleton),
    -- The leader's WINDOW_MS, so that the working_memory view counts the same window.
    window_ms         bigint NOT NULL DEFAULT 3600000,
    open_duration_ms  bigint NOT NULL DEFAULT 1800000,
    budget_cap        integer CONSTRAINT budget_cap_positive CHECK (budget_cap >= 1),
    budget_cap_actor  text NOT NULL DEFAULT '',
    budget_cap_reason text NOT NULL DEFAULT '',
    budget_cap_time   timestamptz
);
INSERT INTO scheduler_settings DEFAULT VALUES;

CREATE TABLE tasks (
    id                      uuid PRIMARY KEY,
    -- Order of submission among equal ranks, and the key of pages.
    seq                     bigint GENERATED ALWAYS AS IDENTITY,
    title                   text NOT NULL,
    description             text NOT NULL,
    task_type               text NOT NULL,
    priority                smallint NOT NULL CONSTRAINT tasks_priority CHECK (priority BETWEEN 0 AND 2),
    skill                   text NOT NULL,
    payload                 jsonb NOT NULL,
    depends_on              uuid[] NOT NULL,
    max_tries               integer NOT NULL,
    not_before_time         timestamptz,
    timeout                 interval NOT NULL,
    -- Where its type routes to; a column so that a held backend is left out of the claim instead of scanned past.
    backend                 text NOT NULL,
    status                  text NOT NULL CONSTRAINT tasks_status CHECK (
        status IN ('queued', 'dispatching', 'running', 'completed', 'failed', 'cancelled', 'quarantined')),
    hold_reason             text NOT NULL,
    -- The current run, or the last one.
    run_id                  uuid,
    fence                   bigint NOT NULL,
    tries                   integer NOT NULL,
    start_failures          integer NOT NULL,
    last_start_failure_time timestamptz,
    backoff_count           integer NOT NULL,
    executor_id             text NOT NULL,
    exit_code               integer,
    result                  text NOT NULL,
    error                   text NOT NULL,
    cancel_requested        boolean NOT NULL,
    -- Prerequisites that have not completed.
    blocked_by              integer NOT NULL,
    rank_time               timestamptz NOT NULL,
    due_time                timestamptz NOT NULL,
    create_time             timestamptz NOT NULL,
    update_time             timestamptz NOT NULL,
    start_time              timestamptz,
    end_time                timestamptz,
    next_attempt_time       timestamptz,
    -- As core.slot_budget.is_internal: a decomposition, or requires_cortex.
    internal                boolean NOT NULL GENERATED ALWAYS AS (
        coalesce(payload->'decomposition', 'null') NOT IN ('null', 'false', '""', '0', '[]', '{}')
        OR coalesce(payload->'requires_cortex' = 'true', false)) STORED
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE UNIQUE INDEX tasks_seq ON tasks (seq);
CREATE INDEX tasks_queued ON tasks (backend, rank_time, seq) WHERE status = 'queued';
CREATE INDEX tasks_due ON tasks (priority, due_time) WHERE status = 'queued' AND blocked_by = 0;
CREATE INDEX tasks_live ON tasks (status, priority) WHERE status IN ('queued', 'dispatching', 'running', 'quarantined');
CREATE INDEX tasks_internal ON tasks (status) WHERE internal;
CREATE INDEX tasks_ended ON tasks (end_time) WHERE status IN ('completed', 'failed', 'cancelled');

CREATE TABLE task_dependencies (
    task_id       uuid NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    -- No foreign key: a missing prerequisite ends the task as dependency_failed, it does not refuse the row.
    depends_on_id uuid NOT NULL,
    PRIMARY KEY (task_id, depends_on_id)
);
CREATE INDEX task_dependencies_prerequisite ON task_dependencies (depends_on_id);

-- One row a claim: the outbox while 'dispatching', the history afterwards.
CREATE TABLE task_runs (
    run_id             uuid PRIMARY KEY,
    task_id            uuid NOT NULL,
    fence              bigint NOT NULL,
    executor_id        text NOT NULL,
    backend            text NOT NULL,
    breaker_key        text NOT NULL,
    breaker_generation bigint NOT NULL,
    is_probe           boolean NOT NULL,
    state              text NOT NULL CONSTRAINT task_runs_state CHECK (state IN ('dispatching', 'accepted', 'running', 'ended')),
    verdict            text CONSTRAINT task_runs_verdict CHECK (verdict IN ('success', 'failure', 'neutral', 'rejected')),
    verdict_reason     text NOT NULL,
    outcome            text,
    exit_code          integer,
    signal             integer,
    error              text NOT NULL,
    usage              jsonb NOT NULL,
    claim_time         timestamptz NOT NULL,
    accept_time        timestamptz,
    start_time         timestamptz,
    end_time           timestamptz,
    -- The run may be given up only after this and one lease of unchanged renew_seq on the replica's own clock.
    lease_until        timestamptz,
    renew_seq          bigint NOT NULL,
    CONSTRAINT task_runs_fence UNIQUE (task_id, fence)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE INDEX task_runs_live ON task_runs (executor_id, backend) WHERE state <> 'ended';

-- Every decision, partitioned by day so that retention drops whole partitions.
CREATE SEQUENCE dispatch_events_id;
CREATE TABLE dispatch_events (
    id          bigint NOT NULL,
    create_time timestamptz NOT NULL,
    success     boolean NOT NULL,
    reason      text NOT NULL,
    detail      text NOT NULL,
    attempt     boolean NOT NULL,
    backend     text NOT NULL,
    task_id     uuid,
    run_id      uuid,
    executor_id text NOT NULL,
    PRIMARY KEY (id, create_time)
) PARTITION BY RANGE (create_time);
CREATE INDEX dispatch_events_time ON dispatch_events (create_time, id);
CREATE INDEX dispatch_events_task ON dispatch_events (task_id, id) WHERE task_id IS NOT NULL;

-- The same decisions counted by second: the window costs its seconds, not its decisions.
CREATE TABLE dispatch_event_counts (
    second    timestamptz NOT NULL,
    backend   text NOT NULL,
    attempt   boolean NOT NULL,
    success   boolean NOT NULL,
    reason    text NOT NULL,
    n         bigint NOT NULL,
    last_time timestamptz NOT NULL,
    PRIMARY KEY (second, backend, attempt, success, reason)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE circuit_breaker_states (
    key               text PRIMARY KEY,
    state             text NOT NULL CONSTRAINT circuit_breaker_states_state CHECK (state IN ('CLOSED', 'OPEN', 'HALF_OPEN')),
    failures          integer NOT NULL,
    last_failure_time timestamptz,
    opened_time       timestamptz,
    -- Set by a trip with a duration; otherwise OPEN_DURATION_MS counts.
    open_duration     interval,
    generation        bigint NOT NULL,
    probe_run_id      uuid,
    reason            text NOT NULL,
    tripped_by        text NOT NULL DEFAULT '',
    update_time       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE backend_states (
    backend                 text PRIMARY KEY,
    last_start_success_time timestamptz,
    last_trickle_time       timestamptz
);

CREATE TABLE executors (
    executor_id     text PRIMARY KEY,
    target          text NOT NULL,
    boot_id         text NOT NULL,
    snapshot        jsonb NOT NULL,
    last_heard_time timestamptz NOT NULL
);

-- Events in the order of their commits: ids are drawn under one advisory lock just before commit.
CREATE SEQUENCE events_id;
CREATE TABLE events (
    id      bigint PRIMARY KEY,
    type    text NOT NULL,
    time    timestamptz NOT NULL,
    source  text NOT NULL,
    payload jsonb NOT NULL
);
CREATE INDEX events_time ON events (time);

CREATE TABLE drains (
    source     text PRIMARY KEY,
    reason     text NOT NULL,
    actor      text NOT NULL,
    until_idle boolean NOT NULL,
    since_time timestamptz NOT NULL
);

-- backend '' pauses all.
CREATE TABLE billing_pauses (
    backend    text PRIMARY KEY,
    until_time timestamptz NOT NULL,
    since_time timestamptz NOT NULL,
    reason     text NOT NULL,
    actor      text NOT NULL
);

CREATE TABLE request_ids (
    method      text NOT NULL,
    request_id  text NOT NULL,
    body_hash   bytea NOT NULL,
    response    bytea NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (method, request_id)
);
CREATE INDEX request_ids_time ON request_ids (create_time);

CREATE TABLE audit_entries (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time       timestamptz NOT NULL,
    actor      text NOT NULL,
    method     text NOT NULL,
    target     text NOT NULL,
    reason     text NOT NULL,
    request_id text NOT NULL,
    detail     jsonb NOT NULL
);

CREATE TABLE last_dispatch (
    singleton       boolean PRIMARY KEY DEFAULT true CONSTRAINT last_dispatch_is_one CHECK (singleton),
    task_id         uuid NOT NULL,
    task_title      text NOT NULL,
    run_id          uuid NOT NULL,
    dispatched_time timestamptz NOT NULL
);

-- Creates the daily partitions (UTC) that cover [first_day, last_day]. Idempotent.
CREATE FUNCTION ensure_dispatch_event_partitions(first_day date, last_day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    day date := first_day;
    name text;
BEGIN
    WHILE day <= last_day LOOP
        name := 'dispatch_events_' || to_char(day, 'YYYYMMDD');
        IF to_regclass(name) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF dispatch_events FOR VALUES FROM (%L) TO (%L)',
                               name, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
            EXCEPTION WHEN duplicate_table OR unique_violation THEN
                NULL;  -- another replica was faster
            END;
        END IF;
        day := day + 1;
    END LOOP;
END $$;

CREATE FUNCTION iso_time(t timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$ SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

-- Decisions since `since` (inclusive), grouped: whole seconds from the counters, the edge second from the events themselves.
CREATE FUNCTION dispatch_window_counts(since timestamptz)
RETURNS TABLE (backend text, attempt boolean, success boolean, reason text, n bigint, last_time timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT u.backend, u.attempt, u.success, u.reason, sum(u.n)::bigint, max(u.last_time)
    FROM (
        SELECT c.backend, c.attempt, c.success, c.reason, c.n, c.last_time
        FROM dispatch_event_counts c
        WHERE c.second > date_trunc('second', since)
        UNION ALL
        SELECT e.backend, e.attempt, e.success, e.reason, 1, e.create_time
        FROM dispatch_events e
        WHERE e.create_time >= since AND e.create_time < date_trunc('second', since) + interval '1 second'
    ) u
    GROUP BY 1, 2, 3, 4
$$;

-- What the reference's operators typed at. The same figures as GetDispatchStats.
CREATE VIEW working_memory AS
WITH settings AS (SELECT now() - window_ms * interval '1 millisecond' AS since,
                         open_duration_ms * interval '1 millisecond' AS open_duration FROM scheduler_settings),
counts AS (SELECT c.* FROM settings, dispatch_window_counts(settings.since) c),
newest AS (SELECT e.create_time, e.id, e.success, e.reason FROM dispatch_events e, settings
           WHERE e.create_time >= settings.since ORDER BY e.create_time DESC, e.id DESC LIMIT 1000)
SELECT 'dispatch_stats'::text AS key,
       jsonb_build_object(
           'window_1h', jsonb_build_object(
               'total', coalesce((SELECT sum(n) FROM counts), 0),
               'success', coalesce((SELECT sum(n) FROM counts WHERE success), 0),
               'failed', coalesce((SELECT sum(n) FROM counts WHERE NOT success), 0),
               'rate', (SELECT coalesce(sum(n) FILTER (WHERE success), 0)::double precision / sum(n) FROM counts),
               'last_updated', (SELECT iso_time(max(last_time)) FROM counts),
               'failure_reasons', coalesce((SELECT jsonb_object_agg(r.reason, r.n) FROM (
                   SELECT reason, sum(n) AS n FROM counts WHERE NOT success AND reason <> '' GROUP BY reason) r), '{}')),
           'events', coalesce((SELECT jsonb_agg(
               jsonb_build_object('ts', iso_time(create_time), 'success', success)
               || CASE WHEN success OR reason = '' THEN '{}'::jsonb ELSE jsonb_build_object('reason', reason) END
               ORDER BY create_time, id) FROM newest), '[]')) AS value_json,
       now() AS updated_at
UNION ALL
SELECT 'drain', jsonb_build_object(
           'draining', count(*) > 0,
           'drain_started_at', iso_time(min(since_time)),
           'sources', coalesce(jsonb_object_agg(source, jsonb_build_object(
               'reason', reason, 'actor', actor, 'since', iso_time(since_time), 'until_idle', until_idle))
               FILTER (WHERE source IS NOT NULL), '{}')),
       coalesce(max(since_time), now())
FROM drains
UNION ALL
SELECT 'billing_pause', jsonb_build_object(
           'active', count(*) > 0,
           'pauses', coalesce(jsonb_object_agg(backend, jsonb_build_object(
               'resetTime', iso_time(until_time), 'setAt', iso_time(since_time), 'reason', reason))
               FILTER (WHERE backend IS NOT NULL), '{}')),
       coalesce(max(since_time), now())
FROM billing_pauses WHERE until_time > now()
UNION ALL
SELECT 'circuit_breaker', coalesce(jsonb_object_agg(key, jsonb_build_object(
           'state', state, 'failures', failures, 'lastFailureAt', iso_time(last_failure_time),
           'openedAt', iso_time(opened_time), 'generation', generation, 'reason', reason)) FILTER (WHERE key IS NOT NULL), '{}'),
       coalesce(max(update_time), now())
FROM circuit_breaker_states
UNION ALL
SELECT 'tick_last_dispatch', jsonb_build_object(
           'task_id', task_id, 'task_title', task_title, 'run_id', run_id,
           'dispatched_at', iso_time(dispatched_time), 'success', true),
       dispatched_time
FROM last_dispatch;
