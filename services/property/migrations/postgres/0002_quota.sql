-- What each user's properties use, for the quota.
CREATE TABLE property_usage (
    owner_id   UUID   PRIMARY KEY,
    properties BIGINT NOT NULL,
    bytes      BIGINT NOT NULL        -- of names, descriptions and labels
);

CREATE FUNCTION property_changed() RETURNS TRIGGER LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    before BIGINT := 0;
    after  BIGINT := 0;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        before := octet_length(OLD.display_name) + octet_length(OLD.description) + octet_length(OLD.labels::TEXT);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        after := octet_length(NEW.display_name) + octet_length(NEW.description) + octet_length(NEW.labels::TEXT);
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO property_usage AS used (owner_id, properties, bytes)
        VALUES (NEW.owner_id, 1, after)
        ON CONFLICT (owner_id) DO UPDATE SET properties = used.properties + 1, bytes = used.bytes + excluded.bytes;
    ELSIF TG_OP = 'UPDATE' THEN
        IF after <> before THEN
            UPDATE property_usage SET bytes = bytes + after - before WHERE owner_id = NEW.owner_id;
        END IF;
    ELSE
        UPDATE property_usage SET properties = properties - 1, bytes = bytes - before WHERE owner_id = OLD.owner_id;
        DELETE FROM property_usage WHERE owner_id = OLD.owner_id AND properties <= 0;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER property_changed AFTER INSERT OR UPDATE OR DELETE ON property
FOR EACH ROW EXECUTE FUNCTION property_changed();

-- The trigger's lock keeps writers out until the count is complete.
INSERT INTO property_usage (owner_id, properties, bytes)
SELECT owner_id, COUNT(*), SUM(octet_length(display_name) + octet_length(description) + octet_length(labels::TEXT))
FROM property
GROUP BY owner_id;

-- For the sweep of request ids.
CREATE INDEX creation_by_age ON creation (created_at);
