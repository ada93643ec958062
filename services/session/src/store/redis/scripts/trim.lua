-- Deletes the oldest revocations that have expired. The stream still reports the id of the newest.
--
-- KEYS: the stream.
-- ARGV: now, the maximum number.
-- Returns the number of deleted revocations.
local keep = nil
local entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])
for _, entry in ipairs(entries) do
  local fields = entry[2]
  for j = 1, #fields, 2 do
    if fields[j] == 'forget' and tonumber(ARGV[1]) < tonumber(fields[j + 1]) then
      keep = entry[1]
    end
  end
  if keep then
    return redis.call('XTRIM', KEYS[1], 'MINID', '=', keep)
  end
end
local count = 0
for _, entry in ipairs(entries) do
  count = count + redis.call('XDEL', KEYS[1], entry[1])
end
return count
