-- What each request id has created. It outlives the resource, so that a late repetition does not bring it back.
CREATE TABLE creation (
    owner_id    BLOB    NOT NULL,
    request_id  BLOB    NOT NULL,
    resource_id BLOB    NOT NULL,
    fingerprint BLOB    NOT NULL,  -- SHA-256 of the request
    created_at  INTEGER NOT NULL,  -- microseconds since 1970, UTC
    PRIMARY KEY (owner_id, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX creation_by_age ON creation (created_at);
