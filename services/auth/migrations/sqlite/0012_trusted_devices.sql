-- Devices on which sign-ins of a user need no second factor for a time.
CREATE TABLE trusted_device (
    user_id      BLOB   NOT NULL,
    -- As the device token of the device has it.
    device       BLOB   NOT NULL,
    -- The client, as it stated itself.
    name         TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    PRIMARY KEY (user_id, device)
);

CREATE INDEX trusted_device_by_expiry ON trusted_device (expires_at);
