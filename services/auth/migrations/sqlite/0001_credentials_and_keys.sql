-- What users prove themselves with.
CREATE TABLE credential (
    user_id BLOB PRIMARY KEY NOT NULL,
    -- A PHC string: the algorithm, its cost, the salt and the hash.
    password_hash TEXT NOT NULL,
    -- The id that the client gave the registration, so that it can be repeated.
    request_id BLOB UNIQUE,
    -- When the account was last asked for; null once it is known to be there.
    pending_since BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- For the sweep of those whose account never came to be.
CREATE INDEX credential_pending ON credential (pending_since) WHERE pending_since IS NOT NULL;

-- What access tokens are signed with. The newest signs; all are published.
CREATE TABLE signing_key (
    -- The key's thumbprint (RFC 7638).
    kid TEXT PRIMARY KEY NOT NULL,
    algorithm TEXT NOT NULL,
    -- PKCS#8, DER.
    private_key BLOB NOT NULL,
    created_at BIGINT NOT NULL
);

-- Symmetric secrets, by what they are for.
CREATE TABLE secret (
    name TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    created_at BIGINT NOT NULL
);
