-- When the owner of the e-mail address has proved that it is theirs; null: not yet.
ALTER TABLE account ADD COLUMN email_verified_at BIGINT;  -- microseconds since 1970, UTC

-- Addresses that accounts had before, in lower case. Nobody else gets them, so that the change can be undone.
CREATE TABLE kept_email (
    email_key TEXT   NOT NULL PRIMARY KEY,
    user_id   UUID   NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    until     BIGINT NOT NULL
);

CREATE INDEX kept_email_of_user ON kept_email (user_id);
CREATE INDEX kept_email_by_end ON kept_email (until);
