-- A value that only the right master key opens.
CREATE TABLE sealing_check (
    id BIGINT PRIMARY KEY NOT NULL CHECK (id = 1),
    envelope BLOB NOT NULL,
    created_at BIGINT NOT NULL
);
