-- The properties.
CREATE TABLE property (
    id           UUID   PRIMARY KEY,  -- of version 7: sorted by id is sorted by age
    owner_id     UUID   NOT NULL,     -- the user; user's database knows more
    display_name TEXT   NOT NULL,
    description  TEXT   NOT NULL,
    labels       JSONB  NOT NULL,     -- an object of strings
    version      BIGINT NOT NULL,     -- counts the changes
    created_at   BIGINT NOT NULL,     -- microseconds since 1970, UTC
    updated_at   BIGINT NOT NULL
);

-- A user's properties, for lists and for claims.
CREATE UNIQUE INDEX property_by_owner ON property (owner_id, id);

-- What each request id made. It outlives the property, so that a late repetition does not bring it back.
CREATE TABLE creation (
    owner_id    UUID   NOT NULL,
    request_id  UUID   NOT NULL,
    property_id UUID   NOT NULL,
    fingerprint BYTEA  NOT NULL,      -- SHA-256 of what was asked for
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (owner_id, request_id)
);
