-- Resets of second factors that an administrator has requested, and that wait so that the user can cancel them.
CREATE TABLE factor_reset (
    user_id      BLOB   NOT NULL PRIMARY KEY,
    -- The administrator; NULL: the operator.
    requested_by BLOB,
    due_at       BIGINT NOT NULL,
    created_at   BIGINT NOT NULL
);

CREATE INDEX factor_reset_by_due ON factor_reset (due_at);
