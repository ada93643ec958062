-- Ends active sessions of a user except for one. Adds them to the outbox atomically.
--
-- KEYS: the user's session list, the expiry index and the outbox of the shard.
-- ARGV: user, the id of the session to keep or empty, now, when the revocations can be deleted, the key prefix of
--       sessions, the id to continue after or empty, the maximum number of sessions.
-- Returns the ids of the ended sessions, the entries of the outbox, and the id to continue after; empty at the end.
local from = '-'
if ARGV[6] ~= '' then
  from = '(' .. ARGV[6]
end
local ended = {}
local ids = redis.call('ZRANGE', KEYS[1], from, '+', 'BYLEX', 'LIMIT', 0, ARGV[7])
for _, id in ipairs(ids) do
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
local last = ''
if #ids == tonumber(ARGV[7]) then
  last = ids[#ids]
end
return {ended, redis.call('HGETALL', KEYS[3]), last}
