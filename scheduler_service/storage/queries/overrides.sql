-- Overrides, remembered requests and the audit log.

-- name: get_drains
-- Every source that drains.
SELECT source, reason, actor, until_idle, since_time FROM drains ORDER BY source;

-- name: save_drain
-- One source drains; since when is kept.
INSERT INTO drains (source, reason, actor, until_idle, since_time)
VALUES (%(source)s, %(reason)s, %(actor)s, %(until_idle)s, %(since_time)s)
ON CONFLICT (source) DO UPDATE SET reason = excluded.reason, actor = excluded.actor, until_idle = excluded.until_idle;

-- name: delete_drain
-- One source drains no more.
DELETE FROM drains WHERE source = %(source)s;

-- name: get_billing_pauses
-- All pauses, over or not.
SELECT backend, until_time, since_time, reason, actor FROM billing_pauses ORDER BY backend;

-- name: save_billing_pause
-- Writes one.
INSERT INTO billing_pauses (backend, until_time, since_time, reason, actor)
VALUES (%(backend)s, %(until_time)s, %(since_time)s, %(reason)s, %(actor)s)
ON CONFLICT (backend) DO UPDATE SET until_time = excluded.until_time, since_time = excluded.since_time,
    reason = excluded.reason, actor = excluded.actor;

-- name: delete_billing_pause
-- Ends one.
DELETE FROM billing_pauses WHERE backend = %(backend)s;

-- name: operator_settings
-- The operator's ceiling and what the working_memory view counts with, in each row; and one row a changed setting, or one of NULLs.
SELECT s.budget_cap AS slots, s.budget_cap_actor AS cap_actor, s.budget_cap_reason AS cap_reason, s.budget_cap_time AS cap_time,
    s.window_ms, s.open_duration_ms, o.name, o.value, o.actor, o.reason, o.since_time
FROM scheduler_settings s LEFT JOIN setting_overrides o ON true ORDER BY o.name;

-- name: save_budget_cap
-- Writes it.
UPDATE scheduler_settings SET budget_cap = %(slots)s, budget_cap_actor = %(actor)s, budget_cap_reason = %(reason)s,
    budget_cap_time = %(since_time)s;

-- name: save_setting_override
-- Changes a setting.
INSERT INTO setting_overrides (name, value, actor, reason, since_time)
VALUES (%(name)s, %(value)s, %(actor)s, %(reason)s, %(since_time)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, actor = excluded.actor, reason = excluded.reason,
    since_time = excluded.since_time;

-- name: delete_setting_override
-- Gives a setting back to the environment.
DELETE FROM setting_overrides WHERE name = %(name)s;

-- name: get_requests
-- The first answers to request_ids.
SELECT request_id, body_hash, response FROM request_ids WHERE method = %(method)s AND request_id = ANY(%(request_ids)s);

-- name: add_requests
-- Remembers answers, given as JSON.
INSERT INTO request_ids (method, request_id, body_hash, response, create_time)
SELECT r.method, r.request_id, decode(r.body_hash, 'base64'), decode(r.response, 'base64'), %(now)s
FROM json_to_recordset(%(rows)s) AS r (method text, request_id text, body_hash text, response text);

-- name: purge_requests
-- Answers kept for 24 h and longer.
DELETE FROM request_ids WHERE create_time < %(before)s;

-- name: add_audit_entry
-- Appends to the audit log.
INSERT INTO audit_entries (time, actor, method, target, reason, request_id, detail)
VALUES (%(time)s, %(actor)s, %(method)s, %(target)s, %(reason)s, %(request_id)s, %(detail)s);

-- name: purge_audit_entries
-- Entries past their retention.
DELETE FROM audit_entries WHERE id IN (SELECT id FROM audit_entries WHERE time < %(before)s ORDER BY time LIMIT %(limit)s);

-- name: list_audit_entries
-- A page of the audit log, newest first.
SELECT id, time, actor, method, target, reason, request_id, detail FROM audit_entries
WHERE (%(before_id)s::bigint IS NULL OR id < %(before_id)s)
    AND (%(method)s = '' OR method = %(method)s)
    AND (%(actor)s = '' OR actor = %(actor)s OR starts_with(actor, %(actor)s || ' ('))
    AND (%(target)s = '' OR target = %(target)s)
    AND (%(start_time)s::timestamptz IS NULL OR time >= %(start_time)s)
    AND (%(end_time)s::timestamptz IS NULL OR time < %(end_time)s)
ORDER BY id DESC LIMIT %(limit)s;
