-- The last hundred sign-ins of a user that succeeded are kept, and the last hundred that did not: the failures of others cannot push out
-- the successes. Here, so that a sign-in is stored by one statement.
CREATE TRIGGER sign_in_stored AFTER INSERT ON sign_in
BEGIN
    DELETE FROM sign_in
    WHERE user_id = NEW.user_id AND (outcome = 1) = (NEW.outcome = 1) AND id <= (
        SELECT id
        FROM sign_in
        WHERE user_id = NEW.user_id AND (outcome = 1) = (NEW.outcome = 1)
        ORDER BY id DESC
        LIMIT 1 OFFSET 100
    );
END;
