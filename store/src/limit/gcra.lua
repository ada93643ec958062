-- Counts an attempt, unless it comes too early (GCRA, ITU-T I.371). Times are in microseconds, by the clock of Redis.
--
-- KEYS: the key.
-- ARGV: the interval between two attempts, and how many may come at once.
-- Answers how much too early the attempt comes; 0 for one that may pass.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval = tonumber(ARGV[1])
local burst = interval * tonumber(ARGV[2])
-- When the next attempt would come if all came evenly.
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
