-- Roles, who has them, and exceptions for single users.
CREATE TABLE role (
    name        TEXT    NOT NULL PRIMARY KEY,
    description TEXT    NOT NULL,
    level       BIGINT NOT NULL,
    inherits    TEXT    NOT NULL,  -- names of roles with single spaces between them
    permissions TEXT    NOT NULL,  -- names with single spaces between them; `admin` has all
    version     BIGINT NOT NULL,  -- counts the changes
    created_at  BIGINT NOT NULL,  -- microseconds since 1970, UTC
    updated_at  BIGINT NOT NULL
);

-- Permissions that products have registered, beside those of the contracts.
CREATE TABLE permission (
    name          TEXT    NOT NULL PRIMARY KEY,
    description   TEXT    NOT NULL,
    registered_by TEXT    NOT NULL,  -- a workload
    created_at    BIGINT NOT NULL
);

-- Everybody has `member` as well, without a row.
CREATE TABLE role_grant (
    user_id    UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    role       TEXT NOT NULL REFERENCES role (name),
    granted_by TEXT NOT NULL,  -- the id of a user, or `operator`
    granted_at BIGINT NOT NULL,
    expires_at BIGINT,        -- null: until it is revoked
    PRIMARY KEY (user_id, role)
);

CREATE INDEX role_grant_of_role ON role_grant (role, user_id);

CREATE TABLE permission_override (
    user_id    UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    permission TEXT NOT NULL,
    is_denial  BOOLEAN NOT NULL,
    reason     TEXT NOT NULL,
    set_by     TEXT NOT NULL,  -- the id of a user, or `operator`
    set_at     BIGINT NOT NULL,
    expires_at BIGINT,        -- null: until it is removed
    PRIMARY KEY (user_id, permission)
);

-- One row. Each change of roles, grants and overrides updates it first, so that they happen one after the other.
CREATE TABLE role_state (
    id      BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL  -- of all roles and permissions
);

INSERT INTO role_state (id, version) VALUES (1, 1);

INSERT INTO role (name, description, level, inherits, permissions, version, created_at, updated_at)
VALUES
    ('admin', 'Has every permission.', 1000, '', '', 1, CAST(extract(epoch FROM now()) * 1000000 AS BIGINT), CAST(extract(epoch FROM now()) * 1000000 AS BIGINT)),
    ('manager', 'Manages accounts and the roles below it.', 500, '', 'roles:grant roles:read roles:write users:read users:write', 1, CAST(extract(epoch FROM now()) * 1000000 AS BIGINT), CAST(extract(epoch FROM now()) * 1000000 AS BIGINT)),
    ('member', 'What everybody has.', 1, '', '', 1, CAST(extract(epoch FROM now()) * 1000000 AS BIGINT), CAST(extract(epoch FROM now()) * 1000000 AS BIGINT));

-- `account.roles` was the list of roles before. It is kept up to date for instances of the release before, which knows `admin` and
-- `member` only.
INSERT INTO role_grant (user_id, role, granted_by, granted_at)
SELECT id, 'admin', 'operator', updated_at
FROM account
WHERE roles LIKE 'admin%';
