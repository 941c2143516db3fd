-- Rows of state change with almost every event: with room on their pages, a change touches no index.

ALTER TABLE state SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
