-- Advances an active session if this is its current counter.
--
-- KEYS: the session, the expiry index of the shard.
-- ARGV: id, counter, now, the new idle expiry, how long a session is kept after its expiry, in milliseconds; device and
--       address of the client.
-- Returns whether it was advanced, and the session as it is now; false if there is none.
local session = redis.call('HMGET', KEYS[1], unpack(FIELDS))
if not session[1] then
  return false
end
-- Compared as strings: a counter may exceed the integers that a Lua number can represent.
if session[8] ~= ARGV[2] or tonumber(ARGV[3]) >= tonumber(session[6]) then
  return {0, session}
end
local idle = ARGV[4]
if tonumber(session[7]) < tonumber(idle) then
  idle = session[7]
end
session[5] = ARGV[3]
session[6] = idle
-- Sessions of a former release lack the fields from here on.
if (session[10] or '0') == '0' then
  session[12] = '0'
end
session[9] = ARGV[2]
session[10] = '0'
session[11] = '0'
session[12] = session[12] or '0'
session[13] = ARGV[6]
session[14] = ARGV[7]
redis.call('HINCRBY', KEYS[1], 'counter', 1)
session[8] = redis.call('HGET', KEYS[1], 'counter')
redis.call('HSET', KEYS[1], 'seen', session[5], 'idle', session[6], 'confirmed', session[9], 'repeats', session[10],
  'replacements', session[11], 'repeated_rotations', session[12], 'last_device', session[13],
  'last_address', session[14])
local rest = math.ceil((tonumber(idle) - tonumber(ARGV[3])) / 1000) + tonumber(ARGV[5])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', rest))
redis.call('ZADD', KEYS[2], idle, session[1] .. ARGV[1])
return {1, session}
