-- The messages that were accepted.
CREATE TABLE message (
    id           BLOB    NOT NULL PRIMARY KEY,  -- of the sender
    template     TEXT    NOT NULL,
    sender       TEXT    NOT NULL,              -- a workload
    fingerprint  BLOB    NOT NULL,              -- SHA-256 of the whole request
    user_id      BLOB,
    email        TEXT,
    display_name TEXT    NOT NULL,
    locale       TEXT    NOT NULL,
    parameters   BLOB,                          -- a JSON object; null when nothing of it is left to be delivered
    key_id       TEXT,                          -- the master key that encrypts the parameters, if it does
    expires_at   INTEGER NOT NULL,              -- microseconds since 1970, UTC
    created_at   INTEGER NOT NULL
) STRICT;

CREATE INDEX message_of_user ON message (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX message_by_age ON message (created_at);
CREATE INDEX message_sealed ON message (id) WHERE key_id IS NOT NULL;
CREATE INDEX message_sealed_by_expiry ON message (expires_at) WHERE key_id IS NOT NULL;

-- What becomes of each message, over each channel and to each destination.
CREATE TABLE delivery (
    id              BLOB    NOT NULL PRIMARY KEY,  -- UUID of version 7
    message_id      BLOB    NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    user_id         BLOB,
    channel         INTEGER NOT NULL,              -- 1 mail, 2 webhook, 3 inbox
    destination     TEXT    NOT NULL,              -- an e-mail address, the name of a webhook, or a user
    lane            TEXT    NOT NULL,              -- what is limited and paused together: a mail domain, or a webhook
    state           INTEGER NOT NULL,              -- 1 queued, 2 delivered, 3 dead
    attempts        INTEGER NOT NULL,              -- that have ended
    leases          INTEGER NOT NULL,              -- since an attempt has ended last
    next_attempt_at INTEGER NOT NULL,              -- the end of the lease while there is one
    lease           BLOB,                          -- of the round that attempts it
    last_error      TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    finished_at     INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX delivery_due ON delivery (channel, next_attempt_at) WHERE state = 1;
CREATE INDEX delivery_by_state ON delivery (state, id);
CREATE INDEX delivery_of_user ON delivery (user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX delivery_of_message ON delivery (message_id);

-- The inboxes.
CREATE TABLE inbox_message (
    user_id    BLOB    NOT NULL,
    id         BLOB    NOT NULL,  -- UUID of version 7
    template   TEXT    NOT NULL,
    category   TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    read_at    INTEGER,
    PRIMARY KEY (user_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX inbox_message_by_age ON inbox_message (created_at, user_id);

-- What users do not want to receive.
CREATE TABLE opt_out (
    user_id  BLOB    NOT NULL,
    category TEXT    NOT NULL,
    channel  INTEGER NOT NULL,
    PRIMARY KEY (user_id, category, channel)
) STRICT, WITHOUT ROWID;
