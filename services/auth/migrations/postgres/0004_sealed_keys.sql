-- The id of the master key that seals the value; null where it is not sealed, as the release before stored it.
ALTER TABLE signing_key ADD COLUMN sealed_by TEXT;
ALTER TABLE secret ADD COLUMN sealed_by TEXT;
