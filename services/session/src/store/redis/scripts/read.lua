-- Reads a session.
--
-- KEYS: the session.
-- Returns the session; false if there is none.
local session = redis.call('HMGET', KEYS[1], unpack(FIELDS))
if not session[1] then
  return false
end
return session
