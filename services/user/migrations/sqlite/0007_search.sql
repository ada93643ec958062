-- The words that accounts are found by, in lower case: the e-mail address, and the words of the names.
CREATE TABLE account_word (
    word    TEXT NOT NULL,
    user_id BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    PRIMARY KEY (word, user_id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX account_word_of_user ON account_word (user_id, word);

-- Whether the words of an account are written: not for those that the release before has created or renamed, which a sweep
-- completes. This release says so after it has written them.
ALTER TABLE account ADD COLUMN has_words INTEGER NOT NULL DEFAULT 0;
CREATE INDEX account_without_words ON account (id) WHERE has_words = 0;

CREATE TRIGGER account_renamed AFTER UPDATE OF display_name ON account WHEN OLD.display_name <> NEW.display_name
BEGIN
    UPDATE account SET has_words = 0 WHERE id = NEW.id;
END;
