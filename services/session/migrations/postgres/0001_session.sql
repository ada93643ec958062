-- Live sessions. One that ends is deleted; one that has expired is swept away.
CREATE TABLE session (
    id UUID PRIMARY KEY,
    user_id UUID NOT NULL,
    device TEXT NOT NULL,
    address TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- When the counter was last moved; at first, when the session was made.
    last_seen_at BIGINT NOT NULL,
    -- Never after expires_at: a session is live exactly until here.
    idle_expires_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- What the refresh token that is good now carries.
    counter BIGINT NOT NULL
);

-- For the list of a user's sessions, newest first.
CREATE INDEX session_of_user ON session (user_id, id);

-- For the sweep.
CREATE INDEX session_by_end ON session (idle_expires_at);

-- The number of the newest revocation, in the one row that there is.
CREATE TABLE revocation_counter (newest BIGINT NOT NULL);
INSERT INTO revocation_counter (newest) VALUES (0);

-- The next number. Whoever takes it holds the counter until its transaction ends, so that revocations become visible in
-- the order of their numbers: a reader that has seen one has seen all before it. A sequence would not promise that.
CREATE FUNCTION next_revocation() RETURNS BIGINT LANGUAGE SQL
BEGIN ATOMIC
    UPDATE revocation_counter SET newest = newest + 1 RETURNING newest;
END;

-- What has been revoked, in order, for as long as a token could still be affected.
CREATE TABLE revocation (
    -- A number is never used twice, so that it can serve as a cursor.
    seq BIGINT PRIMARY KEY DEFAULT next_revocation(),
    -- Either every token of this session ...
    session_id UUID,
    -- ... or the tokens of this user that were made at or before a moment.
    user_id UUID,
    void_until BIGINT,
    forget_at BIGINT NOT NULL,
    CHECK ((session_id IS NULL) <> (user_id IS NULL)),
    CHECK ((user_id IS NULL) = (void_until IS NULL))
);

-- For the sweep.
CREATE INDEX revocation_by_end ON revocation (forget_at);
