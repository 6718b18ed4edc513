-- Settings changed at run time. A row stands in place of the environment's value on every replica, until it is deleted.
CREATE TABLE setting_overrides (
    name       text PRIMARY KEY,
    -- A number, true or false, or a string, as core/tuning.py takes it.
    value      jsonb NOT NULL CONSTRAINT setting_overrides_plain CHECK (jsonb_typeof(value) IN ('number', 'boolean', 'string')),
    actor      text NOT NULL,
    reason     text NOT NULL,
    since_time timestamptz NOT NULL
);

CREATE INDEX audit_entries_time ON audit_entries (time);
