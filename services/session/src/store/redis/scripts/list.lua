-- The active sessions of a user, newest first.
--
-- KEYS: the user's session list.
-- ARGV: the id to continue after or empty, the maximum number, now, the key prefix of sessions.
-- Returns pairs of an id and a session.
local found = {}
local from = '+'
if ARGV[1] ~= '' then
  from = '(' .. ARGV[1]
end
local limit = tonumber(ARGV[2])
while #found < limit do
  local ids = redis.call('ZRANGE', KEYS[1], from, '-', 'BYLEX', 'REV', 'LIMIT', 0, limit)
  if #ids == 0 then
    break
  end
  for _, id in ipairs(ids) do
    -- The key of a session has the same hash tag as its user's session list.
    local session = redis.call('HMGET', ARGV[4] .. id, unpack(FIELDS))
    if session[1] and tonumber(ARGV[3]) < tonumber(session[6]) and #found < limit then
      found[#found + 1] = {id, session}
    end
  end
  from = '(' .. ids[#ids]
end
return found
