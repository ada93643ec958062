-- Which text the hash was made of: 'raw', as it was typed, or 'opaque', its normal form (RFC 8265, OpaqueString).
-- Hashes that are there, and those that an instance of the release before still adds, are of the raw text.
ALTER TABLE credential ADD COLUMN form TEXT NOT NULL DEFAULT 'raw' CHECK (form IN ('raw', 'opaque'));
