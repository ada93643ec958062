-- Replaces the state of a session's rotation, if it is still the previous one.
--
-- KEYS: the session, the expiry index of the shard.
-- ARGV: id, the previous counter and repeats; counter, repeats, replacements, repeated_rotations, seen, idle expiry,
--       device and address of the client; the time to live of the session, in milliseconds; the confirmed counter, which
--       sessions of a former release lack.
-- Returns whether it was replaced.
local previous = redis.call('HMGET', KEYS[1], 'user', 'counter', 'repeats')
if previous[2] ~= ARGV[2] or (previous[3] or '0') ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'counter', ARGV[4], 'repeats', ARGV[5], 'replacements', ARGV[6],
  'repeated_rotations', ARGV[7], 'seen', ARGV[8], 'idle', ARGV[9], 'last_device', ARGV[10], 'last_address', ARGV[11],
  'confirmed', ARGV[13])
redis.call('PEXPIRE', KEYS[1], ARGV[12])
redis.call('ZADD', KEYS[2], ARGV[9], previous[1] .. ARGV[1])
return 1
