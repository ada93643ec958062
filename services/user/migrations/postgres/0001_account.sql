-- The accounts.
CREATE TABLE account (
    id           UUID   PRIMARY KEY,      -- of version 7: sorted by id is sorted by age
    email        TEXT   NOT NULL,         -- as the user wrote it
    email_key    TEXT   NOT NULL UNIQUE,  -- in lower case
    display_name TEXT   NOT NULL,
    roles        TEXT   NOT NULL,         -- names with single spaces between them
    version      BIGINT NOT NULL,         -- counts the changes
    created_at   BIGINT NOT NULL,         -- microseconds since 1970, UTC
    updated_at   BIGINT NOT NULL
);
