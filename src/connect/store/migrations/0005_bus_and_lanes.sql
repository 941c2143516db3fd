-- The bus in, and lanes that processes share.

CREATE TABLE dead_event (
    id            uuid        PRIMARY KEY,
    bus           text        NOT NULL CHECK (length(bus) BETWEEN 1 AND 255),
    kind          text        NOT NULL CHECK (kind IN ('event', 'result')),
    body          bytea       NOT NULL,
    attributes    jsonb       NOT NULL DEFAULT '{}',
    code          text        NOT NULL,
    reason        text        NOT NULL,
    errors        jsonb       NOT NULL DEFAULT '[]',
    times         integer     NOT NULL DEFAULT 1 CHECK (times > 0),
    received_at   timestamptz NOT NULL DEFAULT now(),
    last_at       timestamptz NOT NULL DEFAULT now(),
    mended_at     timestamptz,
    replayed_at   timestamptz,
    event_id      uuid,
    -- not on the wire:
    digest        bytea       NOT NULL CHECK (length(digest) = 32),
    UNIQUE (bus, digest)
);
COMMENT ON TABLE dead_event IS 'messages of a bus that could not be recorded: kept until somebody mends and replays them';
COMMENT ON COLUMN dead_event.digest IS 'of the message as it came: a redelivery of it is the same row, however often';
COMMENT ON COLUMN dead_event.event_id IS 'the event it is or contradicts, where that is known';
CREATE INDEX dead_event_newest ON dead_event (received_at DESC, id DESC);
CREATE INDEX dead_event_open ON dead_event (bus, received_at DESC) WHERE replayed_at IS NULL;

CREATE TABLE target (
    name         text        PRIMARY KEY,
    paused_at    timestamptz,
    paused_by    text,
    failures     integer     NOT NULL DEFAULT 0 CHECK (failures >= 0),
    opened_at    timestamptz,
    open_until   timestamptz,
    openings     integer     NOT NULL DEFAULT 0 CHECK (openings >= 0),
    probe_until  timestamptz,
    held_until   timestamptz,
    last_failure text,
    changed_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((paused_at IS NULL) = (paused_by IS NULL)),
    CHECK ((opened_at IS NULL) = (open_until IS NULL)),
    CHECK (probe_until IS NULL OR open_until IS NOT NULL)
);
COMMENT ON TABLE target IS 'what all processes share of a target''s lane: pause, breaker, and the patience it asked for';
COMMENT ON COLUMN target.failures IS 'of the target itself, one after the other; an answer that shows it alive begins anew';
COMMENT ON COLUMN target.open_until IS 'nothing is claimed before; then one probe decides';
COMMENT ON COLUMN target.openings IS 'since it was last healthy: each is longer';
COMMENT ON COLUMN target.probe_until IS 'a process is probing; where it died, another may from then on';
COMMENT ON COLUMN target.held_until IS 'a Retry-After of a 429 or 503: nothing is claimed before';

CREATE TABLE user_lane (
    target  text NOT NULL,
    user_id text NOT NULL,
    PRIMARY KEY (target, user_id)
);
COMMENT ON TABLE user_lane IS 'locked while an action enters or leaves the order of its user at a target with order_by = user';

ALTER TABLE reward_action ADD COLUMN lane_position bigint;
COMMENT ON COLUMN reward_action.lane_position IS 'its place in the order of its user; null: in no order';
CREATE SEQUENCE lane_position;
CREATE INDEX reward_action_in_order ON reward_action (target, user_id, lane_position)
    WHERE lane_position IS NOT NULL AND status IN ('pending', 'blocked', 'dispatched');
