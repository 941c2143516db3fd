-- A trace is written once and read whole: as text it takes about half of what jsonb takes for many short arrays.

ALTER TABLE event ALTER COLUMN trace TYPE json;
COMMENT ON COLUMN event.trace IS 'of each rule of its type: rule, outcome, and what of line, values and detail is not found elsewhere (engine.explain)';
