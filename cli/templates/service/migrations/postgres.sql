CREATE TABLE {{plural}} (
    owner_id     UUID   NOT NULL,
    id           UUID   NOT NULL,  -- version 7: sorted by id is sorted by age
    display_name TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,  -- microseconds since 1970, UTC
    PRIMARY KEY (owner_id, id)
);
