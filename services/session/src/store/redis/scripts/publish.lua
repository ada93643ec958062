-- Adds revocations of sessions to the stream. Idempotent: each is added once.
--
-- KEYS: the stream, then for each session the key of its stream id.
-- ARGV: the time to live of these keys, in milliseconds; then for each session its id and when its revocation can be
--       deleted.
-- Returns the stream id of each.
local places = {}
for i = 2, #KEYS do
  local place = redis.call('GET', KEYS[i])
  if not place then
    place = redis.call('XADD', KEYS[1], '*', 'session', ARGV[2 * i - 2], 'forget', ARGV[2 * i - 1])
    redis.call('SET', KEYS[i], place, 'PX', ARGV[1])
  end
  places[i - 1] = place
end
return places
