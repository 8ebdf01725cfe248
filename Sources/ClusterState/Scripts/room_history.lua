#!lua flags=no-writes
-- A piece of a room's log, with the room's head.
--
-- KEYS  1 meta  2 log
-- ARGV  1 'forward' | 'backward'  2 start id  3 end id (as XRANGE and XREVRANGE take them)  4 how many (at most 500)
-- RETURNS {} there is no such room; else {epoch, seq, tag, pv, count, entries, oldest first, as XRANGE gives them}
-- ATOMICITY  head and entries are of one moment.

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'tag', 'pv', 'count')
if not meta[1] then return {} end
local count = math.min(tonumber(ARGV[4]), 500)
local entries
if ARGV[1] == 'backward' then
    local newest_first = redis.call('XREVRANGE', KEYS[2], ARGV[2], ARGV[3], 'COUNT', count)
    entries = {}
    for index = #newest_first, 1, -1 do entries[#entries + 1] = newest_first[index] end
else
    entries = redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[3], 'COUNT', count)
end
return { meta[1], meta[2] or '0', meta[3] or '-', meta[4] or '0', meta[5] or '0', entries }
