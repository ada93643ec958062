-- Ends every live session of a user but one. That their tokens are void is noted in the same moment.
--
-- KEYS: the user's sessions, the ends and the outbox of the shard.
-- ARGV: user, the id of the one to keep or nothing, now, when the revocations can be forgotten, what keys of sessions
--       begin with.
-- Answers the ids of those that were ended, and what the outbox holds.
local ended = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if id ~= ARGV[2] then
    -- The key of a session carries the tag of its user's sessions.
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
