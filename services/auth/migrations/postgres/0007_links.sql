-- Links that were sent to users, each of which serves once. The token in a link is not here: it is made of the id by a MAC.
CREATE TABLE link (
    id         UUID   NOT NULL PRIMARY KEY,
    purpose    TEXT   NOT NULL,
    user_id    UUID   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);

CREATE INDEX link_of_user ON link (user_id, created_at);
CREATE INDEX link_by_expiry ON link (expires_at);
