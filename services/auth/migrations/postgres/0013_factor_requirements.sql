-- Since when users need a second factor, as their first sign-in after that found: the grace period begins then.
CREATE TABLE factor_requirement (
    user_id UUID   NOT NULL PRIMARY KEY,
    since   BIGINT NOT NULL
);
