-- The messages that were accepted.
CREATE TABLE message (
    id           UUID    NOT NULL PRIMARY KEY,  -- of the sender
    template     TEXT    NOT NULL,
    sender       TEXT    NOT NULL,              -- a workload
    fingerprint  BYTEA   NOT NULL,              -- SHA-256 of the whole request
    user_id      UUID,
    email        TEXT,
    display_name TEXT    NOT NULL,
    locale       TEXT    NOT NULL,
    parameters   BYTEA,                         -- a JSON object; null when nothing of it is left to be delivered
    key_id       TEXT,                          -- the master key that encrypts the parameters, if it does
    expires_at   BIGINT  NOT NULL,              -- microseconds since 1970, UTC
    created_at   BIGINT  NOT NULL
);

CREATE INDEX message_of_user ON message (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX message_by_age ON message (created_at);
CREATE INDEX message_sealed ON message (id) WHERE key_id IS NOT NULL;
CREATE INDEX message_sealed_by_expiry ON message (expires_at) WHERE key_id IS NOT NULL;

-- What becomes of each message, over each channel and to each destination.
CREATE TABLE delivery (
    id              UUID    NOT NULL PRIMARY KEY,  -- UUID of version 7
    message_id      UUID    NOT NULL REFERENCES message (id) ON DELETE CASCADE,
    user_id         UUID,
    channel         BIGINT  NOT NULL,              -- 1 mail, 2 webhook, 3 inbox
    destination     TEXT    NOT NULL,              -- an e-mail address, the name of a webhook, or a user
    lane            TEXT    NOT NULL,              -- what is limited and paused together: a mail domain, or a webhook
    state           BIGINT  NOT NULL,              -- 1 queued, 2 delivered, 3 dead
    attempts        BIGINT  NOT NULL,              -- that have ended
    leases          BIGINT  NOT NULL,              -- since an attempt has ended last
    next_attempt_at BIGINT  NOT NULL,              -- the end of the lease while there is one
    lease           UUID,                          -- of the round that attempts it
    last_error      TEXT    NOT NULL,
    created_at      BIGINT  NOT NULL,
    finished_at     BIGINT
);

CREATE INDEX delivery_due ON delivery (channel, next_attempt_at) WHERE state = 1;
CREATE INDEX delivery_by_state ON delivery (state, id);
CREATE INDEX delivery_of_user ON delivery (user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX delivery_of_message ON delivery (message_id);

-- The inboxes.
CREATE TABLE inbox_message (
    user_id    UUID    NOT NULL,
    id         UUID    NOT NULL,  -- UUID of version 7
    template   TEXT    NOT NULL,
    category   TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    created_at BIGINT  NOT NULL,
    read_at    BIGINT,
    PRIMARY KEY (user_id, id)
);

CREATE INDEX inbox_message_by_age ON inbox_message (created_at, user_id);

-- What users do not want to receive.
CREATE TABLE opt_out (
    user_id  UUID    NOT NULL,
    category TEXT    NOT NULL,
    channel  BIGINT  NOT NULL,
    PRIMARY KEY (user_id, category, channel)
);
