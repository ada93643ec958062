-- How many accounts and grants there are, for metrics: `status 1` and `role admin`. Changes are noted in `account_tally`, where
-- writers do not wait for each other, and added to the totals from time to time.
CREATE TABLE account_total (
    subject TEXT   NOT NULL PRIMARY KEY,
    amount  BIGINT NOT NULL
);

CREATE TABLE account_tally (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject  TEXT   NOT NULL,
    amount   BIGINT NOT NULL
);

CREATE FUNCTION account_added() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO account_tally (subject, amount)
    SELECT 'status ' || status, count(*) FROM added GROUP BY status;
    RETURN NULL;
END
$$;

CREATE FUNCTION account_status_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO account_tally (subject, amount) VALUES ('status ' || OLD.status, -1), ('status ' || NEW.status, 1);
    RETURN NULL;
END
$$;

CREATE FUNCTION account_removed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO account_tally (subject, amount)
    SELECT 'status ' || status, -count(*) FROM removed GROUP BY status;
    RETURN NULL;
END
$$;

CREATE FUNCTION role_granted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO account_tally (subject, amount)
    SELECT 'role ' || role, count(*) FROM added GROUP BY role;
    RETURN NULL;
END
$$;

CREATE FUNCTION role_revoked() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO account_tally (subject, amount)
    SELECT 'role ' || role, -count(*) FROM removed GROUP BY role;
    RETURN NULL;
END
$$;

CREATE TRIGGER account_added AFTER INSERT ON account
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION account_added();

CREATE TRIGGER account_status_changed AFTER UPDATE OF status ON account
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION account_status_changed();

CREATE TRIGGER account_removed AFTER DELETE ON account
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION account_removed();

CREATE TRIGGER role_granted AFTER INSERT ON role_grant
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION role_granted();

CREATE TRIGGER role_revoked AFTER DELETE ON role_grant
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION role_revoked();

INSERT INTO account_total (subject, amount)
SELECT 'status ' || status, count(*)
FROM account
GROUP BY status;

INSERT INTO account_total (subject, amount)
SELECT 'role ' || role, count(*)
FROM role_grant
GROUP BY role;
