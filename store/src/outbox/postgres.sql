-- Messages to be delivered outside the database, in order for each key.
CREATE TABLE outbox (
    sequence        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              UUID   NOT NULL UNIQUE,
    kind            TEXT   NOT NULL,
    key             TEXT   NOT NULL,
    payload         BYTEA  NOT NULL,
    created_at      BIGINT NOT NULL,             -- microseconds since 1970, UTC
    attempts        BIGINT NOT NULL DEFAULT 0,
    next_attempt_at BIGINT NOT NULL,             -- also the end of a lease
    lease           UUID,                        -- of the instance that delivers it
    last_error      TEXT,
    dead_at         BIGINT                       -- when it was given up
);

CREATE INDEX outbox_live ON outbox (key, sequence) WHERE dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL;
