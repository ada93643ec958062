-- When a key begins to sign; null: since it was created. Until then every instance has read it.
ALTER TABLE signing_key ADD COLUMN signs_from BIGINT;
ALTER TABLE secret ADD COLUMN signs_from BIGINT;
