-- What users say about themselves besides the display name: a JSON object without the fields that are empty.
ALTER TABLE account ADD COLUMN profile JSONB NOT NULL DEFAULT '{}';

-- The Telegram user that the account is linked to.
ALTER TABLE account ADD COLUMN telegram_id BIGINT;
CREATE UNIQUE INDEX account_by_telegram_id ON account (telegram_id) WHERE telegram_id IS NOT NULL;

-- Deleted accounts have the status 3, and in `status_before` the one that they get back when they are restored.
ALTER TABLE account ADD COLUMN status_before SMALLINT;
ALTER TABLE account ADD COLUMN deleted_at BIGINT;  -- microseconds since 1970, UTC
ALTER TABLE account ADD COLUMN purge_at BIGINT;
CREATE INDEX account_to_purge ON account (purge_at) WHERE purge_at IS NOT NULL;
CREATE INDEX account_by_status ON account (status, id) WHERE status <> 1;

-- The accounts that were imported, by their id in the system that they come from.
CREATE TABLE imported_account (
    source      TEXT NOT NULL,
    external_id TEXT NOT NULL,
    user_id     UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    PRIMARY KEY (source, external_id)
);

CREATE INDEX imported_account_of_user ON imported_account (user_id);

-- The ids of accounts that were removed, so that nothing that goes on late creates them again.
CREATE TABLE purged_account (
    id        UUID   NOT NULL PRIMARY KEY,
    purged_at BIGINT NOT NULL
);

CREATE INDEX purged_account_by_age ON purged_account (purged_at);
