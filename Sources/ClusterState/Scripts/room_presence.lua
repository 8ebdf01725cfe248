#!lua flags=no-writes
-- A page of the users in a room.
--
-- KEYS  1 meta  2 users
-- ARGV  1 cursor (0 first)  2 how many, about (at most 500)
-- RETURNS {} there is no such room; else {next cursor (0: that was all), epoch, seq, tag, pv, count,
--         users and their values in turn}
-- ATOMICITY  head and page are of one moment. Pages are not: a user who comes or goes between them may be missing or
--            listed twice (as with HSCAN).

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'tag', 'pv', 'count')
if not meta[1] then return {} end
local page = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', math.min(tonumber(ARGV[2]), 500))
return { page[1], meta[1], meta[2] or '0', meta[3] or '-', meta[4] or '0', meta[5] or '0', page[2] }
