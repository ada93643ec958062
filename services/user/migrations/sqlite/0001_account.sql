-- The accounts. Rows are small and always met by their id: they are kept in its index.
CREATE TABLE account (
    id           BLOB    NOT NULL PRIMARY KEY,  -- UUID of version 7: sorted by id is sorted by age
    email        TEXT    NOT NULL,              -- as the user wrote it
    email_key    TEXT    NOT NULL UNIQUE,       -- in lower case
    display_name TEXT    NOT NULL,
    roles        TEXT    NOT NULL,              -- names with single spaces between them
    version      INTEGER NOT NULL,              -- counts the changes
    created_at   INTEGER NOT NULL,              -- microseconds since 1970, UTC
    updated_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
