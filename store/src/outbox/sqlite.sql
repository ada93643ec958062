-- Messages to be delivered outside the database, in order for each key.
CREATE TABLE outbox (
    sequence        INTEGER PRIMARY KEY AUTOINCREMENT,
    id              BLOB    NOT NULL UNIQUE,
    kind            TEXT    NOT NULL,
    key             TEXT    NOT NULL,
    payload         BLOB    NOT NULL,
    created_at      INTEGER NOT NULL,            -- microseconds since 1970, UTC
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,            -- also the end of a lease
    lease           BLOB,                        -- of the instance that delivers it
    last_error      TEXT,
    dead_at         INTEGER                      -- when it was given up
) STRICT;

CREATE INDEX outbox_live ON outbox (key, sequence) WHERE dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL;
