-- Deletes revocations that have expired, oldest first. The stream still reports the id of the newest.
--
-- Those of keys are kept much longer than the others, which are in the order of their expiry: the first of the others that has
-- not expired ends the search.
--
-- KEYS: the stream.
-- ARGV: now, the maximum number to read, the entry to continue after; empty: from the first one.
-- Returns the number of deleted revocations, and the entry to continue after; empty at the end.
local from = '-'
if ARGV[3] ~= '' then
  from = '(' .. ARGV[3]
end
local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', ARGV[2])
local expired, last = {}, ''
if #entries == tonumber(ARGV[2]) then
  last = entries[#entries][1]
end
for _, entry in ipairs(entries) do
  local fields, is_kept, is_key = entry[2], false, false
  for j = 1, #fields, 2 do
    if fields[j] == 'forget' then
      is_kept = tonumber(ARGV[1]) < tonumber(fields[j + 1])
    elseif fields[j] == 'key' then
      is_key = true
    end
  end
  if not is_kept then
    expired[#expired + 1] = entry[1]
  elseif not is_key then
    last = ''
    break
  end
end
local count = 0
if #expired > 0 then
  count = redis.call('XDEL', KEYS[1], unpack(expired))
end
return {count, last}
