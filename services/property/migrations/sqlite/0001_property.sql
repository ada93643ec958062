-- The properties. A row may hold some kilobytes: they stay out of the indexes.
CREATE TABLE property (
    id           BLOB    NOT NULL PRIMARY KEY,  -- UUID of version 7: sorted by id is sorted by age
    owner_id     BLOB    NOT NULL,              -- the user; user's database knows more
    display_name TEXT    NOT NULL,
    description  TEXT    NOT NULL,
    labels       TEXT    NOT NULL,              -- a JSON object of strings
    version      INTEGER NOT NULL,              -- counts the changes
    created_at   INTEGER NOT NULL,              -- microseconds since 1970, UTC
    updated_at   INTEGER NOT NULL
) STRICT;

-- A user's properties, for lists and for claims.
CREATE UNIQUE INDEX property_by_owner ON property (owner_id, id);

-- What each request id made. It outlives the property, so that a late repetition does not bring it back.
CREATE TABLE creation (
    owner_id    BLOB    NOT NULL,
    request_id  BLOB    NOT NULL,
    property_id BLOB    NOT NULL,
    fingerprint BLOB    NOT NULL,               -- SHA-256 of what was asked for
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (owner_id, request_id)
) STRICT, WITHOUT ROWID;
