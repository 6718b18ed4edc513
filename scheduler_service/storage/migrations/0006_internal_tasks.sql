-- Which tasks are internal is worked out when their payload is written: a generated column is worked out anew at every change of a
-- status, which took a quarter of its time.
ALTER TABLE tasks ALTER COLUMN internal DROP EXPRESSION, ALTER COLUMN internal SET DEFAULT false;
-- As core.slot_budget.is_internal: a decomposition, or requires_cortex.
CREATE FUNCTION set_internal() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.internal := coalesce(NEW.payload->'decomposition', 'null') NOT IN ('null', 'false', '""', '0', '[]', '{}')
        OR coalesce(NEW.payload->'requires_cortex' = 'true', false);
    RETURN NEW;
END $$;
CREATE TRIGGER tasks_internal BEFORE INSERT OR UPDATE OF payload ON tasks FOR EACH ROW EXECUTE FUNCTION set_internal();
