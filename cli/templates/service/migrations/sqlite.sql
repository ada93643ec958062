CREATE TABLE {{plural}} (
    owner_id     BLOB    NOT NULL,
    id           BLOB    NOT NULL,  -- UUID of version 7: sorted by id is sorted by age
    display_name TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,  -- microseconds since 1970, UTC
    PRIMARY KEY (owner_id, id)
) STRICT, WITHOUT ROWID;
