-- Signing keys that are in use no more, without their private keys: replaced, or withdrawn since they were compromised.
CREATE TABLE former_signing_key (
    kid          TEXT   NOT NULL PRIMARY KEY,
    algorithm    TEXT   NOT NULL,
    -- When another key began to sign instead; for one that was withdrawn before, when that was.
    replaced_at  BIGINT NOT NULL,
    -- When it was removed from the key set.
    ended_at     BIGINT NOT NULL,
    -- When it was withdrawn; NULL: it was not.
    withdrawn_at BIGINT
);
