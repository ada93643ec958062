-- Forgets what has expired in a shard.
--
-- KEYS: the ends and the outbox of the shard.
-- ARGV: now, how many sessions at most, what keys of sessions begin with, what those of users' sessions begin with.
-- Answers how many sessions, and what the outbox holds.
local ended = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, member in ipairs(ended) do
  local user = string.sub(member, 1, 32)
  local id = string.sub(member, 33)
  -- Both carry the tag of the shard.
  redis.call('DEL', ARGV[3] .. id)
  redis.call('ZREM', ARGV[4] .. user, id)
  redis.call('ZREM', KEYS[1], member)
end
return {#ended, redis.call('HGETALL', KEYS[2])}
