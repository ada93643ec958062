-- Whether the user of an account can sign in: 1 active, 2 disabled.
ALTER TABLE account ADD COLUMN status INTEGER NOT NULL DEFAULT 1;
