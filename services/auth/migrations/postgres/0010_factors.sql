-- Second factors of users. `kind` 1: an authenticator app, whose secret is sealed by the master key `sealed_by`.
CREATE TABLE factor (
    id           UUID     NOT NULL PRIMARY KEY,
    user_id      UUID     NOT NULL,
    kind         SMALLINT NOT NULL,
    display_name TEXT     NOT NULL,
    secret       BYTEA    NOT NULL,
    sealed_by    TEXT     NOT NULL,
    created_at   BIGINT   NOT NULL,
    -- Null: it was begun and not confirmed, and does not count.
    confirmed_at BIGINT,
    last_used_at BIGINT
);

CREATE INDEX factor_of_user ON factor (user_id, id);
CREATE INDEX factor_begun ON factor (created_at) WHERE confirmed_at IS NULL;

-- The steps whose code was used: each serves once.
CREATE TABLE totp_use (
    factor_id UUID   NOT NULL,
    step      BIGINT NOT NULL,
    PRIMARY KEY (factor_id, step)
);

CREATE INDEX totp_use_by_step ON totp_use (step);

-- The backup codes of users, as hashes.
CREATE TABLE backup_code (
    user_id    UUID     NOT NULL,
    number     SMALLINT NOT NULL,
    code_hash  TEXT     NOT NULL,
    created_at BIGINT   NOT NULL,
    used_at    BIGINT,
    PRIMARY KEY (user_id, number)
);

-- Failures to prove a second factor, by the device or session that tried; nil: all unknown devices together.
CREATE TABLE factor_attempt (
    user_id    UUID    NOT NULL,
    origin     UUID    NOT NULL,
    failures   INTEGER NOT NULL,
    -- When the next one is accepted.
    allowed_at BIGINT  NOT NULL,
    PRIMARY KEY (user_id, origin)
);

CREATE INDEX factor_attempt_by_time ON factor_attempt (allowed_at);

-- Sign-ins whose password was right, and that wait for a second factor. The token is not here, only its SHA-256.
CREATE TABLE challenge (
    token_hash    BYTEA    NOT NULL PRIMARY KEY,
    user_id       UUID     NOT NULL,
    email         TEXT     NOT NULL,
    -- Nil: it has not signed in to the account before.
    device        UUID     NOT NULL,
    tries         SMALLINT NOT NULL,
    expires_at    BIGINT   NOT NULL
);

CREATE INDEX challenge_of_user ON challenge (user_id);
CREATE INDEX challenge_by_expiry ON challenge (expires_at);
