-- Revocations of the tokens that a key has signed: then `user_id` is nil.
ALTER TABLE revocation ADD COLUMN key_id TEXT;
