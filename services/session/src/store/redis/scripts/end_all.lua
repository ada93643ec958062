-- Ends every active session of a user except for one. Adds them to the outbox atomically.
--
-- KEYS: the user's session list, the expiry index and the outbox of the shard.
-- ARGV: user, the id of the session to keep or empty, now, when the revocations can be deleted, the key prefix of
--       sessions.
-- Returns the ids of the ended sessions, and the entries of the outbox.
local ended = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if id ~= ARGV[2] then
    -- The key of a session has the same hash tag as its user's session list.
    local session = ARGV[5] .. id
    local idle = redis.call('HGET', session, 'idle')
    if idle and tonumber(ARGV[3]) < tonumber(idle) then
      redis.call('DEL', session)
      redis.call('ZREM', KEYS[1], id)
      redis.call('ZREM', KEYS[2], ARGV[1] .. id)
      redis.call('HSET', KEYS[3], id, ARGV[4])
      ended[#ended + 1] = id
    end
  end
end
return {ended, redis.call('HGETALL', KEYS[3])}
