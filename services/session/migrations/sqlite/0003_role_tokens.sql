-- Revocations of the tokens with a role: then `user_id` is nil.
ALTER TABLE revocation ADD COLUMN role TEXT;
