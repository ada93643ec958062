-- A token that was used last can be presented again until its successor is used.
ALTER TABLE session ADD COLUMN confirmed BIGINT NOT NULL DEFAULT 0;
-- How often the last issued token was given out again, and how many unused ones were superseded since the last use.
ALTER TABLE session ADD COLUMN repeats BIGINT NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN replacements BIGINT NOT NULL DEFAULT 0;
-- On how many consecutive rotations a token was given out again.
ALTER TABLE session ADD COLUMN repeated_rotations BIGINT NOT NULL DEFAULT 0;
-- The client of the last refresh.
ALTER TABLE session ADD COLUMN last_device TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN last_address TEXT NOT NULL DEFAULT '';

UPDATE session SET confirmed = counter - 1, last_device = device, last_address = address;
