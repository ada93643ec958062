-- The words that accounts are found by, in lower case: the e-mail address, and the words of the names.
CREATE TABLE account_word (
    word    TEXT NOT NULL,
    user_id BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    PRIMARY KEY (word, user_id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX account_word_of_user ON account_word (user_id, word);

-- Whether the words of an account are written: not for those of the release before, which a sweep completes.
ALTER TABLE account ADD COLUMN has_words INTEGER NOT NULL DEFAULT 0;
CREATE INDEX account_without_words ON account (id) WHERE has_words = 0;
