-- Ids and commands are made of what was reported alone: a moment of receipt is in neither.

ALTER TABLE event ADD COLUMN occurred_at_reported boolean;
COMMENT ON COLUMN event.occurred_at_reported IS 'false: the reporter left occurred_at out, and it is the moment of receipt; null: stored before this was kept';
