-- The address that a link is about: the one that it was sent to, or for a change of the address the new one.
ALTER TABLE link ADD COLUMN email TEXT;

CREATE INDEX link_by_email ON link (LOWER(email), created_at) WHERE email IS NOT NULL;

-- Since when the password no longer serves, until a new one is chosen by a link; null: it serves. The link has to be one that was sent
-- to the address in `reset_email`, in lower case.
ALTER TABLE credential ADD COLUMN reset_required_at BIGINT;
ALTER TABLE credential ADD COLUMN reset_email TEXT;
-- When the owner last took the account back: devices that had signed in before are new.
ALTER TABLE credential ADD COLUMN recovered_at BIGINT;

-- The sign-ins to accounts, also those that failed. Ids are in the order of time.
CREATE TABLE sign_in (
    id            UUID     NOT NULL PRIMARY KEY,
    user_id       UUID     NOT NULL,
    created_at    BIGINT   NOT NULL,
    method        SMALLINT NOT NULL,
    outcome       SMALLINT NOT NULL,
    address       TEXT     NOT NULL,
    device        TEXT     NOT NULL,
    is_new_device SMALLINT NOT NULL,
    session_id    UUID
);

CREATE INDEX sign_in_of_user ON sign_in (user_id, id);
