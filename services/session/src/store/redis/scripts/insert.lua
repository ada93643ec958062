-- Adds a session.
--
-- KEYS: the session, its user's session list, the expiry index of the shard.
-- ARGV: id, user, device, address, created, seen, idle expiry, expiry, counter, the time to live of the session and of
--       the session list, both in milliseconds; the confirmed counter; the authentication.
redis.call('HSET', KEYS[1], 'user', ARGV[2], 'device', ARGV[3], 'address', ARGV[4], 'created', ARGV[5],
  'seen', ARGV[6], 'idle', ARGV[7], 'end', ARGV[8], 'counter', ARGV[9], 'confirmed', ARGV[12],
  'last_device', ARGV[3], 'last_address', ARGV[4], 'authentication', ARGV[13])
redis.call('PEXPIRE', KEYS[1], ARGV[10])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
-- The list expires with the last of its sessions.
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[11]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[11])
end
redis.call('ZADD', KEYS[3], ARGV[7], ARGV[2] .. ARGV[1])
return redis.status_reply('OK')
