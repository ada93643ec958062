-- Counts an attempt, unless it exceeds the rate (GCRA, ITU-T I.371). Times are in microseconds, by the clock of Redis.
--
-- KEYS: the key.
-- ARGV: the interval between two attempts, and the burst size.
-- Returns how long the attempt must wait; 0 if it passes.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval = tonumber(ARGV[1])
local burst = interval * tonumber(ARGV[2])
-- The theoretical arrival time of the next attempt.
local due = tonumber(redis.call('GET', KEYS[1]) or now)
if due < now then
  due = now
elseif due > now + burst then
  -- The clock was set back, or the limit was raised.
  due = now + burst
end
local early = due + interval - burst - now
if early > 0 then
  return early
end
due = due + interval
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', string.format('%.0f', math.ceil((due - now) / 1000)))
return 0
