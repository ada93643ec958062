-- Passkeys of users: `factor` has the row of each, with the kind 2 and no secret.
CREATE TABLE passkey (
    factor_id          BLOB     NOT NULL PRIMARY KEY,
    user_id            BLOB     NOT NULL,
    credential_id      BLOB     NOT NULL UNIQUE,
    -- As COSE has it.
    public_key         BLOB     NOT NULL,
    sign_count         BIGINT   NOT NULL,
    is_backup_eligible SMALLINT NOT NULL,
    is_backed_up       SMALLINT NOT NULL,
    -- The make of the authenticator, as it states it.
    aaguid             BLOB     NOT NULL,
    -- How browsers reach the authenticator: words, each after a space.
    transports         TEXT     NOT NULL
);

CREATE INDEX passkey_of_user ON passkey (user_id);

-- Challenges of passkeys that were used: each serves once.
CREATE TABLE passkey_challenge_use (
    id         BLOB   NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

CREATE INDEX passkey_challenge_use_by_expiry ON passkey_challenge_use (expires_at);
