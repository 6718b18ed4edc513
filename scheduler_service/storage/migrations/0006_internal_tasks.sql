-- Which tasks are internal is written with their payload: a generated column is worked out anew at every change of a status,
-- which took a quarter of its time.
-- As core.slot_budget.is_internal: a decomposition, or requires_cortex.
CREATE FUNCTION is_internal(payload jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(payload->'decomposition', 'null') NOT IN ('null', 'false', '""', '0', '[]', '{}')
        OR coalesce(payload->'requires_cortex' = 'true', false)
$$;
ALTER TABLE tasks ALTER COLUMN internal DROP EXPRESSION, ALTER COLUMN internal SET DEFAULT false;
