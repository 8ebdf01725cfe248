#!lua flags=allow-oom
-- What a read met in a room's log that is too old goes, with all before it: up to 50,000 messages (2 ms).
--
-- KEYS  1 meta  2 log
-- ARGV  1 the seq of what was met  2 the age (ms) that is too old, unless the room's own is less
-- RETURNS how many entries went
-- ATOMICITY  whether it is too old is looked at again: numbers may have begun anew since the read.
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if not first then return 0 end
local most = string.format('%d', math.min(ARGV[1] + 0, string.match(first[1], '^%d+') + 50000))
local entry = redis.call('XREVRANGE', KEYS[2], most .. '-0', '-', 'COUNT', 1)[1]
if not entry then return 0 end
local age = math.min(ARGV[2] + 0, tonumber(redis.call('HGET', KEYS[1], 'age')) or math.huge)
local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - age
if (tonumber(string.match(entry[2][2], '^%d+')) or oldest) >= oldest then return 0 end
return redis.call('XTRIM', KEYS[2], 'MINID', string.match(entry[1], '^%d+') .. '-1')
