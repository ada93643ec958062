-- Whether the user of an account can sign in: 1 active, 2 disabled.
ALTER TABLE account ADD COLUMN status SMALLINT NOT NULL DEFAULT 1;

-- Whether one of many users is disabled is found without their accounts.
CREATE INDEX account_not_active ON account (id) WHERE status <> 1;
