-- How many accounts and grants there are, for metrics: `status 1` and `role admin`. Changes are noted in `account_tally`, where
-- writers do not wait for each other, and added to the totals from time to time.
CREATE TABLE account_total (
    subject TEXT    NOT NULL PRIMARY KEY,
    amount  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE account_tally (
    sequence INTEGER PRIMARY KEY,
    subject  TEXT    NOT NULL,
    amount   INTEGER NOT NULL
) STRICT;

CREATE TRIGGER account_added AFTER INSERT ON account
BEGIN
    INSERT INTO account_tally (subject, amount) VALUES ('status ' || NEW.status, 1);
END;

CREATE TRIGGER account_status_changed AFTER UPDATE OF status ON account WHEN OLD.status <> NEW.status
BEGIN
    INSERT INTO account_tally (subject, amount) VALUES ('status ' || OLD.status, -1), ('status ' || NEW.status, 1);
END;

CREATE TRIGGER account_removed AFTER DELETE ON account
BEGIN
    INSERT INTO account_tally (subject, amount) VALUES ('status ' || OLD.status, -1);
END;

CREATE TRIGGER role_granted AFTER INSERT ON role_grant
BEGIN
    INSERT INTO account_tally (subject, amount) VALUES ('role ' || NEW.role, 1);
END;

CREATE TRIGGER role_revoked AFTER DELETE ON role_grant
BEGIN
    INSERT INTO account_tally (subject, amount) VALUES ('role ' || OLD.role, -1);
END;

INSERT INTO account_total (subject, amount)
SELECT 'status ' || status, count(*)
FROM account
GROUP BY status;

INSERT INTO account_total (subject, amount)
SELECT 'role ' || role, count(*)
FROM role_grant
GROUP BY role;
