-- Adds revocations of sessions to the stream, each once, however often it is told of.
--
-- KEYS: the stream, then for each session what remembers its place there.
-- ARGV: how long to remember, in milliseconds; then for each session its id and when its revocation can be forgotten.
-- Answers the place of each.
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
