-- Long work as jobs: leased, in steps, taken up again by another worker.

CREATE TABLE job (
    id          uuid        PRIMARY KEY,
    kind        text        NOT NULL CHECK (kind IN ('actions')),
    status      text        NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    done        integer     NOT NULL DEFAULT 0 CHECK (done BETWEEN 0 AND total),
    total       integer     NOT NULL,
    result      jsonb,
    error       text,
    created_by  text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- not on the wire:
    task        jsonb       NOT NULL,
    source      text,
    target      text,
    step        integer     NOT NULL DEFAULT 0,
    tries       integer     NOT NULL DEFAULT 0,
    lease       uuid,
    lease_until timestamptz
);
COMMENT ON COLUMN job.source IS 'that the credential of its creator is bound to; target likewise';
COMMENT ON COLUMN job.step IS 'the next one to do';
COMMENT ON COLUMN job.tries IS 'failures of this step, one after the other';
CREATE INDEX job_newest ON job (created_at DESC, id DESC);
CREATE INDEX job_open ON job (created_at) WHERE status IN ('queued', 'running');

CREATE TABLE job_step (
    job_id uuid    NOT NULL REFERENCES job ON DELETE CASCADE,
    number integer NOT NULL,
    ids    uuid[]  NOT NULL,
    PRIMARY KEY (job_id, number)
);
COMMENT ON TABLE job_step IS 'the rows each step works on, fixed when the job was made';
