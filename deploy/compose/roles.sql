-- Run once, by the superuser, when the database is made: a role for each service, which owns the schema that the service
-- keeps its tables in, and reaches nothing else. The passwords that are mounted say which services there are.

DO $$
DECLARE
    service TEXT;
    role TEXT;
    password TEXT;
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
    REVOKE ALL ON SCHEMA public FROM PUBLIC;

    FOR service IN
        SELECT substring(name FROM '^(.*)_database_password$')
        FROM pg_ls_dir('/run/secrets') AS name
        WHERE name LIKE '%\_database\_password'
    LOOP
        role := 'drystone_' || service;
        password := rtrim(pg_read_file('/run/secrets/' || service || '_database_password'), E'\n');
        IF password = '' THEN
            RAISE EXCEPTION 'there is no password for %', role;
        END IF;
        EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L', role, password);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
        EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %I', role, role);
    END LOOP;
END
$$;
