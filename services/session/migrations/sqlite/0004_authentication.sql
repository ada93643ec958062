-- When and how the user last proved who they are; empty: by password, when the session was created.
ALTER TABLE session ADD COLUMN authentication TEXT NOT NULL DEFAULT '';
