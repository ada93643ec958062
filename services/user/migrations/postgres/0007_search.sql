-- The words that accounts are found by, in lower case: the e-mail address, and the words of the names.
CREATE TABLE account_word (
    word    TEXT COLLATE "C" NOT NULL,
    user_id UUID             NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    PRIMARY KEY (word, user_id)
);

CREATE UNIQUE INDEX account_word_of_user ON account_word (user_id, word);

-- In the order of bytes, whatever the locale of the database: for prefixes, and for lists in the order of addresses.
ALTER TABLE account ALTER COLUMN email_key TYPE TEXT COLLATE "C";

-- Whether the words of an account are written: not for those that the release before has created or renamed, which a sweep
-- completes. This release says so after it has written them.
ALTER TABLE account ADD COLUMN has_words SMALLINT NOT NULL DEFAULT 0;
CREATE INDEX account_without_words ON account (id) WHERE has_words = 0;

CREATE FUNCTION account_renamed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.has_words := 0;
    RETURN NEW;
END
$$;

CREATE TRIGGER account_renamed BEFORE UPDATE OF display_name ON account
    FOR EACH ROW WHEN (OLD.display_name <> NEW.display_name) EXECUTE FUNCTION account_renamed();
