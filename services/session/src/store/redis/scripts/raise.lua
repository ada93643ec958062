-- Replaces the authentication of a session, if it is still the previous one and the session has not ended.
--
-- KEYS: the session.
-- ARGV: the previous authentication, the next one.
-- Returns whether it was replaced.
local previous = redis.call('HMGET', KEYS[1], 'user', 'authentication')
if not previous[1] or (previous[2] or '') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'authentication', ARGV[2])
return 1
