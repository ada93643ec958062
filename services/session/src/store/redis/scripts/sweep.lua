-- Deletes the expired sessions of a shard.
--
-- KEYS: the expiry index and the outbox of the shard.
-- ARGV: now, the maximum number of sessions, the key prefix of sessions, the key prefix of users' session lists.
-- Returns the number of deleted sessions, and the entries of the outbox.
local ended = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, member in ipairs(ended) do
  local user = string.sub(member, 1, 32)
  local id = string.sub(member, 33)
  -- Both keys have the hash tag of the shard.
  redis.call('DEL', ARGV[3] .. id)
  redis.call('ZREM', ARGV[4] .. user, id)
  redis.call('ZREM', KEYS[1], member)
end
return {#ended, redis.call('HGETALL', KEYS[2])}
