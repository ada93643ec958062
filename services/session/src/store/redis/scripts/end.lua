-- Ends a session if it is live and, where a user is given, that user's. That its tokens are void is noted in the same
-- moment.
--
-- KEYS: the session, the ends and the outbox of the shard.
-- ARGV: id, user or nothing, now, when the revocation can be forgotten, what keys of users' sessions begin with.
-- Answers the session as it was, or nothing; and what the outbox holds.
local session = redis.call('HMGET', KEYS[1], unpack(FIELDS))
local user = session[1]
if not user or (ARGV[2] ~= '' and ARGV[2] ~= user) or tonumber(ARGV[3]) >= tonumber(session[6]) then
  return {false, redis.call('HGETALL', KEYS[3])}
end
redis.call('DEL', KEYS[1])
-- The key of a user's sessions carries the tag of the session's own.
redis.call('ZREM', ARGV[5] .. user, ARGV[1])
redis.call('ZREM', KEYS[2], user .. ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
return {session, redis.call('HGETALL', KEYS[3])}
