-- Takes back an attempt that was counted. Times are in microseconds, by the clock of Redis.
--
-- KEYS: the key.
-- ARGV: the interval between two attempts.
local due = redis.call('GET', KEYS[1])
if not due then
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
due = tonumber(due) - tonumber(ARGV[1])
if due <= now then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', string.format('%.0f', math.ceil((due - now) / 1000)))
end
return 1
