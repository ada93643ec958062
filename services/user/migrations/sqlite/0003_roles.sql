-- Roles, who has them, and exceptions for single users.
CREATE TABLE role (
    name        TEXT    NOT NULL PRIMARY KEY,
    description TEXT    NOT NULL,
    level       INTEGER NOT NULL,
    inherits    TEXT    NOT NULL,  -- names of roles with single spaces between them
    permissions TEXT    NOT NULL,  -- names with single spaces between them; `admin` has all
    version     INTEGER NOT NULL,  -- counts the changes
    created_at  INTEGER NOT NULL,  -- microseconds since 1970, UTC
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Permissions that products have registered, beside those of the contracts.
CREATE TABLE permission (
    name          TEXT    NOT NULL PRIMARY KEY,
    description   TEXT    NOT NULL,
    registered_by TEXT    NOT NULL,  -- a workload
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Everybody has `member` as well, without a row.
CREATE TABLE role_grant (
    user_id    BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    role       TEXT NOT NULL REFERENCES role (name),
    granted_by TEXT NOT NULL,  -- the id of a user, or `operator`
    granted_at INTEGER NOT NULL,
    expires_at INTEGER,        -- null: until it is revoked
    PRIMARY KEY (user_id, role)
) STRICT, WITHOUT ROWID;

CREATE INDEX role_grant_of_role ON role_grant (role, user_id);

CREATE TABLE permission_override (
    user_id    BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    permission TEXT NOT NULL,
    is_denial  INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    set_by     TEXT NOT NULL,  -- the id of a user, or `operator`
    set_at     INTEGER NOT NULL,
    expires_at INTEGER,        -- null: until it is removed
    PRIMARY KEY (user_id, permission)
) STRICT, WITHOUT ROWID;

-- One row. Each change of roles, grants and overrides updates it first, so that they happen one after the other.
CREATE TABLE role_state (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL  -- of all roles and permissions
) STRICT, WITHOUT ROWID;

INSERT INTO role_state (id, version) VALUES (1, 1);

INSERT INTO role (name, description, level, inherits, permissions, version, created_at, updated_at)
VALUES
    ('admin', 'Has every permission.', 1000, '', '', 1, CAST(unixepoch('subsec') * 1000000 AS INTEGER), CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    ('manager', 'Manages accounts and the roles below it.', 500, '', 'roles:grant roles:read roles:write users:read users:write', 1, CAST(unixepoch('subsec') * 1000000 AS INTEGER), CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    ('member', 'What everybody has.', 1, '', '', 1, CAST(unixepoch('subsec') * 1000000 AS INTEGER), CAST(unixepoch('subsec') * 1000000 AS INTEGER));

-- `account.roles` was the list of roles before. It is kept up to date for instances of the release before, which knows `admin` and
-- `member` only.
INSERT INTO role_grant (user_id, role, granted_by, granted_at)
SELECT id, 'admin', 'operator', updated_at
FROM account
WHERE roles LIKE 'admin%';
