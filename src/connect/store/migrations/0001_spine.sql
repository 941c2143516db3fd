-- The spine: facts, rulesets, actions, keys. No triggers and no foreign keys on the hot tables:
-- rows land in one statement that guards itself, and a later move to a sharded PostgreSQL stays possible
-- (`connect doctor` checks the references instead).

CREATE TABLE event (
    id                      uuid        PRIMARY KEY,
    source                  text        NOT NULL CHECK (length(source) BETWEEN 1 AND 255),
    external_id             text        NOT NULL CHECK (length(external_id) BETWEEN 1 AND 255),
    event_type              text        NOT NULL CHECK (event_type ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$'),
    occurred_at             timestamptz NOT NULL,
    received_at             timestamptz NOT NULL,
    actor_user_id           text        CHECK (length(actor_user_id) BETWEEN 1 AND 255),
    primary_subject_user_id text        CHECK (length(primary_subject_user_id) BETWEEN 1 AND 255),
    parties                 jsonb       NOT NULL CHECK (jsonb_typeof(parties) = 'object'),
    context                 jsonb       NOT NULL CHECK (jsonb_typeof(context) = 'object'),
    extensions              jsonb       NOT NULL CHECK (jsonb_typeof(extensions) = 'object'),
    effects                 text        NOT NULL CHECK (effects IN ('all', 'none')),
    status                  text        NOT NULL CHECK (status IN ('received', 'decided', 'failed')),
    ruleset_version         integer,
    decided_at              timestamptz,
    -- not on the wire:
    fingerprint             bytea       NOT NULL CHECK (length(fingerprint) = 32),
    trace                   jsonb,
    tries                   integer     NOT NULL DEFAULT 0 CHECK (tries BETWEEN 0 AND 5),
    decide_at               timestamptz CHECK ((decide_at IS NOT NULL) = (status = 'received')),
    failure                 text,
    CHECK ((status = 'decided') = (decided_at IS NOT NULL)),
    CHECK (status <> 'decided' OR (ruleset_version IS NOT NULL AND trace IS NOT NULL)),
    UNIQUE (source, external_id)
);
COMMENT ON COLUMN event.decide_at IS 'when a worker may next claim it for deciding; a crashed worker''s lease ends here';
CREATE INDEX event_to_decide ON event (decide_at) WHERE decide_at IS NOT NULL;
CREATE INDEX event_failed ON event (received_at DESC, id DESC) WHERE status = 'failed';
CREATE INDEX event_newest ON event (received_at DESC, id DESC);
CREATE INDEX event_by_actor ON event (actor_user_id, received_at DESC, id DESC) WHERE actor_user_id IS NOT NULL;
CREATE INDEX event_by_type ON event (event_type, received_at DESC, id DESC);

CREATE TABLE ruleset_version (
    version       integer     PRIMARY KEY CHECK (version > 0),
    document      jsonb       NOT NULL,
    rule_versions jsonb       NOT NULL DEFAULT '{}',
    author        text        NOT NULL,
    note          text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    published_at  timestamptz
);

CREATE TABLE ruleset_live (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    version    integer     NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE rule_version (
    key             text    NOT NULL,
    version         integer NOT NULL CHECK (version > 0),
    ruleset_version integer NOT NULL,
    document        jsonb   NOT NULL,
    retired_in      integer,
    PRIMARY KEY (key, version)
);
COMMENT ON COLUMN rule_version.retired_in IS 'the ruleset version that left this rule out, if any';

CREATE TABLE reward_action (
    id              uuid        PRIMARY KEY,
    event_id        uuid        NOT NULL,
    rule_key        text        NOT NULL,
    rule_version    integer     NOT NULL,
    effect_key      text        NOT NULL,
    target          text        NOT NULL,
    command         text        NOT NULL,
    recipient_role  text        NOT NULL,
    user_id         text        NOT NULL CHECK (length(user_id) BETWEEN 1 AND 255),
    amount          numeric     NOT NULL CHECK (amount > 0 AND amount < 1e60 AND scale(amount) <= 18),
    unit            text        NOT NULL,
    params          jsonb       NOT NULL,
    status          text        NOT NULL CHECK (status IN
                    ('pending', 'blocked', 'awaiting_approval', 'dispatched', 'completed', 'failed', 'cancelled')),
    failure         text        CHECK (failure IN ('refused', 'exhausted', 'reported')),
    attempts        integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at          timestamptz,
    hold_until      timestamptz,
    last_error      text,
    reference       text,
    reverses        uuid,
    created_at      timestamptz NOT NULL,
    dispatched_at   timestamptz,
    completed_at    timestamptz,
    -- not on the wire:
    body            text        NOT NULL,
    retries         integer     NOT NULL DEFAULT 0 CHECK (retries >= 0),
    give_up_at      timestamptz,
    accepted_at     timestamptz,
    CHECK ((due_at IS NULL) = (status IN ('awaiting_approval', 'blocked', 'completed', 'failed', 'cancelled'))),
    CHECK ((failure IS NOT NULL) = (status = 'failed')),
    CHECK (status <> 'dispatched' OR attempts > 0)
);
COMMENT ON COLUMN reward_action.body IS 'the command''s bytes as every attempt sends them';
COMMENT ON COLUMN reward_action.retries IS 'failed sendings since the first or since a person''s restart: the n of the backoff';
COMMENT ON COLUMN reward_action.give_up_at IS 'set by the first sending; after it the next failure is the end (exhausted)';
COMMENT ON COLUMN reward_action.accepted_at IS 'the target answered 202: due_at is then the deadline of its report';
CREATE INDEX reward_action_due ON reward_action (target, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX reward_action_of_event ON reward_action (event_id);
CREATE INDEX reward_action_newest ON reward_action (created_at DESC, id DESC);
CREATE INDEX reward_action_by_user ON reward_action (user_id, rule_key, created_at DESC);
CREATE INDEX reward_action_needing_a_person ON reward_action (status, target, created_at DESC)
    WHERE status IN ('failed', 'awaiting_approval', 'blocked');
CREATE INDEX reward_action_by_rule ON reward_action (rule_key, created_at DESC);

CREATE TABLE dispatch_attempt (
    action_id   uuid        NOT NULL,
    n           integer     NOT NULL CHECK (n > 0),
    started_at  timestamptz NOT NULL,
    duration_ms double precision NOT NULL CHECK (duration_ms >= 0),
    outcome     text        NOT NULL,
    status_code integer,
    error       text,
    excerpt     text        CHECK (length(excerpt) <= 1000),
    PRIMARY KEY (action_id, n)
);

CREATE TABLE result_report (
    action_id   uuid        NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    status      text        NOT NULL CHECK (status IN ('completed', 'failed')),
    reference   text,
    reason      text,
    disposition text        NOT NULL CHECK (disposition IN ('applied', 'repeated', 'contradicted', 'refused'))
);
CREATE INDEX result_report_of_action ON result_report (action_id, received_at);

CREATE TABLE api_key (
    id           uuid        PRIMARY KEY,
    name         text        NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    secret_hash  bytea       NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    scopes       text[]      NOT NULL,
    source       text,
    target       text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);

CREATE TABLE audit (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text        NOT NULL,
    verb    text        NOT NULL,
    subject text        NOT NULL,
    note    text        NOT NULL DEFAULT '',
    detail  jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_of_subject ON audit (subject, at DESC);

CREATE TABLE process (
    id              uuid        PRIMARY KEY,
    role            text        NOT NULL,
    host            text        NOT NULL,
    pid             integer     NOT NULL,
    program_version text        NOT NULL,
    ruleset_version integer     NOT NULL,
    started_at      timestamptz NOT NULL DEFAULT now(),
    seen_at         timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE process IS 'what runs: each api and worker says so every few seconds; rows not seen for a day go';
