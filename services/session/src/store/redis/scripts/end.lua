-- Ends a session if it is active and, if a user is given, belongs to that user. Adds it to the outbox atomically.
--
-- KEYS: the session, the expiry index and the outbox of the shard.
-- ARGV: id, user or empty, now, when the revocation can be deleted, the key prefix of users' session lists.
-- Returns the session as it was, or false; and the entries of the outbox.
local session = redis.call('HMGET', KEYS[1], unpack(FIELDS))
local user = session[1]
if not user or (ARGV[2] ~= '' and ARGV[2] ~= user) or tonumber(ARGV[3]) >= tonumber(session[6]) then
  return {false, redis.call('HGETALL', KEYS[3])}
end
redis.call('DEL', KEYS[1])
-- The key of the user's session list has the same hash tag as the session.
redis.call('ZREM', ARGV[5] .. user, ARGV[1])
redis.call('ZREM', KEYS[2], user .. ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
return {session, redis.call('HGETALL', KEYS[3])}
