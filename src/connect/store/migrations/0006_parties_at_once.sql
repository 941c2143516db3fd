-- New parties go into their index at once. GIN keeps them in a list first that each search reads from end to end, up to
-- 4 MB of it: a limit of a party took milliseconds where it takes microseconds.

ALTER INDEX event_by_party SET (fastupdate = off);
SELECT gin_clean_pending_list('event_by_party');
