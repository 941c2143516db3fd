-- The whole rule model: what rules remember, what they promised to take back, who met which variant.

ALTER TABLE event ADD COLUMN state jsonb;
COMMENT ON COLUMN event.state IS 'the state values its decision read: deciding again with these gives the same actions';
CREATE INDEX event_by_subject ON event (primary_subject_user_id, received_at DESC)
    WHERE primary_subject_user_id IS NOT NULL;
CREATE INDEX event_by_party ON event USING gin (parties jsonb_path_ops) WHERE parties <> '{}';

ALTER TABLE reward_action
    ADD COLUMN occurred_at timestamptz,
    ADD COLUMN budget      text,
    ADD COLUMN refills     boolean NOT NULL DEFAULT false,
    ADD COLUMN arm         text,
    ADD COLUMN reversal    jsonb,
    ADD COLUMN reversed    numeric NOT NULL DEFAULT 0,
    ADD COLUMN frees_claim boolean NOT NULL DEFAULT false;
UPDATE reward_action AS action SET occurred_at = coalesce(
    (SELECT event.occurred_at FROM event WHERE event.id = action.event_id), action.created_at);
ALTER TABLE reward_action
    ALTER COLUMN occurred_at SET DEFAULT now(),
    ALTER COLUMN occurred_at SET NOT NULL,
    ADD CHECK (reversed >= 0 AND reversed <= amount),
    ADD CHECK (reverses IS NOT NULL OR NOT frees_claim);
COMMENT ON COLUMN reward_action.occurred_at IS 'of its event: limits keep their periods by it';
COMMENT ON COLUMN reward_action.refills IS 'what is taken back of it returns to its budget';
COMMENT ON COLUMN reward_action.reversal IS 'how it can be taken back, frozen when it was given';
COMMENT ON COLUMN reward_action.reversed IS 'how much of it was taken back and no longer counts in limits';
COMMENT ON COLUMN reward_action.frees_claim IS 'of a reversal: its amount is in the original''s reversed';
CREATE INDEX reward_action_of_rule_by_occurrence ON reward_action (rule_key, occurred_at);
CREATE INDEX reward_action_reversals ON reward_action (reverses) WHERE reverses IS NOT NULL;
CREATE INDEX reward_action_of_budget ON reward_action (budget) WHERE budget IS NOT NULL;

CREATE TABLE state (
    key         text COLLATE "C" PRIMARY KEY,
    value       numeric     NOT NULL DEFAULT 0,
    detail      jsonb,
    computed_at timestamptz
);
COMMENT ON TABLE state IS 'what rules remember: links, counters, budgets, limits and rails; locked before deciding, in the order of their keys';
COMMENT ON COLUMN state.computed_at IS 'of a limit or budget: when its value was worked out from stored actions; null: not yet';

CREATE TABLE limit_definition (
    definition text        PRIMARY KEY,
    since      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE limit_definition IS 'the limits of the live ruleset, and since when: usage from before that is worked out anew';

CREATE TABLE reversal_path (
    event_type    text NOT NULL,
    event_path    text NOT NULL,
    original_path text NOT NULL,
    source        text NOT NULL CHECK (source IN ('same', 'any')),
    PRIMARY KEY (event_type, event_path, original_path, source)
);
COMMENT ON TABLE reversal_path IS 'of every ruleset ever published: terms of reversal outlive their rules';

CREATE TABLE counter (
    id            text        PRIMARY KEY,
    generation    integer     NOT NULL DEFAULT 0,
    name          text        NOT NULL,
    definition    jsonb       NOT NULL,
    since_version integer     NOT NULL,
    status        text        NOT NULL CHECK (status IN ('building', 'live', 'retired')),
    published_at  timestamptz NOT NULL DEFAULT now(),
    position_at   timestamptz,
    position_id   uuid,
    counted       bigint      NOT NULL DEFAULT 0,
    live_at       timestamptz
);
COMMENT ON COLUMN counter.generation IS 'grows when it is built anew: its values are then kept under other keys';
COMMENT ON COLUMN counter.since_version IS 'events decided by this ruleset version or later were counted when they were decided';
COMMENT ON COLUMN counter.position_at IS 'how far the stored events have been counted (received_at, id)';

CREATE TABLE exposure (
    experiment      text             NOT NULL,
    user_id         text             NOT NULL,
    arm             text             NOT NULL,
    propensity      double precision NOT NULL CHECK (propensity > 0 AND propensity <= 1),
    rule_key        text             NOT NULL,
    event_id        uuid             NOT NULL,
    ruleset_version integer          NOT NULL,
    first_at        timestamptz      NOT NULL,
    PRIMARY KEY (experiment, user_id)
);
COMMENT ON TABLE exposure IS 'who met which arm of an experiment, the first time: what its analysis starts from';
