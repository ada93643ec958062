-- What each request id has created. It outlives the resource, so that a late repetition does not bring it back.
CREATE TABLE creation (
    owner_id    UUID   NOT NULL,
    request_id  UUID   NOT NULL,
    resource_id UUID   NOT NULL,
    fingerprint BYTEA  NOT NULL,  -- SHA-256 of the request
    created_at  BIGINT NOT NULL,  -- microseconds since 1970, UTC
    PRIMARY KEY (owner_id, request_id)
);

CREATE INDEX creation_by_age ON creation (created_at);
