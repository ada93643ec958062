-- The live sessions of a user, newest first.
--
-- KEYS: the user's sessions.
-- ARGV: the id after which to go on or nothing, how many at most, now, what keys of sessions begin with.
-- Answers pairs of an id and a session.
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
    -- The key of a session carries the tag of its user's sessions.
    local session = redis.call('HMGET', ARGV[4] .. id, unpack(FIELDS))
    if session[1] and tonumber(ARGV[3]) < tonumber(session[6]) and #found < limit then
      found[#found + 1] = {id, session}
    end
  end
  from = '(' .. ids[#ids]
end
return found
