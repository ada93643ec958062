-- What each user's properties use, for the quota.
CREATE TABLE property_usage (
    owner_id   BLOB    NOT NULL PRIMARY KEY,
    properties INTEGER NOT NULL,
    bytes      INTEGER NOT NULL               -- of names, descriptions and labels
) STRICT, WITHOUT ROWID;

INSERT INTO property_usage (owner_id, properties, bytes)
SELECT owner_id, COUNT(*), SUM(octet_length(display_name) + octet_length(description) + octet_length(labels))
FROM property
GROUP BY owner_id;

CREATE TRIGGER property_inserted AFTER INSERT ON property
BEGIN
    INSERT INTO property_usage (owner_id, properties, bytes)
    VALUES (
        NEW.owner_id,
        1,
        octet_length(NEW.display_name) + octet_length(NEW.description) + octet_length(NEW.labels)
    )
    ON CONFLICT (owner_id) DO UPDATE SET properties = properties + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER property_updated AFTER UPDATE ON property
BEGIN
    UPDATE property_usage
    SET bytes = bytes
        + octet_length(NEW.display_name) + octet_length(NEW.description) + octet_length(NEW.labels)
        - octet_length(OLD.display_name) - octet_length(OLD.description) - octet_length(OLD.labels)
    WHERE owner_id = NEW.owner_id;
END;

CREATE TRIGGER property_deleted AFTER DELETE ON property
BEGIN
    UPDATE property_usage
    SET properties = properties - 1,
        bytes = bytes
            - octet_length(OLD.display_name) - octet_length(OLD.description) - octet_length(OLD.labels)
    WHERE owner_id = OLD.owner_id;
    DELETE FROM property_usage WHERE owner_id = OLD.owner_id AND properties <= 0;
END;

-- For the sweep of request ids.
CREATE INDEX creation_by_age ON creation (created_at);
