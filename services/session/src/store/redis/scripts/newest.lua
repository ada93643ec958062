-- The place of the newest revocation there ever was in the stream, trimmed or not; nothing if there never was one.
--
-- KEYS: the stream.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    return info[i + 1]
  end
end
return false
